"""The text-angle classifier of rapidocr: ours is that network, and what is done to its gates."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from attnbook.studies import shipped

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("rapidocr") is None, reason="the extra `ocr` is not installed"
)


@pytest.fixture(scope="module")
def network():
    return shipped.published()


@pytest.fixture(scope="module")
def lines():
    return shipped.lines("Latin", 6, 0, hard=True)


def test_it_gives_onnxruntimes_answers(network, lines):
    runtime = pytest.importorskip("onnxruntime")
    folder = importlib.util.find_spec("rapidocr").submodule_search_locations[0]
    session = runtime.InferenceSession(
        f"{folder}/{shipped.FILE}", providers=["CPUExecutionProvider"]
    )
    (theirs,) = session.run(None, {"x": lines[0].numpy()})
    assert np.abs(theirs - network(lines[0])[0].softmax(1).numpy()).max() < 1e-5


def test_nine_gates_hold_44_percent_of_the_weights(network):
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    assert len(shipped.LAYERS) == 9
    assert sum(sizes.values()) == 129_356
    assert sum(size for name, size in sizes.items() if ".se." in name) == 56_658


def test_its_own_gates_handed_back_change_nothing(network, lines):
    logits, seen = network(lines[0])
    own = {name: seen[name]["gate"] for name in shipped.LAYERS}
    assert_close(network(lines[0], own)[0], logits)
    assert_close(shipped.in_batches(network, lines[0], own)[0], logits, atol=1e-5, rtol=1e-5)
    swapped = {name: gate.flip(0) for name, gate in own.items()}
    assert (network(lines[0], swapped)[0] - logits).abs().max() > 0.01


def test_rescaling_undoes_one_number_for_all_channels_and_nothing_else(network, lines):
    x = lines[0]
    logits, seen = network(x)
    own = {name: seen[name]["gate"] for name in shipped.LAYERS}
    assert_close(shipped.rescaled(x, own, "cpu")(x, own)[0], logits, atol=1e-4, rtol=1e-4)
    louder = {name: 2 * gate for name, gate in own.items()}
    assert (network(x, louder)[0] - logits).abs().max() > 0.1
    assert_close(shipped.rescaled(x, louder, "cpu")(x, louder)[0], logits, atol=1e-3, rtol=1e-3)


def test_a_line_and_its_turned_twin(lines):
    x, y = lines
    assert y.tolist() == [0, 1] * 6
    real = (x[0] != 0).any(0).any(0).sum()  # zeros at the right
    assert_close(x[0, :, :, :real].flip(1, 2), x[1, :, :, :real], atol=0.02, rtol=0)
    again, _ = shipped.lines("Latin", 6, 0, hard=True)
    assert torch.equal(x, again)


@pytest.mark.parametrize("script", [*shipped.SCRIPTS, *shipped.DATES])
def test_every_script_is_drawn(script):
    x, _ = shipped.lines(script, 2, 1, hard=False)
    assert x.shape == (4, 3, 48, 192)
    assert all(image.std() > 0.1 for image in x)


def test_a_label_that_is_there_is_read_and_noise_is_not():
    labels = torch.arange(200) % 2
    noise = torch.randn(400, 3)
    told = torch.cat([noise, torch.cat([labels, labels])[:, None].float()], 1)
    assert shipped.readable(told[:200], labels, told[200:], labels) == 1
    assert shipped.readable(noise[:200], labels, noise[200:], labels) < 0.65


def test_another_file_is_refused(monkeypatch):
    monkeypatch.setattr(shipped, "SHA256", "0" * 64)
    with pytest.raises(ValueError, match=f"sha256 e47a.* published has {'0' * 64}"):
        shipped.published()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(shipped, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"rapidocr or onnx .*'\.\[ocr\]'"):
        shipped.published()
