"""The runner of the studies loses and mixes up nothing; what claims the protocol keeps to it."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import json
import sys
from pathlib import Path

import pytest
import torch

from attnbook import studies
from attnbook.datasets import Characters, date_pairs
from attnbook.studies import dividing, influence, lengths, protocol, scores, temperature
from attnbook.studies.runner import Each, sources

RECORDS = {
    path.stem: record
    for path in sorted(Path(studies.__file__).parent.glob("*.json"))
    if "question" in (record := json.loads(path.read_text(encoding="utf-8")))
}


def faults(record):
    """Return what the protocol asks for and the record does not have."""
    found = []
    if not record["question"].endswith("?") or not record.get("refuted_if"):
        found.append("no question that can be answered with no")
    if not record["seconds"] > 0 or not all(
        record.get(n) for n in ("device", "versions", "commit")
    ):
        found.append("not said what made it")
    tuned = [(record["tuning"], record["chosen"])]
    tuned += [
        (a["tuning"], protocol.chosen(a["tuning"])) for a in record["attacks"] if "tuning" in a
    ]
    for name, by in ((name, by) for tuning, _ in tuned for name, by in tuning.items()):
        values = sorted(map(float, by))
        best = next(float(chosen[name]) for tuning, chosen in tuned if tuning.get(name) is by)
        if len(values) < 5 or max(b / a for a, b in itertools.pairwise(values)) > 3.3:
            found.append(f"{name}: tuned on too few values, or too far apart")
        if by[next(key for key in by if float(key) == best)] < max(by.values()):
            found.append(f"{name}: not the best value is taken")
        if best in (values[0], values[-1]):
            found.append(f"{name}: chosen at the edge")
    trained = record["tuning"]  # what trains nothing is paired by sentence, and has no curve
    if len(set(record["seeds"])) < 10 or bool(record["curve"]) != bool(trained):
        found.append("fewer than ten seeds, or no curve")
    for name, one in record["comparisons"].items():
        if one["seeds"] != len(record["seeds"]) or not {"mean", "half", "smallest"} <= set(one):
            found.append(f"{name}: not paired over all seeds, or no smallest effect")
    again = protocol.holm(record["comparisons"])
    if any(again[name]["p_holm"] != one["p_holm"] for name, one in record["comparisons"].items()):
        found.append("comparisons are not corrected for how many there are")
    if len(record["attacks"]) < 3 or not all(a["tried"] and a["came"] for a in record["attacks"]):
        found.append("hardly attacked")
    return found


def test_some_studies_claim_the_protocol():
    assert {"dividing", "influence", "temperature"} <= set(RECORDS)


@pytest.mark.parametrize("name", RECORDS)
def test_a_study_that_claims_the_protocol_keeps_to_it(name):
    assert faults(RECORDS[name]) == []


def _at_the_edge(record):
    name, by = next(iter(record["tuning"].items()))
    by[max(by, key=float)] = 1e9
    record["chosen"][name] = max(map(float, by))


def _few_values(record):
    name, by = next(iter(record["tuning"].items()))
    kept = sorted(by, key=lambda value: abs(float(value) - record["chosen"][name]))[:4]
    record["tuning"][name] = {value: by[value] for value in kept}


SPOILT = {
    "chosen at the edge": _at_the_edge,
    "too few values": _few_values,
    "not the best value": lambda r: r["chosen"].update(
        {name: sorted(map(float, by))[1] for name, by in r["tuning"].items()}
    ),
    "no question": lambda r: r.update(question="It matters."),
    "what made it": lambda r: r.update(commit=""),
    "fewer than ten": lambda r: r.update(seeds=r["seeds"][:9]),
    "smallest effect": lambda r: next(iter(r["comparisons"].values())).pop("smallest"),
    "not corrected": lambda r: [one.update(p_holm=one["p"]) for one in r["comparisons"].values()],
    "hardly attacked": lambda r: r["attacks"].clear(),
}  # fmt: skip


@pytest.mark.parametrize("fault", SPOILT)
def test_each_fault_is_noticed(fault):
    record = copy.deepcopy(RECORDS["temperature"])
    SPOILT[fault](record)
    assert any(fault in found for found in faults(record))


def test_the_best_value_at_an_edge_is_tried_beyond():
    def work(*, lr: float, seed: int) -> float:
        return -((lr - 3.2) ** 2) + 1e-3 * seed

    cells = {"arm": {}}
    found = protocol.tune(
        Each(), work, cells, setting="lr", values={"arm": [0.1, 0.32, 1.0]}, seeds=2,
        score=lambda value: value,
    )  # fmt: skip
    assert list(found["arm"]) == ["0.1", "0.32", "1", "3.2", "10"]
    assert protocol.chosen(found) == {"arm": 3.2}


def test_compare_and_its_smallest_effect():
    generator = torch.Generator().manual_seed(0)
    gaps = torch.randn(400, 10, generator=generator)
    error = gaps.std(dim=1) / 10**0.5
    noise = protocol.compare(gaps[0].tolist(), [0.0] * 10)
    smallest = noise["smallest"] / error[0] / 10**0.5  # in standard deviations
    shown = (gaps.mean(1) + smallest).abs() > 2.262 * error  # Student's t, 9 degrees of freedom
    assert 0.74 < shown.float().mean() < 0.86
    assert protocol.compare([1.0] * 10, [0.0] * 10)["p"] == pytest.approx(2**-9, rel=1e-3)
    assert protocol.compare([1.0] * 10, [1.0] * 10)["p"] == 1


@pytest.mark.parametrize("name", RECORDS)
def test_intervals_for_all_at_once_hold_0_where_p_times_their_number_is_above(name):
    given = RECORDS[name]["comparisons"]
    for one in protocol.bonferroni(given).values():
        times = len(given) * one["p"]
        if one["half"] and abs(times - 0.05) > 1e-3:  # all are rounded
            assert (abs(one["mean"]) < one["half_bonferroni"]) == (times > 0.05)


@pytest.mark.parametrize("name", RECORDS)
def test_intervals_at_the_level_of_holms_tests_miss_0_where_he_shows_a_difference(name):
    given = RECORDS[name]["comparisons"]
    wide = protocol.bonferroni(given)
    least = min(given, key=lambda what: given[what]["p"])
    for what, one in protocol.holm_intervals(given).items():
        assert one["p_holm"] == given[what]["p_holm"]
        assert one["half"] <= one["half_holm"] <= wide[what]["half_bonferroni"]
        if one["half"] and abs(one["p_holm"] - 0.05) > 1e-3:  # all are rounded
            assert (abs(one["mean"]) > one["half_holm"]) == (one["p_holm"] < 0.05)
        if what == least:
            assert one["half_holm"] == wide[what]["half_bonferroni"]


def test_behind_the_first_that_fails_all_have_its_level():
    one = {"half": 1.0, "seeds": 10}
    found = protocol.holm_intervals(
        {name: {"p": p, **one} for name, p in {"a": 0.001, "b": 0.3, "c": 0.4}.items()}
    )
    two = protocol.bonferroni({"a": one, "b": one})["a"]["half_bonferroni"]
    assert found["a"]["half_holm"] > two == found["b"]["half_holm"] == found["c"]["half_holm"]


def test_one_interval_alone_is_as_wide_as_it_was():
    one = protocol.compare([0.5, 0.7, 0.9], [0.4, 0.5, 0.6])
    found = protocol.bonferroni({"a": one, "b": one})
    assert protocol.bonferroni({"a": one})["a"]["half_bonferroni"] == one["half"]
    assert found["a"] == found["b"] == {**one, "half_bonferroni": pytest.approx(0.3582, abs=2e-4)}


def test_results_do_not_depend_on_how_many_run_at_once():
    job = {"arm": "unscaled", "dim": 8, "optimizer": "Adam", "lr": 0.01, "steps": 10}
    jobs = [{**job, "seed": seed} for seed in range(3)]
    one, two = (Each(jobs=n, device="cpu")(dividing.learn, jobs) for n in (1, 2))
    assert one == two
    assert len(set(map(tuple, one))) == 3


CALLS = []


def interrupted(*, seed: int, device: str = "cpu") -> int:
    """Stop at the third job of the first start."""
    CALLS.append(seed)
    if len(CALLS) == 3:
        raise KeyboardInterrupt
    return seed**2


def test_a_second_start_goes_on_where_the_first_was_stopped(tmp_path):
    CALLS.clear()
    jobs = [{"seed": seed} for seed in range(4)]
    with pytest.raises(KeyboardInterrupt):
        Each(folder=tmp_path)(interrupted, jobs)
    assert Each(folder=tmp_path)(interrupted, jobs) == [0, 1, 4, 9]
    assert CALLS == [0, 1, 2, 2, 3]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".json"]
    Each(folder=tmp_path, device="cuda")(interrupted, jobs)  # elsewhere last digits are others
    assert len(CALLS) == 9


def test_a_changed_study_starts_anew(tmp_path):
    names = []
    for text in ("a = 1", "a = 2", "a = 1"):
        path = tmp_path / "tried.py"
        path.write_text(f"{text}\ndef learn(): pass\n\ndef run(each): {len(names)}\n")
        spec = importlib.util.spec_from_file_location("tried", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules["tried"] = module
        spec.loader.exec_module(module)
        names.append(sources(module.learn))
    del sys.modules["tried"]
    assert names[0] == names[2] != names[1]


def started(monkeypatch, tmp_path, *arguments):
    monkeypatch.setattr(studies, "FOLDER", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", ["study", "--jobs", "1", *arguments])

    def run(each: Each, *, seeds: int):
        return {"results": each(interrupted, [{"seed": seed} for seed in range(seeds)])}

    studies.main(run, full={"seeds": 4}, quick={"seeds": 1})


def test_from_the_command_line(monkeypatch, tmp_path, capsys):
    CALLS.clear()
    with pytest.raises(SystemExit, match=r"Stopped\. Finished jobs are kept in .*cache"):
        started(monkeypatch, tmp_path)
    started(monkeypatch, tmp_path)
    assert CALLS == [0, 1, 2, 2, 3]
    record = studies.stored("test_protocol")
    assert record["results"] == [0, 1, 4, 9] and record["settings"] == {"seeds": 4}
    started(monkeypatch, tmp_path)
    assert len(CALLS) == 5
    started(monkeypatch, tmp_path, "--fresh")
    assert len(CALLS) == 9


def test_dask_has_to_be_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SystemExit, match="pip install distributed"):
        Each(dask="tcp://nobody:1")(interrupted, [{"seed": 0}])


def test_arms_differ_in_one_thing():
    """All networks start with the same draws; the small start has the scaled scores at step 0."""
    scaled, unscaled, small = (
        (torch.manual_seed(0), dividing.network(arm, 64, start="unit"))[1] for arm in dividing.ARMS
    )
    asked, keys, values, _ = dividing.lookups(8, torch.Generator().manual_seed(0))
    for name, parameter in unscaled.state_dict().items():
        assert torch.equal(parameter, scaled.state_dict()[name])
    torch.testing.assert_close(small(asked, keys, values), scaled(asked, keys, values))
    assert (unscaled(asked, keys, values) - scaled(asked, keys, values)).abs().max() > 0.01


def test_scores_differ_in_one_thing():
    """Beside the score all is drawn as for dividing; a start that is asked for is there."""
    divided = (torch.manual_seed(0), dividing.network("scaled", 64, start="unit"))[1]
    how = {"seed": 0, "start": "unit", "hidden": None}
    for arm in ("scaled", "undivided", "additive", "bilinear"):
        found = scores.network(arm, 64, **how, sd="own").state_dict()
        assert all(torch.equal(found[name], kept) for name, kept in divided.state_dict().items())
    spread = {
        (arm, sd): scores.spread(scores.network(arm, 64, **how, sd=sd), seed=0)
        for arm in ("undivided", "additive")
        for sd in ("own", "1", "sqrt(d)")
    }
    for arm in ("undivided", "additive"):
        assert spread[arm, "1"] == pytest.approx(1, rel=1e-3)
        assert spread[arm, "sqrt(d)"] == pytest.approx(8, rel=1e-3)
    assert spread["undivided", "own"] == pytest.approx(8, rel=0.2)
    assert 0.1 < spread["additive", "own"] < 0.3


def test_letters_are_open_or_decided():
    pairs = date_pairs(300)
    kinds = {}
    for pair in pairs:
        for i, kind, span in influence.places(pair):
            if kind.startswith("later"):
                kinds.setdefault(kind, set()).add((pair.english[:i], pair.english[i]))
            number = pair.chinese[span.start - 1 : span.stop - 1]
            assert int(number) in (pair.date.year, pair.date.month, pair.date.day)
        other = influence.another_month(pair)
        assert len(other) == len(pair.chinese) and other != pair.chinese
    assert kinds["later letter, open"] == {
        ("J", "a"), ("J", "u"), ("Ju", "n"), ("Ju", "l"),
        ("Ma", "r"), ("Ma", "y"), ("A", "p"), ("A", "u"),
    }  # fmt: skip
    assert ("M", "a") in kinds["later letter, decided"]


def test_a_guess_that_needs_no_source_is_the_ceiling():
    wrong = influence.guesses()
    assert wrong["later letter, decided"] == 0
    assert 0.3 < wrong["later letter, open"] < 0.5  # J goes on with a or u, Ma with r or y ...
    assert 0.6 < wrong["day"] < wrong["year, last digits"] < 0.95


def test_only_parameters_that_learn_are_counted():
    counts = {
        arm: influence.learn(arm=arm, dim=8, lr=0.01, steps=6, seed=0, dates="validation")
        for arm in influence.ARMS
    }
    counts = {arm: found["parameters"] for arm, found in counts.items()}
    # The dot product learns nothing; the additive score has two matrices and a vector. Fixed places
    # have no encoder (two GRUs of 4 features), but a weight for each pair of 24 places.
    score, encoder = 2 * 8 * 8 + 8, 2 * (3 * 4 * (8 + 4) + 6 * 4)
    assert counts["attention"] == counts["one vector"]
    assert counts["attention, additive score"] - counts["attention"] == score
    assert counts["attention"] - counts["fixed places"] == encoder - 24 * 24
    assert counts["attention"] - counts["equal weights"] == encoder


def test_with_equal_weights_a_text_is_its_characters_without_their_order():
    pairs, characters, (source, target) = influence.data()
    model = influence.EqualWeights(*characters, dim=8)
    length = len(pairs[0].chinese) + 2
    turned = torch.cat([source[:1, :length].flip(-1), source[:1, length:]], dim=-1)
    assert torch.allclose(model(source[:1], target[:1]), model(turned, target[:1]), atol=1e-6)


def test_one_pooled_vector_keeps_places_and_no_padding():
    characters, ((source, target), *_) = lengths.data()
    model = lengths.Pooled(*characters, dim=8)
    short = source[(source != 0).sum(-1) == 4][:1, :4]  # two numerals between the signs
    padded, swapped = torch.nn.functional.pad(short, (0, 3)), short[:, [0, 2, 1, 3]]
    assert torch.allclose(model(short, target[:1]), model(padded, target[:1]), atol=1e-6)
    assert not torch.allclose(model(short, target[:1]), model(swapped, target[:1]), atol=1e-2)


def test_letters_that_are_wrong_are_counted_by_kind():
    pairs = date_pairs(30)
    right = torch.ones(30, 20, dtype=torch.bool)
    right[:, 0] = False
    assert {kind for kind, share in influence.wrong(pairs, right).items() if share} == {
        "first letter"
    }


def test_influence_of_a_reader_that_copies():
    """A model that writes what its one weight looks at changes it whenever that is hidden."""
    pairs = date_pairs(30)
    characters = Characters([p.chinese for p in pairs]), Characters([p.english for p in pairs])
    source = characters[0].encode([pair.chinese for pair in pairs])
    target = characters[1].encode([pair.english for pair in pairs])
    weights = torch.full((30, target.shape[1] - 1, source.shape[1]), 1e-6)
    for n, pair in enumerate(pairs):
        for i, _, span in influence.places(pair):
            weights[n, i, span.start] = 1

    class Copies:
        def attend(self, source, written, mask=None):
            seen = weights if mask is None else weights * mask
            return torch.nn.functional.one_hot(seen.argmax(-1)).float(), weights

        # A value is the number of its place, and what is written is the place read most.
        def source_embedding(self, source):
            return torch.eye(source.shape[1]).expand(len(source), -1, -1)

        def target_embedding(self, written):
            return written

        def decoder(self, written):
            return torch.zeros(*written.shape, 0), None

        def logits(self, context):
            return context

    found = influence.influence(Copies(), pairs, source, target, source)
    for kind in found.values():
        assert kind["looks"] == kind["changed, largest hidden"] == kind["heavy"] == 1
        assert kind["changed, one other hidden"] == kind["changed, another month"] == 0
        assert kind["changed, equal weights"] == 1 and kind["changed, shuffled weights"] > 0.7


def test_a_temperature_is_chosen_on_other_digits():
    sweep = temperature.vote(arm="distance", temperatures=[0.1, 1000.0], known=1000, seed=0)
    assert sweep["right"][0] > 0.97 and sweep["right"][1] < 0.2
    assert temperature.at_best(sweep) == sweep["right"][0]
    assert sweep["entropy"][1] == pytest.approx(6.9078, abs=1e-3) and sweep["zeros"][1] == 0
