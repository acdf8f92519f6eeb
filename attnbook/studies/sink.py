"""What is the weight for that the words of a published encoder give to its first token?"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from statistics import fmean
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnbook.attention import attend
from attnbook.datasets import on_cpu
from attnbook.studies import main
from attnbook.studies.heads import sentences
from attnbook.studies.protocol import compare, holm
from attnbook.studies.runner import Each
from attnbook.transformer import Encoder, EncoderLayer, SentenceEncoder

SHORT = [
    f"The {who} {does} the {whom}."
    for who in ("dog", "man", "teacher", "horse", "child")
    for does in ("bites", "sees", "calls", "follows", "hears")
    for whom in ("cat", "woman", "bird", "doctor")
]


@cache
def published() -> SentenceEncoder:
    """Return the encoder with its published weights."""
    return SentenceEncoder()


@cache
@on_cpu
def untrained() -> Encoder:
    """Return the same encoder with weights that were never trained."""
    torch.manual_seed(0)
    return Encoder(30_522, 384, 12, 6, 1_536, max_length=512)


def layers_of(encoder: Encoder) -> list[EncoderLayer]:
    """Return the layers of an encoder."""
    return cast("list[EncoderLayer]", [*encoder.layers])


def parts(layer: EncoderLayer, x: Tensor) -> tuple[Tensor, ...]:
    """Return queries, keys, values, (b, heads, n, d), and W_o, (heads, d, out), of a layer."""
    own = layer.attention
    split = (
        rearrange(project(x), "b n (heads d) -> b heads n d", heads=own.num_heads)
        for project in (own.q_proj, own.k_proj, own.v_proj)
    )
    weight = own.out_proj.weight
    return *split, rearrange(weight, "out (heads d) -> heads d out", heads=own.num_heads)


@torch.no_grad()
def shares(encoder: Encoder, tokens: Int[Tensor, "1 n"]) -> dict[str, Float[Tensor, "layer head"]]:
    """Return what [CLS] has of the words' weight, and of what these weights hand over.

    A token hands over its weight times its value after W_o, and `content` is the share of [CLS] in
    the sum of these lengths; `content, no bias` leaves the bias of the values out. `length` is that
    of the value of [CLS] after W_o, in those of the words. Only rows of words count.
    """
    found: dict[str, list[Tensor]] = {}
    x = encoder._embed(tokens)
    for layer in layers_of(encoder):
        query, key, value, weight = parts(layer, x)
        _, weights = attend(query, key, value)
        weights = weights[0, :, 1:-1]
        bias = rearrange(layer.attention.v_proj.bias, "(heads d) -> heads 1 d", heads=len(weight))
        columns = {"weight": weights[..., 0].mean(-1)}
        for name, given in (("content", value[0]), ("content, no bias", value[0] - bias)):
            lengths = einsum(given, weight, "heads j d, heads d out -> heads j out").norm(dim=-1)
            handed = weights * rearrange(lengths, "heads j -> heads 1 j")
            columns[name] = (handed[..., 0] / handed.sum(-1)).mean(-1)
            columns["length"] = columns.get("length", lengths[:, 0] / lengths[:, 1:-1].mean(-1))
        for name, column in columns.items():
            found.setdefault(name, []).append(column)
        x = layer(x)
    return {name: torch.stack(column) for name, column in found.items()}


@torch.no_grad()
def changed(
    encoder: Encoder,
    tokens: Int[Tensor, "1 n"],
    hidden: Bool[Tensor, "b layer n"],
    silent: Bool[Tensor, "b layer n"],
    instead: Float[Tensor, "layer features"] | None = None,
    scale: Float[Tensor, "layer head"] | None = None,
) -> Float[Tensor, "b n d"]:
    """Return the tokens' vectors for b copies of a sentence, each with other changes.

    A word may not look at a `hidden` token, and its weights are those that a softmax makes of the
    rest. Of a `silent` one it gets nothing, while all weights stay as they are; with `instead` it
    gets these values of each layer. With `scale` the words' weights are multiplied by this number
    of each head. A token always sees itself, and [CLS] and [SEP] see all.
    """
    n = tokens.shape[1]
    x = encoder._embed(tokens).expand(len(hidden), -1, -1)
    other = ~torch.eye(n, dtype=torch.bool, device=tokens.device)
    other[[0, -1]] = False
    for number, layer in enumerate(layers_of(encoder)):
        query, key, value, _ = parts(layer, x)
        closed = other & rearrange(hidden[:, number], "b j -> b 1 1 j")
        _, weights = attend(query, key, value, mask=~closed)
        if scale is not None:
            weights[:, :, 1:-1] *= rearrange(scale[number], "head -> head 1 1")
        quiet = weights * (other & rearrange(silent[:, number], "b j -> b 1 1 j"))
        read = (weights - quiet) @ value
        if instead is not None:
            given = rearrange(instead[number], "(heads d) -> heads 1 d", heads=query.shape[1])
            read = read + quiet.sum(-1, keepdim=True) * given
        joined = rearrange(read, "b heads n d -> b n (heads d)")
        x = layer._finish(x, layer.attention.out_proj(joined))
    return x


@on_cpu
def random_words(
    number: int, looked_at: Float[Tensor, " n"]
) -> tuple[Int[Tensor, ""], Bool[Tensor, " n"]]:
    """Draw a word, and so many that they are looked at as much as [CLS] or are all words."""
    generator = torch.Generator().manual_seed(number)
    order = 1 + torch.randperm(len(looked_at) - 2, generator=generator)
    reached = looked_at.cpu()[order].cumsum(0)
    count = int((reached < looked_at[0].cpu()).sum()) + 1
    several = torch.zeros(len(looked_at), dtype=torch.bool)
    several[order[:count]] = True
    return order[0], several


@on_cpu
def measure(*, texts: list[str], first: int, device: str = "cpu") -> list[dict[str, Any]]:
    """Return for some sentences the shares of [CLS] and the cosines that the changes leave.

    A cosine is that of the sentence's vector with what it is without a change, and the vector is
    the mean over the words' alone: [CLS] and [SEP] would add what no change has touched. `first` is
    the number of the first sentence, from which words are drawn.
    """
    model = published().to(device)
    tokens = [model.tokenize([text])[0].to(device) for text in texts]
    of_cls = torch.stack([cls_values(model.encoder, text) for text in tokens]).mean(0)
    words = 1 - torch.stack([shares(model.encoder, text)["weight"] for text in tokens]).mean(0)
    return [one(model.encoder, text, first + n, of_cls, words) for n, text in enumerate(tokens)]


@torch.no_grad()
def cls_values(encoder: Encoder, tokens: Tensor) -> Float[Tensor, "layer features"]:
    """Return the values of [CLS], all heads of a layer beside each other."""
    found, x = [], encoder._embed(tokens)
    for layer in layers_of(encoder):
        found.append(layer.attention.v_proj(x[0, 0]))
        x = layer(x)
    return torch.stack(found)


def one(
    encoder: Encoder, tokens: Tensor, number: int, of_cls: Tensor, words: Tensor
) -> dict[str, Any]:
    """Return what `measure` does for one sentence."""
    n, layers = tokens.shape[1], len(encoder.layers)
    with torch.no_grad():
        _, weights = encoder.attend(tokens)
    looked_at = weights[0, :, :, 1:-1].mean((0, 1, 2))
    word, several = random_words(number, looked_at)
    at = {
        "[CLS]": F.one_hot(torch.tensor(0), n).bool(),
        "[SEP]": F.one_hot(torch.tensor(n - 1), n).bool(),
        "a random word": F.one_hot(word, n).bool(),
        "the word with most weight": F.one_hot(looked_at[1:-1].argmax().cpu() + 1, n).bool(),
        "random words with as much weight": several,
    }
    every = torch.ones(layers, 1, dtype=torch.bool)
    plan = {name: places & every for name, places in at.items()}
    for layer in range(layers):
        only = rearrange(torch.arange(layers) == layer, "layer -> layer 1")
        plan[f"[CLS], in layer {layer + 1} alone"] = at["[CLS]"] & only
    chosen = torch.stack([*plan.values()]).to(tokens.device)
    none = torch.zeros_like(chosen)
    true = changed(encoder, tokens, none[:1], none[:1])
    arms = {
        "no weight": changed(encoder, tokens, chosen, none),
        "no content": changed(encoder, tokens, none, chosen),
        "the mean of [CLS] instead": changed(encoder, tokens, none[:1], chosen[:1], of_cls),
        "no weight, each head scaled down": changed(
            encoder, tokens, chosen[:1], none[:1], scale=words
        ),
    }

    def cosines(pool: Callable[[Tensor], Tensor]) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {}
        for arm, vectors in arms.items():
            alike = F.cosine_similarity(pool(vectors), pool(true), dim=-1).tolist()
            for name, cosine in zip(plan, alike, strict=False):
                found.setdefault(name, {})[arm] = round(cosine, 5)
        return found

    return {
        "shares": {name: rounded(table) for name, table in shares(encoder, tokens).items()},
        "cosines": cosines(lambda x: x[:, 1:-1].mean(1)),
        "pooled over all tokens": cosines(lambda x: x.mean(1)),
        "vector": true[0, 1:-1].mean(0).tolist(),
        "words taken": int(several.sum()),
    }


@on_cpu
def measure_untrained(*, texts: list[str], device: str = "cpu") -> list[dict[str, Any]]:
    """Return the shares of [CLS] with weights that were never trained."""
    found = []
    for text in texts:
        tokens = published().tokenize([text])[0].to(device)
        found.append({n: rounded(t) for n, t in shares(untrained().to(device), tokens).items()})
    return found


def rounded(table: Float[Tensor, "layer head"]) -> list[list[float]]:
    """Return a row of numbers for each layer."""
    return [[round(share, 5) for share in row] for row in table.tolist()]


def run(each: Each, *, count: int, in_a_job: int) -> dict[str, Any]:
    """Count what [CLS] gets and gives, change either, and attack what came."""
    texts = sentences(count)
    found = _all(each, measure, texts, in_a_job)
    cosine = _cosines(found, "cosines")
    comparisons = {
        f"{token}: no weight - no content": compare(arms["no weight"], arms["no content"])
        for token, arms in cosine.items()
        if "alone" not in token
    }
    for token in ("a random word", "the word with most weight"):
        comparisons[f"no content: [CLS] - {token}"] = compare(
            cosine["[CLS]"]["no content"], cosine[token]["no content"]
        )
    of_cls = cosine["[CLS]"]
    for arm in ("no weight", "no content"):
        comparisons[f"[CLS]: no weight, each head scaled down - {arm}"] = compare(
            of_cls["no weight, each head scaled down"], of_cls[arm]
        )
    vectors = F.normalize(torch.tensor([row["vector"] for row in found], device="cpu"), dim=-1)
    others = ((vectors @ vectors.T).sum() - count) / (count * (count - 1))
    short = _all(each, measure, SHORT[:count], in_a_job)
    pooled = _cosines(found, "pooled over all tokens")
    named = "[CLS]", "[SEP]", "a random word"
    return {
        "question": QUESTION,
        "refuted_if": REFUTED_IF,
        "tuning": {},
        "chosen": {},
        "seeds": list(range(count)),  # a sentence each
        "results": {
            **{name: _shares(found, name) for name in ("weight", "content", "length")},
            "cosine": {token: cosine[token] for token in named},
            "another sentence": round(others.item(), 4),
        },
        "curve": {},
        "comparisons": holm(comparisons),
        "attacks": [
            *(
                {"tried": token, "came": means(arms)}
                for token, arms in cosine.items()
                if token not in named
            ),
            {
                "tried": "the mean of [CLS] over sentences in place of its content",
                "came": means({"the mean": cosine["[CLS]"]["the mean of [CLS] instead"]}),
            },
            *(
                {"tried": f"pooled over all tokens, {token}", "came": means(pooled[token])}
                for token in named
            ),
            *(
                {"tried": f"100 sentences of five words, {token}", "came": means(arms)}
                for token, arms in _cosines(short, "cosines").items()
                if token in named
            ),
            {"tried": "100 sentences of five words, shares", "came": _levels(short)},
            {"tried": "weights that were never trained, shares", "came": _levels(
                _all(each, measure_untrained, texts[: count // 3], in_a_job)
            )},
            {"tried": "shares without the bias of the values", "came": _levels(found)},
            {"tried": "how many random words are looked at as much as [CLS]", "came": {
                "mean": round(fmean(row["words taken"] for row in found), 2),
            }},
        ],
    }  # fmt: skip


QUESTION = (
    "Do words of all-MiniLM-L6-v2 need to be able to look at [CLS], and not what it hands over to "
    "them?"
)
REFUTED_IF = (
    "Leaving out what [CLS] hands over changes the sentence's vector as much as leaving out a "
    "random word, or forbidding the words to look at [CLS] changes it no more than that."
)


def _all(
    each: Each, work: Callable[..., Any], texts: list[str], in_a_job: int
) -> list[dict[str, Any]]:
    firsts = range(0, len(texts), in_a_job)
    jobs: list[dict[str, Any]] = [{"texts": texts[first : first + in_a_job]} for first in firsts]
    if work is measure:
        jobs = [{**job, "first": first} for job, first in zip(jobs, firsts, strict=True)]
    return [row for rows in each(work, jobs, work.__name__) for row in rows]


def _cosines(found: list[dict[str, Any]], pooled: str) -> dict[str, dict[str, list[float]]]:
    return {
        token: {arm: [row[pooled][token][arm] for row in found] for arm in arms}
        for token, arms in found[0][pooled].items()
    }


def means(arms: dict[str, list[float]]) -> dict[str, float]:
    """Return the mean cosine of each arm."""
    return {arm: round(fmean(runs), 4) for arm, runs in arms.items()}


def _shares(found: list[dict[str, Any]], name: str) -> list[list[float]]:
    return rounded(torch.tensor([row["shares"][name] for row in found], device="cpu").mean(0))


def _levels(found: list[dict[str, Any]]) -> dict[str, float]:
    if "shares" not in found[0]:
        found = [{"shares": row} for row in found]
    levels = {}
    for name in found[0]["shares"]:
        table = torch.tensor(_shares(found, name), device="cpu")
        levels[name] = round((table.median() if name == "length" else table.mean()).item(), 4)
    return levels


FULL: dict[str, Any] = {"count": 300, "in_a_job": 25}
QUICK: dict[str, Any] = {"count": 3, "in_a_job": 2}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
