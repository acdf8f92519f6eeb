"""What are the gates of a network in daily use worth? The text-angle classifier of rapidocr.

Before a line of text is read, this network says whether it stands upright or on its head. Nine of
its eleven blocks have a squeeze-and-excitation gate. Its weights, trained by PaddleOCR (Apache
licence 2.0), come with the package rapidocr; nothing is downloaded, and nothing is trained here.
"""

from __future__ import annotations

import datetime
import hashlib
import random
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnbook.datasets import on_cpu
from attnbook.squeeze_excitation import SqueezeExcitation
from attnbook.studies import main
from attnbook.studies.protocol import compare, holm, mean_of, repeat_all
from attnbook.studies.runner import Each

if TYPE_CHECKING:
    from PIL import Image

    Gates = Mapping[str, Tensor]

FILE = "models/ch_ppocr_mobile_v2.0_cls_mobile.onnx"
SHA256 = "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c"

# Of each block: kernel size, vertical stride, channels inside and behind it, gated or not.
BLOCKS = {
    "conv2": (3, 2, 8, 8, True), "conv3": (3, 2, 24, 8, False), "conv4": (3, 1, 32, 8, False),
    "conv5": (5, 2, 32, 16, True), "conv6": (5, 1, 88, 16, True), "conv7": (5, 1, 88, 16, True),
    "conv8": (5, 1, 40, 16, True), "conv9": (5, 1, 48, 16, True), "conv10": (5, 2, 104, 32, True),
    "conv11": (5, 1, 200, 32, True), "conv12": (5, 1, 200, 32, True),
}  # fmt: skip
WITH_RELU = ("conv2", "conv3", "conv4")  # the others have a hard swish
LAYERS = [name for name, (*_, gated) in BLOCKS.items() if gated]


def hard_sigmoid(x: Tensor) -> Tensor:
    """Return 0.2 x + 0.5, cut off at 0 and 1: PaddleOCR's; PyTorch and Paddle have 1/6 for 0.2.

    >>> hard_sigmoid(torch.tensor([-3.0, 1.0, 3.0]))
    tensor([0.0000, 0.7000, 1.0000])
    """
    return (0.2 * x + 0.5).clamp(0, 1)


def convolution(
    channels: int, out: int, kernel: int = 1, *, stride: int = 1, across: int = 1, groups: int = 1
) -> nn.Sequential:
    """Return a centred convolution without bias, and its batch normalisation."""
    conv = nn.Conv2d(
        channels, out, kernel, (stride, across), kernel // 2, groups=groups, bias=False
    )
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out)))


class Block(nn.Module):
    """A block of MobileNetV3: wider by a 1x1, channel by channel, the gate, narrower by a 1x1."""

    def __init__(self, name: str, channels: int) -> None:
        """Make one of BLOCKS for so many channels."""
        super().__init__()
        kernel, stride, inside, out, gated = BLOCKS[name]
        self.activation = F.relu if name in WITH_RELU else F.hardswish
        self.expand = convolution(channels, inside)
        self.depthwise = convolution(inside, inside, kernel, stride=stride, groups=inside)
        self.se = SqueezeExcitation(inside, 4, gate_activation=hard_sigmoid) if gated else None
        self.linear = convolution(inside, out)
        self.shortcut = channels == out and stride == 1

    def forward(
        self, x: Float[Tensor, "b c h w"], given: Tensor | None, seen: dict[str, Tensor]
    ) -> Float[Tensor, "b out i w"]:
        """Return the block's output, with its own gate or a given one, (batch or 1, channels).

        `seen` gets the block's own gate, and the means that it comes from.
        """
        inside = self.activation(self.expand(x))
        inside = self.activation(self.depthwise(inside))
        if self.se is not None:
            gate = self.se.gate(inside)
            seen["gate"] = rearrange(gate, "b c 1 1 -> b c")
            seen["mean"] = reduce(inside, "b c h w -> b c", "mean")
            inside = inside * (gate if given is None else rearrange(given, "b c -> b c 1 1"))
        out = self.linear(inside)
        return x + out if self.shortcut else out


class AngleClassifier(nn.Module):
    """Is a line of text upright (0), or turned by 180 degrees (1)?

    MobileNetV3-small (Howard et al., 2019, https://arxiv.org/abs/1905.02244) at 0.35 of its width,
    with strides of 2 that only go down, since lines are wide.
    """

    def __init__(self) -> None:
        """Make the layers; `published` fills them."""
        super().__init__()
        self.stem = convolution(3, 8, 3, stride=2, across=2)
        widths = [8, *(out for _, _, _, out, _ in BLOCKS.values())]
        pairs = zip(BLOCKS, widths, strict=False)
        self.blocks = nn.ModuleDict({name: Block(name, channels) for name, channels in pairs})
        self.last = convolution(32, 200)
        self.fc = nn.Linear(200, 2)

    def forward(
        self, x: Float[Tensor, "b 3 48 192"], given: Gates | None = None
    ) -> tuple[Float[Tensor, "b 2"], dict[str, dict[str, Tensor]]]:
        """Return the logits, and of each gated block its own gates and the means they come from.

        Args:
            x: the lines.
            given: gates to multiply by in place of the network's own, by the name of the block.
        """
        given = given or {}
        seen: dict[str, dict[str, Tensor]] = {name: {} for name in BLOCKS}
        x = F.hardswish(self.stem(x))
        for name, block in self.blocks.items():
            x = block(x, given.get(name), seen[name])
        x = F.max_pool2d(F.hardswish(self.last(x)), 2)
        return self.fc(reduce(x, "b c h w -> b c", "mean")), {n: seen[n] for n in LAYERS}


def published() -> AngleClassifier:
    """Return the network with the weights that rapidocr ships.

    Raises:
        ImportError: the extra `ocr` is not installed.
        ValueError: the file is not the one that was published.
    """
    network = AngleClassifier()
    network.load_state_dict({ours(name): tensor for name, tensor in constants().items()})
    return network.eval().requires_grad_(False)


def constants() -> dict[str, Tensor]:
    """Return the weights in rapidocr's file, by the names that they have there."""
    spec = find_spec("rapidocr")  # found and not imported: we want one of its files
    if spec is None or not spec.submodule_search_locations or find_spec("onnx") is None:
        raise ImportError(
            "rapidocr or onnx is not installed: they belong to the extra `ocr`; in a copy of the "
            "repository, pip install '.[ocr]'"
        )
    import onnx  # noqa: PLC0415 (only this function needs it)

    content = (Path(spec.submodule_search_locations[0]) / FILE).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise ValueError(f"{FILE} has sha256 {found}, but the file published has {SHA256}")
    nodes = onnx.load_from_string(content).graph.node  # the weights are constants among them
    values = {n.output[0]: n.attribute[0].t for n in nodes if n.op_type == "Constant"}
    arrays = {name: onnx.numpy_helper.to_array(value) for name, value in values.items()}
    return {
        name: torch.tensor(array.T if name == "fc_0.w_0" else array)
        for name, array in arrays.items()
        if name.startswith(("conv", "fc_0"))
    }


def ours(name: str) -> str:
    """Return the name that a parameter of rapidocr's file has in AngleClassifier.

    >>> ours("conv5_se_1_offset"), ours("conv12_expand_bn_mean")
    ('blocks.conv5.se.fc1.bias', 'blocks.conv12.expand.bn.running_mean')
    """
    if name.startswith("fc_0"):
        return "fc.weight" if "w_" in name else "fc.bias"
    layer, what = name.rsplit("_", 1)
    if "_se_" in layer:
        block, number = layer.split("_se_")
        return f"blocks.{block}.se.fc{number}.{'weight' if what == 'weights' else 'bias'}"
    kinds = {"scale": "weight", "offset": "bias", "mean": "running_mean"}
    kinds |= {"variance": "running_var", "weights": "weight"}
    part = "bn" if layer.endswith("_bn") else "conv"
    layer = layer.removesuffix("_bn")
    layer = {"conv1": "stem", "conv_last": "last"}.get(layer, f"blocks.{layer.replace('_', '.')}")
    return f"{layer}.{part}.{kinds[what]}"


# Lines of text -----------------------------------------------------------------------------------

SCRIPTS = {
    "Latin": ("en", "fr", "de", "es"),
    "Cyrillic": ("ru", "uk"),
    "Greek": ("el",),
}
DATES = {
    "Chinese dates": "zh_CN",
    "English dates": "en",
    "Russian dates": "ru",
    "Greek dates": "el",
}
CHINESE = Path(__file__).parents[1] / "fonts" / "NotoSansSC-dates.otf"


@cache
def texts(script: str) -> list[str]:
    """Return names of countries and languages as the Unicode CLDR spells them, or dates."""
    from babel import Locale  # noqa: PLC0415 (only here)
    from babel.dates import format_date  # noqa: PLC0415

    if script in DATES:
        first = datetime.date(1950, 1, 1)
        days = (first + datetime.timedelta(days=number) for number in range(0, 36_500, 7))
        return [format_date(day, "long", locale=DATES[script]) for day in days]
    found = set()
    for language in SCRIPTS[script]:
        locale = Locale(language)
        found |= {*locale.territories.values(), *locale.languages.values()}
    return sorted(text for text in found if 6 <= len(text) <= 26)


@cache
def faces() -> list[str]:
    """Return the files of 16 faces that come with matplotlib: DejaVu and STIX."""
    import matplotlib as mpl  # noqa: PLC0415 (only here)

    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    found = [*folder.glob("DejaVuS*.ttf"), *folder.glob("STIXGeneral*.ttf")]
    return sorted(str(path) for path in found if "Display" not in path.name)


@cache
def letters(face: str) -> frozenset[int]:
    """Return the characters that a face has."""
    from matplotlib.ft2font import FT2Font  # noqa: PLC0415 (only here)

    return frozenset(FT2Font(face).get_charmap())


def picture(text: str, generator: random.Random, *, hard: bool) -> Image.Image:
    """Return a line of text as a picture, in a face, size and colours that are drawn by lot.

    A hard one is tilted by up to 3 degrees, has few pixels, is blurred and noisy.
    """
    from PIL import Image, ImageDraw, ImageFilter, ImageFont  # noqa: PLC0415 (only here)

    chinese = letters(str(CHINESE))
    latin = {ord(character) for character in text} - chinese
    face = generator.choice([name for name in faces() if latin <= letters(name)])
    size = generator.randint(24, 44)
    fonts = {False: ImageFont.truetype(face, size), True: ImageFont.truetype(str(CHINESE), size)}
    margin, height = generator.randint(1, 8), generator.randint(1, 6)
    span = 110 if hard else 90  # how far the levels of ink and of paper reach
    ink, paper = ([generator.randint(0, span) + low for _ in "rgb"] for low in (0, 255 - span))
    if generator.random() < 0.3:
        ink, paper = paper, ink
    widths = [fonts[ord(c) in chinese].getlength(c) for c in text]
    wide = Image.new("RGB", (round(sum(widths)) + 2 * margin + size, 2 * size), tuple(paper))
    draw, place = ImageDraw.Draw(wide), float(margin)
    for character, width in zip(text, widths, strict=True):
        font = fonts[ord(character) in chinese]
        draw.text((place, 1.4 * size), character, font=font, fill=tuple(ink), anchor="ls")
        place += width
    mask = Image.new("L", wide.size)
    mask.paste(255, mask=Image.fromarray((np.asarray(wide) != paper).any(-1)))
    left, top, right, bottom = mask.getbbox() or (0, 0, *wide.size)
    line = wide.crop((max(left - margin, 0), max(top - height, 0), right + margin, bottom + height))
    if not hard:
        return line
    line = line.rotate(generator.uniform(-3, 3), Image.Resampling.BILINEAR, fillcolor=tuple(paper))
    part = generator.uniform(0.25, 0.7)
    small = max(8, int(line.width * part)), max(6, int(line.height * part))
    line = line.resize(small, Image.Resampling.BILINEAR)
    line = line.filter(ImageFilter.GaussianBlur(generator.uniform(0, 0.9)))
    noise = np.random.default_rng(generator.getrandbits(32))
    spoilt = np.asarray(line) + noise.normal(0, generator.uniform(0, 25), np.asarray(line).shape)
    return Image.fromarray(spoilt.clip(0, 255).astype(np.uint8))


def prepared(line: Image.Image) -> Float[Tensor, "3 48 192"]:
    """Return a picture as rapidocr prepares it: 48 high, BGR, from -1 to 1, zeros at the right."""
    width = min(192, -(-48 * line.width // line.height))
    pixels = torch.tensor(np.asarray(line.resize((width, 48), 2)), dtype=torch.float32)
    bgr = rearrange(pixels, "h w c -> c h w").flip(0) / 127.5 - 1
    return F.pad(bgr, (0, 192 - width))


@on_cpu
def lines(
    script: str, count: int, seed: int, *, hard: bool
) -> tuple[Float[Tensor, "twice 3 48 192"], Int[Tensor, " twice"]]:
    """Return lines, each upright and then turned by 180 degrees, and their labels, 0 and 1."""
    from PIL import Image  # noqa: PLC0415 (only here)

    generator = random.Random(f"{script} {seed}")
    drawn = [picture(generator.choice(texts(script)), generator, hard=hard) for _ in range(count)]
    turned = Image.Transpose.ROTATE_180
    both = [prepared(one) for line in drawn for one in (line, line.transpose(turned))]
    return torch.stack(both), torch.arange(2 * count) % 2


# What is done to the gates -----------------------------------------------------------------------


def in_batches(
    network: AngleClassifier, x: Tensor, given: Gates | None = None
) -> tuple[Float[Tensor, "b 2"], dict[str, dict[str, Tensor]]]:
    """Return what the network returns, fifty images at a time."""
    given = given or {}
    logits, seen = [], []
    for start in range(0, len(x), 50):
        part = slice(start, start + 50)
        of_part = {name: gate if len(gate) == 1 else gate[part] for name, gate in given.items()}
        answer, shown = network(x[part], of_part)
        logits.append(answer)
        seen.append(shown)
    joined = {
        layer: {what: torch.cat([one[layer][what] for one in seen]) for what in seen[0][layer]}
        for layer in LAYERS
    }
    return torch.cat(logits), joined


def rescaled(x: Tensor, given: Gates, device: str) -> AngleClassifier:
    """Return the network with each batch normalisation behind a gate fitted to the given gates.

    Its channels get the mean and the spread over x that they have with the network's own gates.
    Without that, replacing a gate would also change how loud its block is.
    """
    network = published().to(device)
    behind = [
        cast("nn.BatchNorm2d", network.get_submodule(f"blocks.{name}.linear.bn")) for name in LAYERS
    ]
    spans: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def fit(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        center, spread = inputs[0].mean((0, 2, 3)), inputs[0].var((0, 2, 3))
        if norm not in spans:  # the first pass, with the network's own gates
            spans[norm] = center, spread
            return
        before, width = spans[norm]
        ratio = spread / width
        mean, variance = cast("tuple[Tensor, Tensor]", (norm.running_mean, norm.running_var))
        norm.running_mean = center + (mean - before) * ratio.sqrt()
        norm.running_var = variance * ratio

    hooks = [norm.register_forward_pre_hook(fit) for norm in behind]
    network(x)
    network(x, given)
    for hook in hooks:
        hook.remove()
    return network


def readable(known: Tensor, labels: Tensor, asked: Tensor, right: Tensor) -> float:
    """Return how often a ridge regression on these numbers names the label of other lines."""
    center, spread = known.mean(0), known.std(0) + 1e-6
    first, second = (
        F.pad((part - center) / spread, (0, 1), value=1.0).double() for part in (known, asked)
    )
    penalty = 1e-2 * len(first) * torch.eye(first.shape[1], dtype=torch.double, device=first.device)
    weights = torch.linalg.solve(first.T @ first + penalty, first.T @ (2 * labels - 1).double())
    return round(((second @ weights > 0) == right).double().mean().item(), 4)


@torch.no_grad()
@on_cpu
def measure(
    *,
    script: str,
    hard: bool,
    count: int,
    fitted: int,
    seed: int,
    means_from: str,
    groups: list[list[str]],
    device: str = "cpu",
) -> dict[str, Any]:
    """Return how often the network is right with gates of each kind, on lines not seen before.

    Means over images, and what is fitted, come from other lines. In each of the groups of
    layers, two kinds of gates are also tried while all other layers keep their own.
    """
    network = published().to(device)
    x, y = (part.to(device) for part in lines(script, count, seed, hard=hard))
    other, of_other = (
        part.to(device) for part in lines(means_from, fitted, 10_000 + seed, hard=hard)
    )
    own, seen = in_batches(network, x)
    _, before = in_batches(network, other)
    gates = {name: seen[name]["gate"] for name in LAYERS}
    known = {name: before[name]["gate"] for name in LAYERS}
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(2 * count, generator=generator)
    same = 2 * torch.randperm(count, generator=generator).repeat_interleave(2) + y.cpu()
    twin = torch.arange(2 * count) ^ 1
    mean = {name: gate.mean(0, keepdim=True) for name, gate in known.items()}
    one = {name: gate.mean().expand(1, gate.shape[1]) for name, gate in known.items()}
    ones = {name: torch.ones_like(gate) for name, gate in mean.items()}
    by_label = {
        name: torch.stack([gate[of_other == label].mean(0) for label in (0, 1)])
        for name, gate in known.items()
    }
    replaced: dict[str, Gates] = {
        "mean over images": mean,
        "one number a layer": one,
        "ones": ones,
        "another image's": {name: gate[shuffled] for name, gate in gates.items()},
        "another image's, same label": {name: gate[same] for name, gate in gates.items()},
        "its own, turned round": {name: gate[twin] for name, gate in gates.items()},
        "mean of the right label": {name: gate[y] for name, gate in by_label.items()},
        "mean of the wrong label": {name: gate[1 - y] for name, gate in by_label.items()},
    }

    def right(logits: Tensor) -> float:
        return round((logits.argmax(1) == y).double().mean().item(), 4)

    found: dict[str, Any] = {"own": right(own)}
    for what, given in replaced.items():
        found[what] = right(in_batches(network, x, given)[0])
    for what in ("mean over images", "one number a layer"):  # ones: the same as any one number
        as_loud = rescaled(other, replaced[what], device)
        found[f"{what}, rescaled"] = right(in_batches(as_loud, x, replaced[what])[0])
    found["read off the gates"] = [readable(known[n], of_other, gates[n], y) for n in LAYERS]
    found["read off the means"] = [
        readable(before[n]["mean"], of_other, seen[n]["mean"], y) for n in LAYERS
    ]
    found["average gate"] = [round(gate.mean().item(), 4) for gate in gates.values()]
    for what in ("mean over images", "another image's", "another image's, same label"):
        found[f"{what}, in some layers"] = [
            right(in_batches(network, x, {name: replaced[what][name] for name in group})[0])
            for group in groups
        ]
    return found


def run(
    each: Each, *, seeds: int, count: int, fitted: int, kinds: list[list[Any]]
) -> dict[str, Any]:
    """Replace the gates of the published network, in lines of several scripts, and attack it."""
    drawn = list(range(seeds))
    by: dict[str, Any] = {"count": count, "fitted": fitted, "groups": []}
    cells: dict[str, dict[str, Any]] = {
        name_of(script, hard): {**by, "script": script, "hard": hard, "means_from": script}
        for script, hard in kinds
    }
    groups = [*([name] for name in LAYERS), LAYERS[:-2], LAYERS[-2:]]
    looked_into = name_of("Latin", True)
    cells[looked_into]["groups"] = groups
    found = repeat_all(each, measure, cells, drawn, "lines")
    comparisons = {
        f"{name}: {first} against {second}": compare(
            [one[first] for one in runs], [one[second] for one in runs]
        )
        for name, runs in found.items()
        for first, second in COMPARED
    }
    return {
        "question": QUESTION,
        "refuted_if": REFUTED_IF,
        "tuning": {},
        "chosen": {},
        "seeds": drawn,
        "results": {
            "layers": LAYERS,
            "groups": groups,
            "of each kind": {name: averaged(runs) for name, runs in found.items()},
        },
        "curve": {},
        "comparisons": holm(comparisons),
        "attacks": attacks(each, cells, drawn),
    }


QUESTION = (
    "Do the gates of the published text-angle classifier have to look at the image: is it less "
    "often right with their means over images, when the loudness of each block is kept?"
)
REFUTED_IF = "With the means it is in no kind of lines significantly less often right."
COMPARED = [
    ("mean over images", "own"),
    ("mean over images, rescaled", "own"),
    ("one number a layer, rescaled", "mean over images, rescaled"),
    ("another image's", "mean over images"),
    ("another image's, same label", "another image's"),
]


def name_of(script: str, hard: bool) -> str:
    """Return the name of a kind of lines."""
    return f"{script}, {'hard' if hard else 'clean'}"


def averaged(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean over the seeds of each number, or of each in a list of numbers."""
    return {
        what: mean_of(runs, what)
        if isinstance(first, list)
        else round(fmean(one[what] for one in runs), 4)
        for what, first in runs[0].items()
    }


def attacks(each: Each, cells: dict[str, dict[str, Any]], seeds: list[int]) -> list[dict[str, Any]]:
    """Return what was tried to overturn what the study says, and what came."""
    hard: dict[str, Any] = {**cells[name_of("Latin", True)], "groups": []}
    others = [cell for cell in cells.values() if cell["hard"] and cell["script"] != "Latin"]
    dates = [name for name in DATES if name_of(name, True) not in cells]
    tried = {
        "other lines": ({"again": hard}, [200 + seed for seed in seeds]),
        "means over a fifth of the lines": (
            {"few": hard | {"fitted": hard["fitted"] // 5}}, seeds,
        ),
        "means over Latin lines, where the lines are of another script": (
            {cell["script"]: cell | {"means_from": "Latin"} for cell in others}, seeds,
        ),
        "dates in place of names": (
            {name: hard | {"script": name, "means_from": name} for name in dates}, seeds,
        ),
    }  # fmt: skip
    return [
        {
            "tried": what,
            "came": {
                name: averaged(runs)
                for name, runs in repeat_all(each, measure, some, drawn, what).items()
            },
        }
        for what, (some, drawn) in tried.items()
    ]


FULL: dict[str, Any] = {
    "seeds": 10,
    "count": 100,
    "fitted": 100,
    "kinds": [
        ["Latin", False], ["Latin", True], ["Cyrillic", True], ["Greek", True],
        ["Chinese dates", True],
    ],
}  # fmt: skip
QUICK: dict[str, Any] = {"seeds": 2, "count": 3, "fitted": 5, "kinds": [["Latin", True]]}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
