"""Can heads of a published encoder be removed, one at a time and together?"""

from __future__ import annotations

import random
import re
from functools import cache
from pydoc_data.topics import topics
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from attnbook.attention import attend, padding_mask
from attnbook.datasets import on_cpu
from attnbook.studies import main
from attnbook.studies.protocol import compare, holm
from attnbook.studies.runner import Each
from attnbook.studies.sink import layers_of, published
from attnbook.transformer import mean_pool

LAYERS, HEADS = 6, 12


def pairs(count: int | None = None) -> list[tuple[str, str]]:
    """Return the first two sentences of paragraphs of Python's manual, in a shuffled order."""
    found = set()
    for text in topics.values():
        for paragraph in re.split(r"\n\s*\n", text):
            if not paragraph.startswith((" ", "*", "[")):  # neither code nor lists
                parts = re.split(r"(?<=\.) +", " ".join(paragraph.split()))
                fitting = [part for part in parts if 6 <= len(part.split()) <= 40]
                if len(fitting) > 1:
                    found.add((fitting[0], fitting[1]))
    return random.Random(0).sample(sorted(found), len(found))[:count]


class Sentences:
    """All sentences of the pairs in batches of like length, and what goes into each layer."""

    def __init__(self, texts: list[tuple[str, str]], device: str) -> None:
        """Encode them once."""
        self.model = published().to(device)
        self.layers = layers_of(self.model.encoder)
        first, second = zip(*texts, strict=True)
        tokens, lengths = self.model.tokenize([*first, *second])
        self.order = lengths.argsort()
        self.lengths = lengths[self.order].split(40)
        rows = tokens[self.order].split(40)
        short = [row[:, : int(n.max())] for row, n in zip(rows, self.lengths, strict=True)]
        self.masks = [
            padding_mask(n, row.shape[1]) for n, row in zip(self.lengths, short, strict=True)
        ]
        with torch.no_grad():
            self.inputs = [[self.model.encoder._embed(row) for row in short]]
            for layer in self.layers:
                self.inputs.append(
                    [layer(x, mask) for x, mask in zip(self.inputs[-1], self.masks, strict=True)]
                )

    def read(self, number: int, x: Tensor, batch: int) -> Float[Tensor, "b n heads d"]:
        """Return what each head of a layer has read."""
        own = self.layers[number].attention
        query, key, value = (
            rearrange(project(x), "b n (heads d) -> b heads n d", heads=HEADS)
            for project in (own.q_proj, own.k_proj, own.v_proj)
        )
        mask = rearrange(self.masks[batch], "b 1 n -> b 1 1 n")
        context, _ = attend(query, key, value, mask=mask)
        return rearrange(context, "b heads n d -> b n heads d")

    def finish(self, number: int, x: Tensor, read: Tensor, push: Tensor | float = 0) -> Tensor:
        """Return what leaves the layer when its heads have read this."""
        layer = self.layers[number]
        joined = layer.attention.out_proj(rearrange(read, "b n heads d -> b n (heads d)"))
        return layer._finish(x, joined + push)

    def vectors(self, states: list[Tensor]) -> Float[Tensor, "sides b d"]:
        """Return the vectors, of length 1, of first and second sentences in the pairs' order."""
        pooled = torch.cat([mean_pool(x, n) for x, n in zip(states, self.lengths, strict=True)])
        vectors = torch.empty_like(pooled)
        vectors[self.order] = F.normalize(pooled, dim=-1)
        return rearrange(vectors, "(sides b) d -> sides b d", sides=2)


@cache
def sentences(count: int | None, half: int | None, device: str) -> Sentences:
    """Return the sentences of all pairs, or of every second one."""
    return Sentences(pairs(count)[slice(half, None, None if half is None else 2)], device)


def scores(vectors: Float[Tensor, "sides b d"], true: Tensor) -> dict[str, Any]:
    """Return what is found with these vectors, pair by pair.

    `found`: whether the second sentence is the nearest of all to the first; `found backwards`: the
    first to the second; `rank`: 1 / its place; `cosine`: of the vectors with the true ones.
    """
    similar = vectors[0] @ vectors[1].T
    right = torch.arange(len(similar), device=similar.device)
    place = (similar >= rearrange(similar.diagonal(), "b -> b 1")).sum(-1)
    return {
        "found": (similar.argmax(-1) == right).float().tolist(),
        "found backwards": (similar.argmax(0) == right).float().tolist(),
        "rank": [round(1 / n, 4) for n in place.tolist()],
        "cosine": [round(c, 5) for c in einsum(vectors, true, "s b d, s b d -> b").div(2).tolist()],
    }


@torch.no_grad()
@on_cpu
def whole(*, count: int | None, device: str = "cpu") -> dict[str, Any]:
    """Return what is found with all heads, and with the mean of the embeddings alone."""
    known = sentences(count, None, device)
    true = known.vectors(known.inputs[-1])
    rival = known.vectors(known.inputs[0])
    return {"all heads": scores(true, true), "no layer": scores(rival, true)}


@torch.no_grad()
@on_cpu
def without(
    *, layer: int, heads: list[int], arm: str, count: int | None, device: str = "cpu"
) -> list[dict[str, Any]]:
    """Return what is found without one head of a layer, for each of these heads.

    In place of what it has read stands 0 ("set to 0") or the mean over all tokens ("set to its
    mean"). With "pushed" it stays, and the layer's output is changed by as much in a random
    direction.
    """
    known = sentences(count, None, device)
    true = known.vectors(known.inputs[-1])
    inputs = known.inputs[layer]
    read = [known.read(layer, x, n) for n, x in enumerate(inputs)]
    real = [rearrange(mask, "b 1 n -> b n") for mask in known.masks]
    mean = torch.cat([x[mask] for x, mask in zip(read, real, strict=True)]).mean(0)
    weight = known.layers[layer].attention.out_proj.weight
    strips = rearrange(weight, "out (heads d) -> heads d out", heads=HEADS)
    found = []
    for head in heads:
        generator = torch.Generator().manual_seed(HEADS * layer + head)
        direction = F.normalize(torch.randn(weight.shape[0], generator=generator), dim=0)
        states = []
        for n, x in enumerate(inputs):
            changed, push = read[n].clone(), torch.zeros(())
            if arm == "pushed":
                length = (changed[:, :, head] @ strips[head]).norm(dim=-1, keepdim=True)
                push = length * direction.to(device)
            else:
                changed[:, :, head] = 0 if arm == "set to 0" else mean[head]
            x = known.finish(layer, x, changed, push.to(device))  # noqa: PLW2901
            for later in known.layers[layer + 1 :]:
                x = later(x, known.masks[n])  # noqa: PLW2901
            states.append(x)
        found.append(scores(known.vectors(states), true))
    return found


@torch.no_grad()
@on_cpu
def kept(
    *, heads: list[list[int]], half: int, count: int | None, device: str = "cpu"
) -> dict[str, Any]:
    """Return what is found on every second pair with these heads of each layer, the others 0."""
    known = sentences(count, half, device)
    states = []
    for n, embedded in enumerate(known.inputs[0]):
        x = embedded
        for number, stay in enumerate(heads):
            read = known.read(number, x, n)
            there = torch.zeros(HEADS, 1, device=device)
            there[stay] = 1
            x = known.finish(number, x, read * there)
        states.append(x)
    return scores(known.vectors(states), known.vectors(known.inputs[-1]))


def run(
    each: Each,
    *,
    count: int | None,
    layers: list[int],
    heads: list[int],
    removed: list[int],
    orders: int,
) -> dict[str, Any]:
    """Remove each head in two ways, then many at once, and attack what came."""
    (base,) = each(whole, [{"count": count}], "all heads")
    by = {"count": count, "heads": heads}
    singles = {
        arm: _by_layer(each, [{**by, "layer": n, "arm": arm} for n in layers])
        for arm in ("set to 0", "set to its mean")
    }
    comparisons = {
        f"{arm}, layer {n + 1}, head {head + 1}": mcnemar(row["found"], base["all heads"]["found"])
        for arm, of_layers in singles.items()
        for n, rows in zip(layers, of_layers, strict=True)
        for head, row in zip(heads, rows, strict=True)
    }
    return {
        "question": QUESTION,
        "refuted_if": REFUTED_IF,
        "tuning": {},
        "chosen": {},
        "seeds": list(range(len(base["all heads"]["found"]))),  # a pair of sentences each
        "results": {
            "found": share(base["all heads"]),
            "guess": round(1 / len(base["all heads"]["found"]), 4),
            "found by the mean of the embeddings": share(base["no layer"]),
            **{
                arm: [
                    [round(share(row) - share(base["all heads"]), 4) for row in rows]
                    for rows in of_layers
                ]
                for arm, of_layers in singles.items()
            },
            **together(each, singles["set to 0"], count, layers, heads, removed, orders),
        },
        "curve": {},
        "comparisons": holm(comparisons),
        "attacks": attacks(each, singles, base["all heads"], layers, by),
    }


QUESTION = (
    "Can most heads of all-MiniLM-L6-v2 be removed, one at a time, without a significant change in "
    "how often it finds the sentence that follows?"
)
REFUTED_IF = "More than half of the heads change it significantly in one of the two ways."


def share(found: dict[str, Any], what: str = "found") -> float:
    """Return the mean over the pairs."""
    return round(fmean(found[what]), 4)


def mcnemar(runs: list[float], baseline: list[float]) -> dict[str, Any]:
    """Return `compare`, with the exact test of McNemar for its p: right or wrong has no t."""
    from scipy import stats  # noqa: PLC0415 (its import takes as long as that of torch)

    gained = sum(a > b for a, b in zip(runs, baseline, strict=True))
    lost = sum(a < b for a, b in zip(runs, baseline, strict=True))
    p = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    return compare(runs, baseline) | {"p": float(f"{p:.4g}")}


def _by_layer(each: Each, jobs: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    return each(without, jobs, jobs[0]["arm"])


def together(
    each: Each,
    singles: list[list[dict[str, Any]]],
    count: int | None,
    layers: list[int],
    heads: list[int],
    removed: list[int],
    orders: int,
) -> dict[str, Any]:
    """Return the share found with many heads set to 0, on one half of the pairs.

    The least needed are those without which the vectors of the other half change least. Both
    halves are tested, and each has half of the pairs to choose from.
    """
    least, best = [], []
    for half in (0, 1):
        cosine = {
            (n, head): fmean(row["cosine"][1 - half :: 2])
            for n, rows in zip(layers, singles, strict=True)
            for head, row in zip(heads, rows, strict=True)
        }
        least.append(sorted(cosine, key=cosine.__getitem__, reverse=True))
        best.append([min(heads, key=lambda head: cosine[n, head]) for n in layers])
    drawn = [random.Random(seed).sample(least[0], len(least[0])) for seed in range(orders)]

    def rest(order: list[tuple[int, int]], number: int) -> list[list[int]]:
        gone = set(order[:number])
        return [[h for h in range(HEADS) if (n, h) not in gone] for n in range(LAYERS)]

    def all_but(layer: int, head: int) -> list[list[int]]:
        return [[head] if n == layer else [*range(HEADS)] for n in range(LAYERS)]

    jobs: list[dict[str, Any]] = []
    for half in (0, 1):
        jobs += [{"heads": rest(least[half], number), "half": half} for number in [0, *removed]]
        jobs += [{"heads": rest(o, number), "half": half} for o in drawn for number in removed]
        alone = zip(layers, best[half], strict=True)
        jobs += [{"heads": all_but(n, head), "half": half} for n, head in alone]
    rows = each(kept, [{**job, "count": count} for job in jobs], "together")
    halves = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    found = iter([round(fmean(a["found"] + b["found"]), 4) for a, b in zip(*halves, strict=True)])
    result: dict[str, Any] = {
        "found in half": next(found),
        "removed together": {f"{number}": next(found) for number in removed},
    }
    of_orders = [{f"{number}": next(found) for number in removed} for _ in drawn]
    result["removed together, random heads"] = {
        f"{number}": [order[f"{number}"] for order in of_orders] for number in removed
    }
    result["one head kept in layer"] = {f"{n + 1}": next(found) for n in layers}
    return result


def attacks(
    each: Each,
    singles: dict[str, Any],
    base: dict[str, Any],
    layers: list[int],
    by: dict[str, Any],
) -> list[dict[str, Any]]:
    """Return what was tried to overturn what the study says, and what came."""
    found = []
    for what, tried in (
        ("found backwards", "the first sentence looked for, given the second"),
        ("rank", "1 / place of the sentence, Student's t"),
    ):
        for arm, of_layers in singles.items():
            test = compare if what == "rank" else mcnemar
            rows = [row for rows in of_layers for row in rows]
            tests = holm({f"{n}": test(row[what], base[what]) for n, row in enumerate(rows)})
            clear = [one["mean"] for one in tests.values() if one["p_holm"] < 0.05]
            came = {
                "all heads": share(base, what),
                "worst": min(one["mean"] for one in tests.values()),
                "best": max(one["mean"] for one in tests.values()),
                "significantly worse": sum(mean < 0 for mean in clear),
                "significantly better": sum(mean > 0 for mean in clear),
            }
            found.append({"tried": f"{tried}, {arm}", "came": came})
    cosine = {
        arm: [share(row, "cosine") for rows in of_layers for row in rows]
        for arm, of_layers in singles.items()
    }
    came = {arm: {"least": min(c), "mean": round(fmean(c), 4)} for arm, c in cosine.items()}
    found.append({"tried": "cosine with the true vectors", "came": came})
    two = [{**by, "layer": n, "heads": by["heads"][:2], "arm": "pushed"} for n in layers]
    pushed = [row for rows in _by_layer(each, two) for row in rows]
    zero = [row for rows in singles["set to 0"] for row in rows[:2]]
    came = {
        "pushed": {"found": [share(row) for row in pushed],
                   "cosine": [share(row, "cosine") for row in pushed]},
        "set to 0": {"found": [share(row) for row in zero],
                     "cosine": [share(row, "cosine") for row in zero]},
    }  # fmt: skip
    what = "the first two heads of each layer left, and as large a push in a random direction"
    return [*found, {"tried": what, "came": came}]


FULL: dict[str, Any] = {
    "count": None,
    "layers": list(range(LAYERS)),
    "heads": list(range(HEADS)),
    "removed": [9, 18, 36, 54, 63, 72],
    "orders": 3,
}
QUICK: dict[str, Any] = {"count": 3, "layers": [5], "heads": [0], "removed": [1], "orders": 1}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
