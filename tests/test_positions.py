"""studies/positions.py: the tasks have the answers they say; one pass tests all lengths."""

from __future__ import annotations

import pytest
import torch

from attnbook.studies import positions


def test_answers_by_reading_along():
    generator = torch.Generator().manual_seed(0)
    for task in positions.TASKS:
        tokens, answers = positions.sequences(task, 20, 30, generator)
        assert 0.1 < (tokens >= positions.SYMBOLS).float().mean() < 0.2
        for row, answer in zip(tokens.tolist(), answers.tolist(), strict=True):
            latest = positions.IGNORED
            for place, token in enumerate(row):
                latest = token - positions.SYMBOLS if token >= positions.SYMBOLS else latest
                back = row[place - 3] % positions.SYMBOLS if place >= 3 else positions.IGNORED
                assert answer[place] == (latest if task == "latest marked" else back)


@pytest.mark.parametrize("encoding", positions.ENCODINGS)
def test_a_causal_reader_answers_in_a_long_sequence_as_in_a_short_one(device, encoding):
    model = positions.Reader(encoding).to(device)
    tokens = torch.randint(32, (2, 24), device=device)
    torch.testing.assert_close(model(tokens)[:, :10], model(tokens[:, :10]), rtol=1e-4, atol=1e-5)
    changed = tokens.clone()
    changed[:, 10:] = 0
    torch.testing.assert_close(model(changed)[:, :10], model(tokens)[:, :10], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("encoding", ["none", "ALiBi"])
def test_without_a_mask_neither_of_these_tells_a_sequence_from_its_mirror_image(device, encoding):
    model = positions.Reader(encoding, is_causal=False).to(device)
    tokens = torch.randint(32, (2, 9), device=device)
    torch.testing.assert_close(model(tokens.flip(-1)).flip(1), model(tokens), rtol=1e-4, atol=1e-5)


def test_accuracy_by_bins_of_positions(device):
    class HalfRight(positions.Reader):
        def forward(self, tokens):
            back = (tokens % positions.SYMBOLS).roll(3, dims=-1)
            back[:, 16:] = 0
            return torch.nn.functional.one_hot(back, positions.SYMBOLS).float()

    model = HalfRight("none").to(device)
    first, second = positions.accuracy(model, "three back", count=50, length=32)
    assert first == 1 and 0 < second < 0.2
