"""Studies encodings, longer and window: the questions have the answers they say, arms differ."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange
from torch.testing import assert_close

from attnbook import RotaryEncoding, relative_buckets
from attnbook.studies import encodings, longer, window

EVERY = (*encodings.ENCODINGS, "FLOATER")


def reader(encoding, **settings):
    torch.manual_seed(0)
    return encodings.Reader(encoding, 32, 32, **settings)


def test_answers_by_reading_along():
    tokens, answers = encodings.sequences(20, 30, torch.Generator().manual_seed(0))
    assert 0.1 < (tokens >= encodings.SYMBOLS).float().mean() < 0.2
    for row, answer in zip(tokens.tolist(), answers.tolist(), strict=True):
        latest = encodings.IGNORED
        for place, token in enumerate(row):
            latest = token - encodings.SYMBOLS if token >= encodings.SYMBOLS else latest
            back = row[place - 3] % encodings.SYMBOLS if place >= 3 else encodings.IGNORED
            assert answer[place] == [latest, back]


@pytest.mark.parametrize("encoding", EVERY)
def test_a_causal_reader_answers_in_a_long_sequence_as_in_a_short_one(device, encoding):
    model = reader(encoding).to(device)
    tokens = torch.randint(32, (2, 24), device=device)
    assert_close(model(tokens)[:, :10], model(tokens[:, :10]), rtol=1e-4, atol=1e-5)
    changed = tokens.clone()
    changed[:, 10:] = 0
    assert_close(model(changed)[:, :10], model(tokens)[:, :10], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("encoding", ["none", "ALiBi"])
def test_without_a_mask_neither_of_these_tells_a_sequence_from_its_mirror_image(encoding):
    model = reader(encoding, is_causal=False)
    tokens = torch.randint(32, (2, 9))
    assert_close(model(tokens.flip(-1)).flip(1), model(tokens), rtol=1e-4, atol=1e-5)


def test_floater_shifts_the_projections_as_its_authors_do():
    """With the path at 0 it is the sinusoidal reader; else q, k and v get p after W x + b."""
    plain, floater = reader("sinusoidal"), reader("FLOATER")
    shared = plain.state_dict()
    missing = floater.load_state_dict(shared, strict=False)
    assert missing.unexpected_keys == []
    assert {key.split(".")[0] for key in missing.missing_keys} == {"floater"}
    assert floater.floater is not None
    tokens = torch.randint(32, (2, 9))
    moved = floater(tokens)
    for part, projection in zip(floater.floater(9) * 2, floater.shifted, strict=True):
        x = torch.randn(9, 32)
        assert_close(projection(x) - part, x @ projection.weight.T + projection.bias)
    with torch.no_grad():
        for parameter in floater.floater.parameters():
            parameter.zero_()
    assert_close(floater(tokens), plain(tokens))
    assert (moved - plain(tokens)).abs().max() > 1e-3


def test_training_reaches_every_bucket_that_a_longer_text_needs():
    model = reader("T5")
    assert model.relative is not None

    def buckets(length, reach):
        found = relative_buckets(length, max_distance=reach, is_causal=True)
        return set(found.tril().flatten().tolist())

    assert model.relative.max_distance == 24
    assert buckets(32, 24) == buckets(256, 24)
    assert buckets(32, 128) < buckets(256, 128)


def test_shares_by_bins_of_positions():
    class HalfRight(torch.nn.Module):
        def forward(self, tokens):
            back = (tokens % encodings.SYMBOLS).roll(3, dims=-1)
            back[:, 16:] = 0
            one_hot = torch.nn.functional.one_hot(back, encodings.SYMBOLS).float()
            return torch.cat([one_hot, one_hot], dim=-1)

    first, second = encodings.right(HalfRight(), 50, 32, seed=0)["three back"]
    assert first == 1 and 0 < second < 0.2


def test_the_best_reader_without_order_by_simulation():
    """It knows its own token, counts along, and names the commonest that the answer can be."""
    tokens, answers = encodings.sequences(400, 32, torch.Generator().manual_seed(0))
    for n, name in enumerate(encodings.ASKED):
        for places in (range(16), range(16, 32)):
            hits = shares = asked = 0
            for row, answer in zip(tokens.tolist(), answers[..., n].tolist(), strict=True):
                for place in places:
                    if answer[place] == encodings.IGNORED:
                        continue
                    own = row[place : place + 1] if row[place] >= 16 else []
                    seen = row[:place] if n else own or [t for t in row[:place] if t >= 16]
                    seen = [token % 16 for token in seen]
                    named = max(set(seen), key=seen.count)
                    hits += named == answer[place]
                    shares += seen.count(named) / len(seen)
                    asked += 1
            assert abs(hits - shares) / asked < 0.03
            stored = encodings.order_blind(32, count=400)[name][places[0] // 16]
            assert shares / asked == pytest.approx(stored, abs=1e-4)


def test_an_arm_of_the_longer_study_changes_the_angles_alone():
    sizes = {"steps": 6, "length": 16, "long": 32, "count": 4, "short_lr": 0.01, "lr": 0.01}
    found = {
        arm: longer.stretch(arm=arm, factor=2.0, more_steps=6, seed=0, **sizes)
        for arm in longer.ARMS
    }
    assert longer.trained.cache_info().currsize == 1
    plain = longer.stretch(arm="NTK", factor=1.0, more_steps=6, seed=0, **sizes)
    assert plain == found["as trained"]
    assert len({str(one["curve"]) for one in found.values()}) == 3
    kept = longer.trained(
        lr=0.01, steps=6, length=16, seed=0, dim=32, batch_size=16, device="cpu"
    )  # fmt: skip
    rotary = [module for module in kept.modules() if isinstance(module, RotaryEncoding)]
    assert [(r.interpolation, r.ntk) for r in set(rotary)] == [(1.0, 1.0)]


def test_only_slow_pairs_are_slowed_by_parts():
    parts = longer.ByParts(8, 10_000.0, length=32, factor=4.0, low=1, high=5)
    turns = 32 / (2 * torch.pi) / 10_000.0 ** (torch.arange(4) / 4)
    assert turns[0] > 5
    assert turns[1] < 1  # the other pairs have not been round within the trained length
    x = torch.randn(1, 2, 40, 8)
    ways = [RotaryEncoding(8), RotaryEncoding(8, interpolation=4.0)]
    pairs = [rearrange(turn(x), "... (pair two) -> ... pair two", two=2) for turn in (*ways, parts)]
    assert_close(pairs[2][..., :1, :], pairs[0][..., :1, :])
    assert_close(pairs[2][..., 1:, :], pairs[1][..., 1:, :])
    paper = longer.ByParts(8, 10_000.0, length=32, factor=4.0, low=1, high=32)
    assert 0.25 < paper.pace[0] < 0.5  # with the bounds of the paper the first pair slows as well


class Nearby(torch.nn.Module):
    """Names the latest marked symbol if it stands less than some places back, else symbol 0."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.reach = reach

    def forward(self, tokens):
        place = torch.arange(tokens.shape[1])
        latest = place.expand_as(tokens).masked_fill(tokens < 16, -100).cummax(-1).values
        symbol = tokens.gather(1, latest.clamp(min=0)) % 16 * (place - latest < self.reach)
        return torch.nn.functional.one_hot(symbol, 64).float()


def test_answers_are_split_by_their_distance():
    stretches = {"within": 1, "at the end": 3}
    for reach in (8, 16):
        found = encodings.by_distance(Nearby(reach), 400, 64, stretches, seed=1)
        assert list(found) == list(stretches)
        for where in found.values():
            assert all(bin["right"] == 1 for name, bin in where.items() if int(name[:2]) < reach)
            far = [bin["right"] for name, bin in where.items() if int(name[:2]) >= reach]
            assert far
            assert max(far[:2]) < 0.3  # symbol 0 is right by chance, in one of sixteen
            assert sum(bin["answers"] for bin in where.values()) <= 400 * 16


def test_a_window_hides_what_is_far_in_each_layer_and_changes_nothing_else():
    model = reader("rotary", layers=1)
    tokens = torch.randint(32, (2, 24))
    whole, near = model(tokens), tokens.clone()
    near[:, :11] = 0
    model.relative = window.Window(8)
    assert_close(model(tokens)[:, :8], whole[:, :8])
    assert_close(model(near)[:, 18:], model(tokens)[:, 18:])
    assert (model(near)[:, 17] - model(tokens)[:, 17]).abs().max() > 1e-3
    assert (model(tokens)[:, 8:] - whole[:, 8:]).abs().max() > 1e-3


@pytest.mark.parametrize(("heads", "base"), [(4, 1e4), (2, 1e9)])
def test_a_pair_that_is_held_turns_no_farther_and_all_else_stays(heads, base):
    reader = encodings.Reader("rotary", 32, 32, heads=heads, base=base)
    tokens, _ = encodings.sequences(3, 40, torch.Generator().manual_seed(0))
    with torch.no_grad():
        free = reader(tokens)
        none, far, held = (
            encodings.Held(reader, pairs, distance)(tokens)
            for pairs, distance in (((), 15), ((1,), 39), ((1,), 15))
        )
    assert_close(none, free)
    assert_close(far, free)  # no two tokens are farther apart
    assert_close(held[:, :16], free[:, :16])
    assert (held - free)[:, 16:].abs().max() > 1e-3


def test_a_reader_of_the_window_study_is_one_of_the_encodings():
    sizes = {"lr": 0.01, "steps": 6, "length": 16, "count": 4, "seed": 0}
    theirs = encodings.learn(arm="rotary", test_length=32, **sizes)["right"]
    ours = window.learn(encoding="rotary", heads=4, long=32, widths=(4, 32), **sizes)["right"]
    assert ours[window.OPEN] == ours["window of 32"] == theirs != ours["window of 4"]
