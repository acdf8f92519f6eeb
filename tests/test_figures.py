"""The dark twin of a figure, and how large its lettering is."""

from __future__ import annotations

import colorsys
import io
import re

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import rules  # noqa: F401  (it finds book/_ext)
import torch
from figures import GROUND, contrast, dark, dark_colour, letterings, narrowest, size, title

from attnbook import plotting


@pytest.fixture(autouse=True)
def house_style():
    with mpl.rc_context({"backend": "agg"}):
        plotting.style()
        yield
        plt.close("all")


def svg() -> str:
    file = io.StringIO()
    plt.gcf().savefig(file, format="svg")
    return file.getvalue()


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def colours(svg: str) -> set[str]:
    return set(re.findall(r"#[0-9a-f]{6}\b", svg))


def test_the_ground_is_the_page_and_words_are_its_ink():
    assert dark_colour("#ffffff") == "#14171b"
    assert dark_colour("#000000") == "#d9dee4"
    assert contrast(rgb(dark_colour("#808080")), GROUND) >= 4.5
    assert contrast(rgb(dark_colour("#e6e6e6")), GROUND) < 2


@pytest.mark.parametrize("colour", plotting.COLORS)
def test_lines_stand_out_from_a_dark_ground_and_keep_their_hue(colour):
    made = dark_colour(colour.lower())
    assert contrast(rgb(made), GROUND) >= 4.5
    if colour != plotting.BLACK:
        hues = [colorsys.rgb_to_hsv(*rgb(c))[0] for c in (colour, made)]
        assert hues[0] == pytest.approx(hues[1], abs=0.01)


def test_no_two_lines_become_alike():
    made = [rgb(dark_colour(colour.lower())) for colour in plotting.COLORS]
    for n, one in enumerate(made):
        assert all(
            sum(abs(a - b) for a, b in zip(one, other, strict=True)) > 60 for other in made[:n]
        )


def test_pictures_and_what_is_drawn_upon_them_keep_their_colours():
    figure, ax = plt.subplots()
    plotting.heatmap(
        ax, torch.tensor([[0.0, 1.0], [0.2, 0.9]]), ["a", "b"], ["c", "d"], values=True
    )
    ax.add_patch(plt.Rectangle((0, 0), 0.5, 0.5, fill=False, ec="#fefefe"))
    figure.colorbar(ax.images[0], label="weight")
    light, night = svg(), dark(svg())
    pictures = [re.findall('base64,([^"]+)', drawn) for drawn in (light, night)]
    assert pictures[0] and pictures[0] == pictures[1]
    assert "#fefefe" in colours(night)
    assert night.count("#ffffff") == 2  # numbers on dark cells; the white grounds are gone
    assert night.count('fill="#000000"') >= 2  # numbers on light cells


def test_words_beside_a_picture_are_seen():
    _, ax = plt.subplots()
    ax.imshow(torch.rand(2, 2).numpy(), aspect="auto")
    ax.set_title("$W^O$ above")
    ax.axis("off")
    assert 'fill="#d9dee4"' in dark(svg())[:400]
    assert 'fill="#000000"' not in dark(svg())  # the place of the O is that within its word


def test_lettering_is_measured():
    _, ax = plt.subplots(figsize=(5, 2))
    ax.set(xticks=[], yticks=[])
    ax.text(0, 0, "twelve", fontsize=12)
    ax.text(0, 0.5, "nine, turned", fontsize=9, rotation=90)
    ax.set_title("Bold & clear,\nwith $W$", fontsize=11)
    drawn = svg()
    assert sorted(letterings(drawn)) == [9, 11, 11, 12]
    assert size(drawn) == (5 * 72 + 12, 2 * 72 + 12)
    assert narrowest(drawn) == 372
    assert title(drawn) == "Bold & clear, with W"
    plt.clf()
    plt.plot([1, 2])
    plt.gca().axis("off")
    assert narrowest(svg()) == 0
