"""benchmarks/: every comparison is fair; table, JSON and page say what was found."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from attnbook.costs import multiply_adds
from attnbook.studies import stored

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # at the end: attnbook stays the installed one

from benchmarks import __main__ as command  # noqa: E402
from benchmarks import cases, report  # noqa: E402
from benchmarks import measure as measuring  # noqa: E402
from benchmarks.measure import BOTH, FORWARD, measure, peak_mib, prepare  # noqa: E402

# The peers' own, at their import.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

TINY = {
    "multi_head_attention": partial(cases.multi_head_attention, 2, 5, dim=16, heads=2),
    "squeeze_excitation": partial(cases.squeeze_excitation, 2, 32, 5),
    "eca": partial(cases.eca, 2, 32, 5),
    "cbam": partial(cases.cbam, 2, 32, 5),
    "spatial_transformer": partial(cases.spatial_transformer, 2, 3, 6),
    "rotary": partial(cases.rotary, 2, 5, heads=2, dim=8),
}


@pytest.mark.parametrize("kind", [FORWARD, BOTH])
@pytest.mark.parametrize("mechanism", TINY)
def test_peers_compute_the_same(device, mechanism, kind):
    case = TINY[mechanism]().to(device)
    assert case.peers and not case.left_out
    x, outputs = case.x.requires_grad_(), {}
    for name, variant in {"attnbook": case.ours, **case.peers}.items():
        for module in variant.modules:
            module.train(kind == BOTH)
        output = variant.call(x)
        weights = torch.linspace(-1, 1, output.numel(), device=device).view_as(output)
        outputs[name] = output, *torch.autograd.grad((output * weights).sum(), x)
    for name in case.peers:
        assert_close(outputs[name], outputs["attnbook"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mechanism", TINY)
def test_a_backward_pass_reaches_every_parameter(device, mechanism):
    for name, variant in TINY[mechanism]().to(device).variants().items():
        x = torch.randn_like(TINY[mechanism]().x, device=device)
        gradients = prepare(variant, x, BOTH)()
        parameters = sum(len([*module.parameters()]) for module in variant.modules)
        assert len(gradients) == 1 + parameters
        reached = gradients[1:] if name == "floor" and parameters else gradients
        assert all(gradient is not None for gradient in reached)


def test_the_floor_of_attention_has_its_multiply_adds():
    case = cases.multi_head_attention(2, 5, dim=16, heads=2)
    left, right = case.floor.modules
    product = torch.matmul, left.weight, right.weight
    assert multiply_adds(*product) == multiply_adds(case.ours.modules[0], case.x)


@pytest.mark.parametrize("mechanism", TINY)
def test_a_missing_peer_is_named(monkeypatch, mechanism):
    for name in ("timm.layers", "timm.layers.cbam", "x_transformers.x_transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "kornia.geometry.transform", None)
    case = TINY[mechanism]()
    everything = TINY[mechanism].func.__name__
    assert everything == case.mechanism
    assert set(case.left_out) == {
        "multi_head_attention": {"timm", "x-transformers", "x-transformers, flash"},
        "spatial_transformer": {"kornia"},
        "rotary": {"timm", "x-transformers"},
    }.get(mechanism, {"timm"})


def test_memory_is_that_of_the_largest_moment(device):
    def two_then_one():
        both = [torch.ones(2**20, device=device) for _ in range(2)]  # 4 MiB each
        return both[0] + 1 if both.pop() is not None else None

    assert peak_mib(two_then_one, device) == pytest.approx(8, abs=0.01)


def test_the_clock_is_read_when_nothing_is_pending(monkeypatch):
    happened = []
    clock = measuring.time.perf_counter
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: happened.append("wait"))
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: happened.append("clock") or clock())
    measuring.rounds_within(1.0, {"one": lambda: happened.append("call")})
    assert happened == ["wait", "clock", "call", "wait", "clock"]


@pytest.fixture
def tiny_sizes(monkeypatch):
    """Run as always, on inputs that take no time."""
    monkeypatch.setattr(measuring, "MOST_ROUNDS", 3)
    monkeypatch.setattr(command, "SIZES", {cases.eca: [(2, 8, 5)], cases.rotary: [(1, 4)]})
    for name, value in command.SETTINGS.items():
        monkeypatch.setenv(name, value)


def test_the_command_prints_a_table_and_writes_json(tiny_sizes, monkeypatch, tmp_path, capsys):
    path = tmp_path / "results.json"
    monkeypatch.setitem(sys.modules, "x_transformers.x_transformers", None)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--quick", "--json", str(path)])
    command.main()
    shown = capsys.readouterr().out
    record = json.loads(path.read_text(encoding="utf-8"))
    assert {"date", "commit", "device", "versions", "compiled", "seconds"} < record.keys()
    assert {"type", "name", "cores", "threads"} == record["device"].keys()
    assert {"python", "torch", "timm"} <= record["versions"].keys()
    assert record["left_out"] == ["x-transformers (rotary)"]
    assert "Left out, because not installed: x-transformers (rotary)." in shown
    found = [(row["mechanism"], row["pass"], row["beside"]) for row in record["rows"]]
    assert found == [
        (mechanism, kind, beside)
        for mechanism in ("eca", "rotary")
        for kind in (FORWARD, BOTH)
        for beside in ("timm", "floor")
    ]
    for row in record["rows"]:
        lower, middle, upper = row["ratio"]
        assert 0 < lower <= middle <= upper
        assert f"{middle:6.2f} {lower:5.2f}-{upper:4.2f}" in shown
    assert report.summary(record) in shown


def test_the_command_starts_itself_anew_once(monkeypatch):
    started = []

    def execve(path, arguments, environment):
        started.append((arguments, environment))
        raise SystemExit

    for name in command.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--only", "eca"])
    with pytest.raises(SystemExit):
        command.main()
    ((arguments, environment),) = started
    assert arguments == [sys.executable, "-m", "benchmarks", "--only", "eca"]
    assert environment == {**os.environ, **command.SETTINGS, "OMP_NUM_THREADS": "1"}


def test_compiled_forms_are_measured_beside_the_eager_one(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda call, **_: compiled.append(call) or call)
    rows = measure(TINY["eca"](), seconds=0, compiled=True)
    assert [row["beside"] for row in rows] == 2 * ["timm", "floor", "attnbook, eager"]
    assert len(compiled) == 3


# Goals


def test_every_goal_names_a_mechanism_a_size_and_a_peer_that_are_measured():
    with torch.device("meta"):
        measured = {
            build.__name__: [build(*size) for size in sizes] for build, sizes in cases.SIZES.items()
        }
        memory = [
            case
            for build, sizes in cases.MEMORY_SIZES.items()
            for case in [build(*size) for size in sizes]
        ]
    for goal in report.GOALS:
        known = measured[goal.mechanism]
        assert goal.size in ("", *(case.size for case in known))
        assert goal.beside in ("", *known[0].peers)
    assert {case.size for case in memory} == report.MOST_MIB.keys()
    assert {case.mechanism for cases in measured.values() for case in cases} == {*report.TITLES}


def row(ratio, *, ms=20.0, mib=(10.0, 10.0), **changes):
    return {
        "mechanism": "squeeze_excitation",
        "size": "B16 C64 56x56",
        "pass": BOTH,
        "beside": "timm",
        "ratio": (ratio, ratio, ratio),
        "ms": [ms, ms / ratio],
        "mib": list(mib),
        **changes,
    }


@pytest.mark.parametrize(
    "measured, said",
    [
        (row(0.90), "met"),
        (row(0.94), "within tolerance"),
        (row(0.99), "missed by 10 %"),
        (row(0.99, ms=5.0), "within tolerance"),
        (row(1.35, ms=5.0), "missed by 50 %"),
        (row(0.99, beside="torchvision"), ""),
        (row(0.80, **{"pass": FORWARD}), "met"),
        (row(0.60, **{"pass": FORWARD}, size="B16 C512 7x7"), "missed by 20 %"),
        (row(9.99, mechanism="rotary", beside="floor"), ""),
        (row(1.30, mechanism="rotary", beside="x-transformers"), "missed by 30 %"),
    ],
)
def test_times_are_judged(measured, said):
    assert report.time_verdict(measured) == said


@pytest.mark.parametrize(
    "measured, said",
    [
        (row(1.0), "met"),
        (row(1.0, mib=(11.0, 10.0)), "missed by 10 %"),
        (row(1.0, mib=(64.66, 64.64)), "within tolerance"),
        (row(1.0, mib=(64.64, 64.61)), "met"),
        (row(1.0, mib=(10.4, 10.0)), "within tolerance"),
        (row(1.0, mib=(11.0, 10.0), beside="torchvision"), ""),
        (row(1.0, mib=(11.0, 10.0), **{"pass": FORWARD}), ""),
    ],
)
def test_memory_is_judged(measured, said):
    assert report.memory_verdict(measured) == said


# The page

RECORD = {
    "date": "2026-01-31",
    "commit": "abc1234",
    "device": {"type": "cpu", "name": "A processor", "cores": 2, "threads": 2},
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "compiled": False,
    "seconds": 12.3,
    "left_out": ["kornia (spatial_transformer)"],
    "rows": [row(0.7, **{"pass": FORWARD}), row(1.35, mib=(9.0, 10.0))],
    "memory": [{"mechanism": "squeeze_excitation", "size": "B8 N1024", "mib": 165.0}],
}


def test_the_page_says_where_what_and_how_well():
    text = report.page([RECORD, {**RECORD, "compiled": True}])
    for piece in (
        "## A processor\n",
        "## A processor, compiled\n",
        "2 cores, 2 threads; eager; 2026-01-31, commit abc1234",
        "Left out: kornia (spatial_transformer).",
        "Goals: 2 met, 0 within tolerance, 2 missed.",
        "- Squeeze-and-excitation B16 C64 56x56, forward and backward, beside timm: missed by 50 %",
        "### Squeeze-and-excitation\n",
        "B16 C64 56x56, forward: 20.00\u00a0ms.",
        "| timm | 0.70 (0.70, 0.70) | 0.8: met |",
        "| timm | 1.35 (1.35, 1.35) | 0.9: missed by 50 % |",
        "Memory: ours 9.0 MiB; timm 10.0 (to take no more: met).",
        "B8 N1024, forward and backward: 165 MiB; goal 150 MiB, missed by 10 %.",
    ):
        assert piece in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {4}  # narrow enough for a phone


def test_a_page_without_results_says_so():
    assert "Not measured yet" in report.page([])


def test_the_page_of_the_book_is_up_to_date():
    assert command.PAGE.read_text(encoding="utf-8") == report.page(command.stored_records()), (
        "run `python -m benchmarks --page`"
    )


def test_what_the_last_chapter_draws_is_one_of_the_results():
    assert stored("benchmark") in command.stored_records()


def test_the_page_is_written_by_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "PAGE", tmp_path / "benchmarks.md")
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--page"])
    command.main()
    assert command.PAGE.read_text(encoding="utf-8") == report.page(command.stored_records())
