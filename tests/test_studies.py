from __future__ import annotations

import ast
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import attnbook
from attnbook import studies
from attnbook.datasets import Characters, date_pairs
from attnbook.studies import (
    again,
    dividing,
    few_images,
    influence,
    lengths,
    relating,
    residual,
    same_task,
    stored,
    warps,
)

SHARED = {"__init__", "protocol", "runner"}
NAMES = sorted({path.stem for path in Path(studies.__file__).parent.glob("*.py")} - SHARED)
# What a study fixes for its data, where most of the time of its quick version would go into it.
FEWER = {
    "cue_strip": {"PAIRS": 64, "MEASURED": 40},
    "excitation": {"PARTS": {"training": 120, "validation": 48, "test": 48}},
    "few_images": {"TEST": 100, "VALIDATION": 100},
    "influence": {"LEARNED": 400, "TRIED": 50, "TESTED": 50},
    "shipped": {"DATES": {"Greek dates": "el"}},
    "warps": {"TESTING": 100, "TRIED": 50},
}
RECORD = {"settings", "results", "seconds", "device", "versions", "commit"}


@pytest.fixture
def fewer(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a study draw little data, and forget it afterwards."""
    study = importlib.import_module(f"attnbook.studies.{name}")
    there = vars(study).values() if name in FEWER else ()
    kept = [value for value in there if hasattr(value, "cache_clear")]
    for function in kept:
        function.cache_clear()
    for constant, value in FEWER.get(name, {}).items():
        monkeypatch.setattr(study, constant, value)
    yield
    for function in kept:
        function.cache_clear()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("fewer")
def test_quick_version_runs_and_stores_nothing(name, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(studies, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", [name, "--quick"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    study = importlib.import_module(f"attnbook.studies.{name}")
    with torch.device("meta"):  # stands for any default device: studies draw and run on the CPU
        studies.main(study.run, full=study.FULL, quick=study.QUICK)
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == RECORD or ("question" in printed and set(printed) > RECORD)
    assert printed["device"] == "CPU"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_full_version_is_stored_with_what_made_it(name):
    study, record = importlib.import_module(f"attnbook.studies.{name}"), stored(name)
    assert record["settings"] == study.FULL
    assert record["seconds"] > 0 and record["commit"] and record["versions"]["torch"]


def test_full_version_is_written_beside_the_study(monkeypatch, tmp_path, capsys):
    def run(*, seeds: int) -> dict[str, int]:
        """Count the seeds."""
        return {"counted": seeds}

    monkeypatch.setattr(studies, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["test"])
    studies.main(run, full={"seeds": 3}, quick={"seeds": 1})
    assert stored("test_studies")["results"] == {"counted": 3}
    assert studies.commit() == "unknown"  # no repository here


TRAINED = {
    "warps": lambda **to: warps.train(
        warps.NETWORKS["RTS"]["ST-CNN"], warps.TASKS["RTS"], seed=0, steps=6, lr=5e-3, **to
    )[0],
    "same_task": lambda **to: same_task.train(same_task.WARP, seed=0, steps=6, lr=0.01, **to)[0],
}


@pytest.mark.parametrize("train", TRAINED.values(), ids=TRAINED)
@pytest.mark.no_cover
def test_a_network_is_trained_where_it_is_asked_for(device, train):
    here, there = train(), train(device=device)
    for (name, ours), theirs in zip(here.named_parameters(), there.parameters(), strict=True):
        assert theirs.device.type == device.type
        torch.testing.assert_close(theirs.cpu(), ours, rtol=0.01, atol=0.01, msg=name)


FACTORIES = {"arange", "empty", "eye", "full", "linspace", "ones", "rand", "randint", "randn",
             "randperm", "tensor", "zeros"}  # fmt: skip


def test_what_a_generator_draws_is_drawn_on_its_device():
    """Each call with a generator says where, or stands in a function that is decorated so."""
    found = 0
    for path in Path(attnbook.__file__).parent.rglob("*.py"):
        if "exercises" in path.parts:  # what a learner's code is tried with lies where it lies
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        safe = {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef)
            and any(ast.unparse(decorator) == "on_cpu" for decorator in node.decorator_list)
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or getattr(node.func, "attr", "") not in FACTORIES:
                continue
            given = {keyword.arg for keyword in node.keywords}
            if "generator" in given:
                found += 1
                assert "device" in given or node in safe, f"{path.name}:{node.lineno}"
    assert found > 20


def test_a_study_that_is_not_stored():
    with pytest.raises(ValueError, match=r"no study named 'nothing' is stored; there are \['"):
        stored("nothing")


def test_translator_sees_no_padding_and_no_future(device):
    pairs = date_pairs(8)
    characters = Characters([p.chinese for p in pairs]), Characters([p.english for p in pairs])
    source = characters[0].encode([pair.chinese for pair in pairs]).to(device)
    target = characters[1].encode([pair.english for pair in pairs]).to(device)
    model = influence.Translator(*characters).to(device)
    logits, weights = model.attend(source, target[:, :-1])
    assert weights.shape == (8, target.shape[1] - 1, source.shape[1])
    assert (weights.mT[source == Characters.padding] == 0).all()
    changed = target[:, :-1].clone()
    changed[:, 5:] = Characters.end
    torch.testing.assert_close(model(source, changed)[:, :5], logits[:, :5])
    only_start = torch.zeros(1, 1, source.shape[1], dtype=torch.bool, device=device)
    only_start[..., 0] = True
    _, weights = model.attend(source, target[:, :-1], only_start)
    assert (weights[..., 0] == 1).all()


def test_numerals_are_digits_and_can_be_read_from_their_end():
    read, digits = lengths.numerals([3, 1, 16], seed=0)
    assert [[lengths.READ.index(one) for one in text] for text in read] == [
        [int(one) for one in text] for text in digits
    ]
    assert [*map(len, read)] == [3, 1, 16]
    characters = Characters([lengths.READ])
    source = lengths.turned(characters.encode(read))
    assert (source[:, 0] == Characters.start).all()
    assert characters.decode(source[:, 1:]) == [text[::-1] for text in read]


def test_lookups_have_an_answer():
    asked, keys, values, answer = dividing.lookups(50, torch.Generator().manual_seed(0))
    assert all(len(set(row.tolist())) == dividing.PAIRS for row in keys)
    assert torch.equal(values[keys == asked], answer)


def test_a_list_holds_its_first_symbol_once_more_or_not():
    tokens, repeats = relating.sequences(200, 9, torch.Generator().manual_seed(0))
    assert torch.equal((tokens[:, 1:] == tokens[:, :1]).sum(1), repeats)
    assert 60 < repeats.sum() < 140


def test_an_image_is_moved_by_its_own_shift():
    images = torch.zeros(2, 9, 9).index_put(
        (torch.arange(2), *torch.full((2, 2), 4)), torch.ones(2)
    )
    moved = few_images.shifted(images, torch.tensor([[1, -3], [2, 0]]))
    assert torch.nonzero(moved).tolist() == [[0, 5, 6], [1, 1, 4]]


def test_arms_of_the_stacks_differ_in_their_residuals():
    """They start with the same weights; tokens that look at, or see, themselves stay apart."""
    images = torch.randn(20, 28, 28, generator=torch.Generator().manual_seed(0))
    stacks = {}
    for name in ("with residuals", "without residuals", "itself", "alone"):
        torch.manual_seed(0)
        arm = name if name in residual.ARMS else "without residuals"
        stacks[name] = residual.stack(4, arm, itself=name == "itself", alone=name == "alone")
    (one, other) = (stacks[name].state_dict() for name in residual.ARMS)
    assert all(torch.equal(other[key], value) for key, value in one.items())
    left = {name: residual.apart(stack, images)[-1] for name, stack in stacks.items()}
    assert left["without residuals"] < 1e-9
    assert 0.05 < left["itself"] < left["with residuals"]
    assert left["alone"] > 0.05
    other = torch.cat([images[:, :21], torch.randn(20, 7, 28)], dim=1)
    one, two = (stacks["alone"][:4](batch) for batch in (images, other))
    assert torch.equal(one[:, :12], two[:, :12])


def test_a_study_is_done_again_on_a_gpu_alone(monkeypatch):
    said = again("temperature", torch.device("cpu"))
    assert said == "temperature: stored, found on CPU in 0.5 minutes of one core"
    found = stored("temperature")
    for one in found["comparisons"].values():
        one["mean"] += 1.5 * one["half"]
    name = next(iter(found["comparisons"]))
    found["comparisons"][name]["mean"] += found["comparisons"][name]["half"]
    monkeypatch.setattr("attnbook.studies.temperature.run", lambda each, **settings: found)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    count = len(found["comparisons"])
    said = again("temperature", torch.device("cuda"))
    assert said.startswith("temperature: done again on a GPU in 0.0 minutes, ")
    assert said.endswith(f"{count - 1} of {count} differences as stored (intervals overlap)")
