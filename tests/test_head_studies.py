"""The parts of the studies of several heads."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from attnbook import costs
from attnbook.studies import heads_removed, heads_sweep, own_position, places, sink
from attnbook.transformer import Encoder


def test_tied_projections_look_at_themselves():
    apart, tied = (own_position.of_random_tokens(1, tied=tied, seed=0) for tied in (False, True))
    assert apart < 0.1 and tied > 0.8


def test_own_weight_of_a_layer_that_looks_at_itself():
    model = own_position.PatchReader(1)
    own_position.tie(model)
    with torch.no_grad():
        model.layer.attention.q_proj.weight.copy_(torch.eye(64))
        model.positions.table.weight.copy_(100 * torch.eye(64)[:16])
    assert own_position.own_weight(model, torch.rand(3, 8, 8)) > 0.999


def test_answers_are_the_values_at_the_places():
    generator = torch.Generator().manual_seed(0)
    for kind in ("normal", "uniform", "symbols"):
        asked, values, answers = places.questions(
            5000, generator, places=3, length=6, values=4, kind=kind
        )
        assert (asked.sum(1) <= 1).all() and (asked.sum(-1) == 1).all()
        assert_close(asked @ values, answers)
        assert ((values == 0) | (values == 1)).all() == (kind == "symbols")
        if kind != "symbols":
            assert abs(values.mean()) < 0.02 and abs(values.std() - 1) < 0.02


def test_a_second_layer_asks_on_with_what_the_first_has_read():
    sizes = {"places": 2, "length": 6, "values": 2}
    model = places.TwoLayers(1, dim=16, **sizes)
    generator = torch.Generator().manual_seed(0)
    asked, values, _ = places.questions(1, generator, kind="normal", **sizes)
    seen = []
    model.second.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(asked, values)
    model(asked, 2 * values)
    assert not torch.allclose(seen[0], seen[1])


def test_keys_may_hold_the_value():
    sizes = {"places": 2, "length": 6, "values": 2}
    asked, values, _ = places.questions(1, torch.Generator().manual_seed(0), kind="normal", **sizes)
    for reader in ("one layer", "keys with values"):
        model = places.READERS[reader](1, dim=16, **sizes)
        seen = []
        model.attention.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))  # noqa: B023
        model(asked, values)
        model(asked, 2 * values)
        assert torch.equal(*seen) == (reader == "one layer")


def small_encoder():
    torch.manual_seed(0)
    return Encoder(50, dim=24, num_heads=12, num_layers=6, hidden_dim=16, max_length=9).eval()


def test_what_is_hidden_or_silent_for_words():
    encoder, tokens = small_encoder(), torch.arange(7)[None]
    none = torch.zeros(1, 6, 7, dtype=torch.bool)
    assert_close(sink.changed(encoder, tokens, none, none), encoder(tokens))
    last = none.clone()
    last[:, :, 6] = True
    mask = torch.ones(7, 7, dtype=torch.bool)
    mask[1:-1, 6] = False  # words may not look, [CLS] and [SEP] may
    assert_close(sink.changed(encoder, tokens, last, none), encoder(tokens, mask))
    last[:, :5] = False  # in the last layer alone
    silent = sink.changed(encoder, tokens, none, last)
    mean = torch.zeros(6, 24)
    assert_close(sink.changed(encoder, tokens, none, last, mean), silent)
    values = encoder.layers[5].attention.v_proj
    values.register_forward_hook(lambda module, inputs, out: out * (torch.arange(7) < 6)[:, None])
    assert_close(silent[:, 1:-1], encoder(tokens)[:, 1:-1])


def test_words_weights_may_be_scaled_for_each_head():
    encoder, tokens = small_encoder(), torch.arange(7)[None]
    none = torch.zeros(1, 6, 7, dtype=torch.bool)
    assert_close(
        sink.changed(encoder, tokens, none, none, scale=torch.ones(6, 12)), encoder(tokens)
    )
    scale = torch.ones(6, 12)
    scale[5, 3] = 0  # the last layer: head 4 hands over nothing to the words
    found = sink.changed(encoder, tokens, none, none, scale=scale)
    before = encoder(tokens)
    with torch.no_grad():
        encoder.layers[5].attention.out_proj.weight[:, 6:8] = 0
    after = encoder(tokens)
    assert_close(found[:, 1:-1], after[:, 1:-1])
    assert_close(found[:, [0, -1]], before[:, [0, -1]])


def test_shares_of_the_first_token():
    encoder, tokens = small_encoder(), torch.arange(7)[None]
    found = sink.shares(encoder, tokens)
    _, weights = encoder.attend(tokens)
    assert_close(found["weight"], weights[0, :, :, 1:-1, 0].mean(-1))
    for layer in encoder.layers:  # all tokens hand over the same: the shares are those of weight
        torch.nn.init.zeros_(layer.attention.v_proj.weight)
        torch.nn.init.ones_(layer.attention.v_proj.bias)
    found = sink.shares(encoder, tokens)
    assert_close(found["content"], found["weight"])
    assert_close(found["length"], torch.ones(6, 12))


def test_random_words_are_looked_at_as_much_as_the_first_token():
    looked_at = torch.tensor([0.35, 0.1, 0.1, 0.1, 0.1, 0.1, 0.15])
    word, several = sink.random_words(0, looked_at)
    assert 1 <= word <= 5 and several.sum() == 4 and several[word] and not several[[0, 6]].any()
    assert sink.random_words(0, looked_at + 5 * (looked_at == 0.35))[1].sum() == 5


def test_a_head_is_removed_where_its_strip_of_the_output_projection_is_0(monkeypatch):
    model = Published()
    monkeypatch.setattr(heads_removed, "published", lambda: model)
    heads_removed.sentences.cache_clear()
    known = heads_removed.whole(count=5)
    for half in (None, 0, 1):
        expected = heads_removed.sentences(5, half, "cpu").inputs[-1]
        ours = heads_removed.kept(heads=[[*range(12)]] * 6, half=half, count=5)
        assert min(ours["cosine"]) > 0.9999 and len(ours["found"]) == (5 + (half == 0)) // (
            1 if half is None else 2
        )
        assert len(expected) == 1  # one batch
    read = heads_removed.sentences(5, None, "cpu")
    first, second = zip(*heads_removed.pairs(5), strict=True)
    tokens, lengths = model.tokenize([*first, *second])
    alone = model.encoder(tokens[7:8, : lengths[7]]).mean(1)
    vector = read.vectors(read.inputs[-1])[1, 2]
    assert_close(vector, torch.nn.functional.normalize(alone[0], dim=-1))
    (ours,) = heads_removed.without(layer=2, heads=[3], arm="set to 0", count=5)
    true = heads_removed.sentences(5, None, "cpu").vectors(
        heads_removed.sentences(5, None, "cpu").inputs[-1]
    )
    strip = model.encoder.layers[2].attention.out_proj.weight
    with torch.no_grad():
        strip[:, 6:8] = 0
    heads_removed.sentences.cache_clear()
    cut = heads_removed.sentences(5, None, "cpu")
    expected = heads_removed.scores(cut.vectors(cut.inputs[-1]), true)
    assert_close(torch.tensor(ours["cosine"]), torch.tensor(expected["cosine"]), atol=2e-5, rtol=0)
    assert min(ours["cosine"]) < 0.99999 and known["all heads"]["cosine"][0] > 0.9999
    heads_removed.sentences.cache_clear()


class Published:
    """Stands for the published encoder: small, and its tokens are the letters."""

    def __init__(self):
        self.encoder = small_encoder()

    def to(self, device):
        return self

    def tokenize(self, texts):
        rows = [[ord(letter) % 50 for letter in text[: 4 + n % 5]] for n, text in enumerate(texts)]
        lengths = torch.tensor([len(row) for row in rows])
        return torch.tensor([row + [0] * (8 - len(row)) for row in rows]), lengths


def test_what_is_found():
    vectors = torch.eye(3)[None].repeat(2, 1, 1)
    swapped = torch.stack([vectors[0], vectors[0][[1, 0, 2]]])
    assert heads_removed.scores(vectors, vectors)["found"] == [1, 1, 1]
    found = heads_removed.scores(swapped, vectors)
    assert found["found"] == found["found backwards"] == [0, 0, 1]
    assert found["rank"] == [0.3333, 0.3333, 1] and found["cosine"] == [0.5, 0.5, 1]


def test_the_exact_test_of_mcnemar():
    found = heads_removed.mcnemar([1.0] * 6 + [0.0] * 4, [0.0] * 10)
    assert found["mean"] == 0.6 and found["p"] == 0.03125  # six gained, none lost: 2 / 2^6
    assert heads_removed.mcnemar([1.0] * 5, [1.0] * 5)["p"] == 1


def test_the_number_of_heads_changes_no_number_of_parameters():
    for make in (own_position.PatchReader, lambda heads: heads_sweep.CharacterModel(heads, 50)):
        assert len({costs.parameters(make(heads)) for heads in (1, 4, 32)}) == 1


def test_characters_see_no_future():
    model = heads_sweep.CharacterModel(2, 50)
    text = torch.randint(50, (2, 9))
    changed = text.clone()
    changed[:, 5:] = 0
    assert_close(model(text)[:, :5], model(changed)[:, :5])


def test_unseen_text_is_not_trained_on():
    training, unseen, characters = heads_sweep.manual()
    assert len(unseen) > 1000 and max(int(training.max()), int(unseen.max())) < characters
    assert torch.equal(training[0, -1], training[1, 0])  # windows share one character
