"""The goals, and the measurements as text: a table for the terminal, a page for the book."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

from benchmarks.measure import BOTH, FORWARD

MEMORY = "memory"  # of forward and backward


class Goal(NamedTuple):
    """At most `limit` times what `beside` takes, or every peer, and so the best of them."""

    mechanism: str
    quantity: str
    limit: float
    beside: str = ""
    size: str = ""


GOALS = [
    Goal("multi_head_attention", FORWARD, 1.0),
    Goal("multi_head_attention", FORWARD, 0.8, "PyTorch", "B1 N4096"),
    Goal("multi_head_attention", BOTH, 1.0),
    Goal("squeeze_excitation", FORWARD, 0.8, "timm"),
    Goal("squeeze_excitation", FORWARD, 0.5, "timm", "B16 C512 7x7"),
    Goal("squeeze_excitation", BOTH, 0.9, "timm"),
    Goal("squeeze_excitation", MEMORY, 1.0, "timm"),
    Goal("eca", FORWARD, 1.0, "timm"),
    Goal("eca", BOTH, 1.0, "timm"),
    Goal("eca", MEMORY, 1.0, "timm"),
    Goal("cbam", FORWARD, 0.9, "timm"),
    Goal("cbam", BOTH, 1.0, "timm"),
    Goal("cbam", MEMORY, 1.0, "timm"),
    Goal("spatial_transformer", FORWARD, 0.95, "PyTorch"),
    Goal("spatial_transformer", BOTH, 1.0, "PyTorch"),
    Goal("spatial_transformer", MEMORY, 1.0, "PyTorch"),
    Goal("rotary", FORWARD, 1.0),
    Goal("rotary", BOTH, 1.0),
]
# Peak memory of multi-head attention, forward and backward, in MiB. Twice the length, twice the
# memory: it is linear in N.
MOST_MIB = {"B8 N1024": 150, "B8 N2048": 300}

TITLES = {
    "multi_head_attention": (
        "Multi-head attention",
        "512 features, 8 heads. PyTorch is `nn.MultiheadAttention`, timm its `Attention`, "
        "x-transformers its `Attention` as it comes and with `flash=True`. The floor is one matrix "
        "product with as many multiply-adds.",
    ),
    "squeeze_excitation": (
        "Squeeze-and-excitation",
        "timm is its `SEModule`, torchvision its `SqueezeExcitation`.",
    ),
    "eca": ("Efficient channel attention", "timm is its `EcaModule`."),
    "cbam": ("CBAM", "timm is its `CbamModule`."),
    "spatial_transformer": (
        "Spatial transformer",
        "Without a localisation network: each image has a theta of its own. PyTorch is "
        "`F.affine_grid` and `F.grid_sample`, kornia its `warp_affine`.",
    ),
    "rotary": (
        "Rotary encoding",
        "8 heads of 64 features. timm is its `apply_rot_embed`, whose sines and cosines are made "
        "beforehand; x-transformers makes them at every call, as we do.",
    ),
}


def limit(row: dict[str, Any], quantity: str) -> float | None:
    """Return the strictest goal for a row, or None."""
    limits = [
        goal.limit
        for goal in GOALS
        if (goal.mechanism, goal.quantity) == (row["mechanism"], quantity)
        and goal.beside in ("", row["beside"])
        and goal.size in ("", row["size"])
        and row["beside"] not in ("floor", "attnbook, eager")
    ]
    return min(limits, default=None)


def verdict(reached: float, at_most: float | None, tolerance: float = 0.0, digits: int = 2) -> str:
    if at_most is None:
        return ""
    excess = round(reached / at_most - 1, digits)
    if excess <= 0:
        return "met"
    return "within tolerance" if excess <= tolerance else f"missed by {100 * excess:.0f} %"


def time_verdict(row: dict[str, Any]) -> str:
    # Above 10 ms readings repeat to 5 %, below to 15 %.
    tolerance = 0.05 if row["ms"][0] >= 10 else 0.15
    return verdict(row["ratio"][1], limit(row, row["pass"]), tolerance)


def memory_verdict(row: dict[str, Any]) -> str:
    if row["pass"] != BOTH:
        return ""
    ours, theirs = row["mib"]
    ratio = 1.0 if f"{ours:.1f}" == f"{theirs:.1f}" else ours / theirs  # equal as printed
    return verdict(ratio, limit(row, MEMORY), 0.05, digits=6)


def summary(record: dict[str, Any]) -> str:
    """Return how many goals are met, and which are not."""
    judged = [
        (f"{TITLES[row['mechanism']][0]} {row['size']}, {what}, beside {row['beside']}", said)
        for row in record["rows"]
        for what, said in [(row["pass"], time_verdict(row)), (MEMORY, memory_verdict(row))]
        if said
    ]
    judged += [
        (
            f"{TITLES[row['mechanism']][0]} {row['size']}, {MEMORY}",
            verdict(row["mib"], MOST_MIB[row["size"]]),
        )
        for row in record["memory"]
    ]
    met, within = ([said for _, said in judged].count(kind) for kind in ("met", "within tolerance"))
    missed = [f"{what}: {said}" for what, said in judged if said.startswith("missed")]
    lines = [f"Goals: {met} met, {within} within tolerance, {len(missed)} missed."]
    return "\n".join(lines + [f"- {line}" for line in missed])


def table(record: dict[str, Any]) -> str:
    """Return the measurements for a terminal."""
    lines = [
        f"{'size':15} {'pass':8} {'beside':22} {'ms':>8} {'theirs':>8} {'ratio':>6} "
        f"{'quartiles':>11}  {'time goal':23} {'MiB':>7} {'theirs':>7}  memory goal"
    ]
    for mechanism, rows in groupby(record["rows"], key=lambda row: row["mechanism"]):
        lines += ["", mechanism]
        for row in rows:
            lower, middle, upper = row["ratio"]
            goal, memory = limit(row, row["pass"]), memory_verdict(row)
            lines.append(
                f"{row['size']:15} {'forward' if row['pass'] == FORWARD else '+ back':8} "
                f"{row['beside']:22} {row['ms'][0]:8.2f} {row['ms'][1]:8.2f} {middle:6.2f} "
                f"{lower:5.2f}-{upper:4.2f}  "
                f"{'' if goal is None else f'{goal:.2f} {time_verdict(row)}':23} "
                f"{row['mib'][0]:7.1f} {row['mib'][1]:7.1f}  {memory}".rstrip()
            )
        for row in record["memory"]:
            if row["mechanism"] == mechanism:
                goal = MOST_MIB[row["size"]]
                lines.append(
                    f"{row['size']:15} + back: {row['mib']:.1f} MiB, goal {goal}: "
                    + verdict(row["mib"], goal)
                )
    if record["left_out"]:
        lines += ["", "Left out, because not installed: " + ", ".join(record["left_out"]) + "."]
    return "\n".join([about(record), "", *lines, "", summary(record)])


def about(record: dict[str, Any]) -> str:
    """Return in a sentence or two what the numbers were measured on."""
    device, versions = record["device"], record["versions"]
    return (
        f"{device['name']}, {device['cores']} cores, {device['threads']} threads; "
        f"{'compiled' if record['compiled'] else 'eager'}; {record['date']}, "
        f"commit {record['commit']}, {record['seconds']:.0f} s. "
        + ", ".join(f"{name} {number}" for name, number in versions.items())
        + "."
    )


HEAD = """\
# Speed and memory

<!-- Written by `python -m benchmarks --page` from benchmarks/results/*.json. -->

Six mechanisms of this book run here beside the same ones in other libraries, with the same weights,
on the same input. A ratio is our time divided by theirs: below 1, ours is faster. It is
the median over several rounds; in brackets stand the lower and the upper quartile. Every round runs
all candidates once, in a new order, and the ratio is taken within the round, so that a machine that
slows down slows both.

The floor is what the computation costs at the very least: reading every number of the input once
and writing it once, unless something else is said below. A ratio of 1 to it is out of reach for
whatever has to read its input twice.

Forward is an evaluation without gradients; forward and backward is one step of training without
the optimiser, gradients of the input and of all weights. Memory is the most that tensors hold at
one moment of forward and backward, beyond input and weights: ours, then the others'.

A goal was set beforehand for most rows. On a quiet machine, readings above 10 ms repeat to
5\u00a0%, shorter ones to 15\u00a0%; a goal that is missed by no more than that counts as within
tolerance (memory: 5\u00a0%). Where the quartiles lie far apart, the machine was busy, and the
verdict says little.

Each section shows one run. On a machine that is shared with others, the next run misses other
goals: what a single run misses by some per cent is not yet slower.

B is the batch, N the length, C the channels, and what follows is height x width. Each section names
the machine, and the commit whose code it measured.
"""


def page(records: list[dict[str, Any]]) -> str:
    """Return the page of the book, in Markdown."""
    parts = [HEAD]
    if not records:
        parts.append("Not measured yet: there are no results to show.\n")
    for record in records:
        compiled = ", compiled" if record["compiled"] else ""
        parts.append(f"## {record['device']['name']}{compiled}\n\n{about(record)}\n")
        if record["left_out"]:
            parts.append("Left out: " + ", ".join(record["left_out"]) + ".\n")
        parts.append(summary(record) + "\n")
        for mechanism, rows in groupby(record["rows"], key=lambda row: row["mechanism"]):
            title, meaning = TITLES[mechanism]
            parts.append(f"### {title}\n\n{meaning}\n")
            for size, own in groupby(rows, key=lambda row: row["size"]):
                parts += size_tables(size, list(own))
            for row in record["memory"]:
                if row["mechanism"] == mechanism:
                    goal = MOST_MIB[row["size"]]
                    said = verdict(row["mib"], goal)
                    parts.append(
                        f"{row['size']}, forward and backward: {row['mib']:.0f} MiB; "
                        f"goal {goal} MiB, {said}.\n"
                    )
    return "\n".join(parts)


def size_tables(size: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    """Return a narrow table for each pass, and a sentence on memory."""
    for kind, own in groupby(rows, key=lambda row: row["pass"]):
        measured = list(own)
        lines = ["| Beside | Ratio | Goal |", "|---|---|---|"]
        for row in measured:
            lower, middle, upper = row["ratio"]
            at_most = limit(row, kind)
            goal = "" if at_most is None else f"{at_most:g}: {time_verdict(row)}"
            lines.append(f"| {row['beside']} | {middle:.2f} ({lower:.2f}, {upper:.2f}) | {goal} |")
        yield f"{size}, {kind}: {measured[0]['ms'][0]:.2f}\u00a0ms.\n\n" + "\n".join(lines) + "\n"
    both = [row for row in rows if row["pass"] == BOTH]
    theirs = [
        f"{row['beside']} {row['mib'][1]:.1f}"
        + (f" (to take no more: {said})" if (said := memory_verdict(row)) else "")
        for row in both
        # A product of matrices is the least in time alone: what it makes may be larger.
        if (row["mechanism"], row["beside"]) != ("multi_head_attention", "floor")
    ]
    yield f"Memory: ours {both[0]['mib'][0]:.1f} MiB; {'; '.join(theirs)}.\n"
