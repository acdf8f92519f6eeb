"""The parts of the studies of several heads."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from attnbook import costs
from attnbook.studies import heads_sweep, own_position, places, sink
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
