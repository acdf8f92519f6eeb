"""Train the networks of the live figures as their chapters do, and write their weights.

The heads of a published encoder are not trained; theirs are attention weights of some sentences.

python tools/live.py                 all of them
python tools/live.py translator      one

A weights file is a script that hands the page one network: shapes, what else its figure has to
know, and all parameters in order, in float16, in base64. The file, and not a later training, is
what the page runs; tests/browser/test_live.py loads it into the package's module too.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from attnbook import datasets, studies
from attnbook.studies import clutter as studied_clutter
from attnbook.studies import cue_strip as studied_strips
from attnbook.studies import heads as studied_heads
from attnbook.studies import influence, neighbours
from attnbook.training import fit
from attnbook.transformer import SentenceEncoder

FOLDER = Path(__file__).parents[1] / "book" / "_static" / "live"
SCRIPT = re.compile(r'attnbookLive\.network\("(\w+)", (.*),\n"(.*)"\);\n', re.DOTALL)
SHOWN = 8  # pictures of the chapter on CBAM
State = dict[str, Tensor]


def translator() -> tuple[State, dict[str, Any]]:
    """Return the translator of dates of the attention chapter, and its vocabularies."""
    pairs = datasets.date_pairs(5000)
    sides = [pair.chinese for pair in pairs], [pair.english for pair in pairs]
    torch.manual_seed(0)
    characters = [datasets.Characters(texts) for texts in sides]
    source, target = (c.encode(texts) for c, texts in zip(characters, sides, strict=True))
    model = influence.Translator(*characters)
    fit(model, influence.loss, (source[:4000], target[:4000]), steps=400, batch_size=32, lr=2e-2)
    # The date of the chapter's heat map.
    shown = next(p for p in pairs[4000:] if p.style == "full" and len(p.english) == 17)
    return model.state_dict(), {
        "source": characters[0].characters,
        "target": characters[1].characters,
        "length": source.shape[1],
        "steps": target.shape[1] - 1,
        "example": shown.chinese,
    }


def cat() -> tuple[State, dict[str, Any]]:
    """Return the picture of the nine maps of the self-attention chapter: no network, but grey."""
    picture = F.avg_pool2d(datasets.photograph("chelsea")[:, 40:200, 140:300], 5)
    return {"grey": picture.mean(0)}, {}


def seven() -> tuple[State, dict[str, Any]]:
    """Return the digit that the chapter on spatial transformers warps by hand: no network."""
    return {"ink": datasets.mnist()[0][3700]}, {}


def astronaut() -> tuple[State, dict[str, Any]]:
    """Return the photograph of the chapter on squeeze-and-excitation, smaller, in 256 steps."""
    photo = F.avg_pool2d(datasets.photograph("astronaut"), 6)
    return {"photo": (255 * photo).round() / 255}, {}


def coffee() -> tuple[State, dict[str, Any]]:
    """Return the photograph of the comparison, ten rows of fifteen places: no network."""
    return {"photo": F.avg_pool2d(datasets.photograph("coffee"), 40)}, {}


def eyes() -> tuple[State, dict[str, Any]]:
    """Return the photograph of the chapter on CBAM as its filters see it: grey."""
    return {"grey": F.avg_pool2d(datasets.photograph("chelsea")[:, :, :450], 2).mean(0)}, {}


def bricks() -> tuple[State, dict[str, Any]]:
    """Return the squeezes of the twelve channels of the chapter on ECA, stripes of a brick wall.

    They are no float16 as weights are, with which a gate of 0.815 was rounded to 0.81 and not 0.82.
    """
    photo = torch.from_numpy(skimage.data.brick()).float()[None, None] / 255
    y, x = torch.meshgrid(torch.arange(-8.0, 9), torch.arange(-8.0, 9), indexing="ij")
    turns = torch.arange(12)[:, None, None] * math.pi / 12
    waves = (2 * math.pi / 8 * (x * turns.sin() + y * turns.cos())).cos()
    filters = waves * (-(x**2 + y**2) / 18).exp()
    filters = (filters - filters.mean((1, 2), keepdim=True)) / 4
    squeeze = F.conv2d(photo, filters[:, None], padding=8).abs().mean((0, 2, 3))
    return {}, {"squeeze": [round(number, 7) for number in squeeze.tolist()]}


def heads() -> tuple[State, dict[str, Any]]:
    """Return what the heads of a published encoder look at in three sentences, not its weights."""
    published = SentenceEncoder()
    found = [studied_heads.example(published, sentence) for sentence in studied_heads.EXAMPLES]
    state = {f"sentence {n}": weights for n, (_, weights) in enumerate(found)}
    return state, {"sentences": studied_heads.EXAMPLES, "tokens": [tokens for tokens, _ in found]}


def strips() -> tuple[State, dict[str, Any]]:
    """Return the first test pictures of the chapters on the cue strip, in steps of 1/32."""
    images = datasets.cue_strip(2000, training=False, seed=0)[0][:40]
    pixels, labels = datasets.digits()
    shown = rearrange(images[:, :2, :, :8], "n color y x -> color n (y x)")
    nearest = torch.cdist(shown, pixels.flatten(1)).argmin(-1)
    red, green = labels[nearest].tolist()
    cues = images[:, 2, :, 16:].mean((1, 2)).sign().int().tolist()
    return {"pictures": (32 * images).round() / 32}, {"red": red, "green": green, "cues": cues}


def squeezing() -> tuple[State, dict[str, Any]]:
    """Return the network with gates that the chapter on squeeze-and-excitation trains."""
    rate = studies.stored("cue_strip")["chosen"]["squeeze-and-excitation"]
    model, _ = studied_strips.train("squeeze-and-excitation", seed=0, lr=rate)
    return model.state_dict(), {}


def banded() -> tuple[State, dict[str, Any]]:
    """Return the first of the ten networks with ECA that keep the colours apart."""
    stored = studies.stored("neighbours")
    model = neighbours.network(neighbours.ECA, "apart", seed=0)
    fit(
        model,
        lambda model, x, labels: F.cross_entropy(model(x), labels),
        neighbours.images(stored["settings"]["pairs"], 0, training=True),
        steps=stored["settings"]["steps"],
        batch_size=64,
        lr=stored["chosen"][f"apart: {neighbours.ECA}"],
    )
    return model.state_dict(), {}


def masks() -> tuple[State, dict[str, Any]]:
    """Return the network of the chapter on CBAM whose masks it shows, the first of its ten."""
    stored = studies.stored("clutter")
    steps = stored["settings"]["steps"]
    torch.manual_seed(0)
    model = studied_clutter.network(studied_clutter.CHANNEL_FIRST)
    images, labels, _ = studied_clutter.cluttered(32 * steps, part="training", seed=0)
    fit(
        model,
        lambda model, x, labels: F.cross_entropy(model(x), labels),
        (images, labels),
        steps=steps,
        batch_size=32,
        lr=stored["chosen"][studied_clutter.CHANNEL_FIRST],
    )
    averages = stored["results"]["example"][1]
    return model.state_dict(), {"averages": [np.ravel(one).tolist() for one in averages]}


def pieces() -> tuple[State, dict[str, Any]]:
    """Return what the first test pictures of the chapter on CBAM are laid of, and where it lies.

    The draws are those of `cluttered`, in its order; a test lays the pictures again.
    """
    images, labels = studied_clutter.small_digits()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    pool = order[slice(*studied_clutter.PARTS["test"])]
    count, generator = studies.stored("clutter")["settings"]["tested"], torch.Generator()
    generator.manual_seed(list(studied_clutter.PARTS).index("test"))

    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator)

    picked = pool[draw(len(pool), count)]
    laid, places = [images[picked]], [draw(15, 2, count)]
    for _ in range(3):
        others = images[pool[draw(len(pool), count)]]
        starts = (2 + draw(5, 2, count)).T.tolist()
        cut = [one[y : y + 6, x : x + 6] for one, (y, x) in zip(others, starts, strict=True)]
        laid.append(torch.stack(cut))
        places.append(draw(23, 2, count))
    where = rearrange(places, "part yx n -> n part yx")[:SHOWN].tolist()
    state = {f"part {n}": part[:SHOWN] for n, part in enumerate(laid)}
    return state, {"places": where, "labels": labels[picked][:SHOWN].tolist()}


NETWORKS: dict[str, Callable[[], tuple[State, dict[str, Any]]]] = {
    "translator": translator,
    "cat": cat,
    "heads": heads,
    "seven": seven,
    "astronaut": astronaut,
    "coffee": coffee,
    "eyes": eyes,
    "bricks": bricks,
    "strips": strips,
    "squeezing": squeezing,
    "banded": banded,
    "masks": masks,
    "pieces": pieces,
}


def script(name: str, state: State, extra: dict[str, Any]) -> str:
    """Return the text of a weights file."""
    head = {"shapes": {key: list(value.shape) for key, value in state.items()}, "extra": extra}
    numbers = b"".join(value.numpy().astype("<f2").tobytes() for value in state.values())
    written = json.dumps(head, ensure_ascii=False)
    return f'attnbookLive.network("{name}", {written},\n"{base64.b64encode(numbers).decode()}");\n'


def read(name: str) -> tuple[State, dict[str, Any]]:
    """Return what a weights file holds, as the page reads it."""
    found = SCRIPT.fullmatch((FOLDER / f"{name}.weights.js").read_text(encoding="utf-8"))
    if found is None or found[1] != name:
        raise ValueError(f"{name}.weights.js is not as tools/live.py writes it")
    head = json.loads(found[2])
    numbers = torch.from_numpy(np.frombuffer(base64.b64decode(found[3]), "<f2").astype("float32"))
    shapes = head["shapes"]
    parts = numbers.split([int(np.prod(shape)) for shape in shapes.values()])
    state = {k: part.view(shapes[k]) for k, part in zip(shapes, parts, strict=True)}
    return state, head["extra"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the weights of the live figures.")
    parser.add_argument("networks", nargs="*", metavar="network", help=", ".join(NETWORKS))
    names = parser.parse_args().networks or list(NETWORKS)
    for unknown in set(names) - set(NETWORKS):
        parser.error(f"there is no network {unknown!r}; there are {', '.join(NETWORKS)}")
    torch.set_num_threads(1)  # the same sums in the same order
    for name in names:
        (FOLDER / f"{name}.weights.js").write_text(
            script(name, *NETWORKS[name]()), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
