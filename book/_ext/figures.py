"""A chapter's figures on the site: in the page's colours, readable on a phone, enlarged by a click.

`attnbook.plotting.style()` stores figures as SVG, drawn in black on white. Here each gets a dark
twin, of which a page shows one. Words, axes and grounds take the page's colours; lines and bars
keep their hue and become as light as they must be to be seen; what is a picture (a photograph, a
heat map, a colour bar) and what is drawn upon one keeps its colours, and so a scale its meaning.
"""

from __future__ import annotations

import math
import re
from html import escape, unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

from docutils import nodes
from sphinx.application import Sphinx

GROUND, INK = (20, 23, 27), (217, 222, 228)  # --pst-color-background and -text-base when dark
CONTRAST = 4.5  # of anything drawn, to the ground
GREY = 40  # a colour whose red, green and blue differ by less is a grey
PIXELS = 1.512  # a point on a wide page: 10 points are as large as the prose beside them
LETTERING = 9  # pixels: no lettering is smaller, on whatever screen

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
Box = tuple[float, float, float, float]
RGB = tuple[float, float, float]


def size(svg: str) -> tuple[float, float]:
    """Return the width and height of a figure in points."""
    found = re.search(r'<svg[^>]*? width="([\d.]+)pt" height="([\d.]+)pt"', svg)
    if not found:
        raise ValueError("a figure has no size in points: was it drawn by matplotlib?")
    return float(found[1]), float(found[2])


def letterings(svg: str) -> list[float]:
    """Return the size of each text of a figure in points; raised and lowered signs are left out."""
    return [100 * float(scale) for scale in re.findall(r"\) scale\(([\d.]+) -\1\)", svg)]


def narrowest(svg: str) -> int:
    """Return the width in pixels at which the smallest lettering of a figure is still readable."""
    return math.ceil(LETTERING * size(svg)[0] / min(letterings(svg), default=math.inf))


def title(svg: str) -> str:
    """Return the title of a figure: its first words in bold."""
    for text in re.split(r'(?=<g id="text_)', svg):
        if "Bold-" in text:
            lines = re.findall(r"<!-- (.*?) -->", text, re.DOTALL)
            return unescape(" ".join(lines)).replace("$", "")
    return ""


def dark(svg: str) -> str:
    """Return a figure that was drawn in black on white as it looks on a dark page."""
    ET.register_namespace("", SVG)
    ET.register_namespace("xlink", XLINK)
    root = ET.fromstring(svg)
    for said in root.findall(f"{{{SVG}}}metadata"):
        root.remove(said)
    root.set("fill", _hex(INK))  # matplotlib does not write what is black by default
    pictures = [_box(image) for image in root.iter(f"{{{SVG}}}image")]
    _recolour(root, pictures)
    return ET.tostring(root, encoding="unicode")


def _box(image: ET.Element) -> Box:
    """Return left, top, right and bottom of a picture, of which matplotlib turns y round."""
    x, y, width, height = (float(image.get(name, 0)) for name in ("x", "y", "width", "height"))
    numbers = [float(n) for n in re.findall(r"-?[\d.]+(?:e-?\d+)?", image.get("transform", ""))]
    if image.get("transform", "").startswith("matrix"):
        a, _, _, d, e, f = numbers
        ends = sorted((f + d * y, f + d * (y + height)))
        return e + a * x, ends[0], e + a * (x + width), ends[1]
    return x, -y, x + width, height - y


def _recolour(element: ET.Element, pictures: list[Box]) -> None:
    if element.get("id", "").startswith("QuadMesh") or _upon(element, pictures):
        element.set("fill", "#000000")
        return
    if style := element.get("style"):
        element.set("style", re.sub(r"#[0-9a-f]{6}\b", lambda c: dark_colour(c[0]), style))
    if element.tag == f"{{{SVG}}}defs" or "scale" in element.get("transform", ""):
        pictures = []  # places in here, such as those of a word's letters, are not the figure's
    for child in element:
        _recolour(child, pictures)


def _upon(element: ET.Element, pictures: list[Box]) -> bool:
    """Whether something is drawn upon a picture: it begins within one, not at its edge."""
    place = (
        re.match(r"M (-?[\d.]+) (-?[\d.]+)", element.get("d", ""))
        or re.match(r"translate\((-?[\d.]+) (-?[\d.]+)\)", element.get("transform", ""))
    )  # fmt: skip
    if place:
        x, y = float(place[1]), float(place[2])
    elif element.get("x") and element.get("y") and element.tag != f"{{{SVG}}}image":
        x, y = float(element.get("x", 0)), float(element.get("y", 0))
    else:
        return False
    return any(
        left + 1 < x < right - 1 and top + 1 < y < bottom - 1
        for left, top, right, bottom in pictures
    )


def dark_colour(colour: str) -> str:
    """Return a colour of a figure on white, #rrggbb, as it is on a dark ground.

    A grey trades places: white becomes the ground, black the ink, and what lies between comes
    nearer the ink, because on a dark ground a grey is harder to see. A hue is lightened until it
    stands out from the ground.
    """
    rgb = tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
    if max(rgb) - min(rgb) < GREY:
        light = (sum(rgb) / 3 / 255) ** 1.5
        return _hex(tuple(light * g + (1 - light) * i for g, i in zip(GROUND, INK, strict=True)))
    steps = (tuple(c + (255 - c) * n / 50 for c in rgb) for n in range(51))
    return _hex(next(c for c in steps if contrast(c, GROUND) >= CONTRAST))


def contrast(one: RGB, other: RGB) -> float:
    """Return the contrast of two colours as WCAG defines it."""
    dim, bright = sorted(
        0.2126 * red + 0.7152 * green + 0.0722 * blue
        for red, green, blue in (map(_linear, one), map(_linear, other))
    )
    return (bright + 0.05) / (dim + 0.05)


def _linear(channel: float) -> float:
    channel /= 255
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4


def _hex(rgb: RGB) -> str:
    return "#" + "".join(f"{round(channel):02x}" for channel in rgb)


class Figure(nodes.General, nodes.Element):
    """A figure, and its two pictures as children: Sphinx copies them as it copies all."""


def make_figures(app: Sphinx, doctree: nodes.document) -> None:
    """Put a Figure in the place of each SVG that a notebook's cell put out."""
    for image in list(doctree.findall(_drawn)):
        path = Path(app.env.relfn2path(image["uri"], app.env.docname)[1])
        svg = path.read_text(encoding="utf-8")
        twin = path.with_name(f"{path.stem}-dark.svg")
        twin.write_text(dark(svg), encoding="utf-8")
        pictures = [
            nodes.image(uri=image["uri"]),
            nodes.image(uri=str(Path(image["uri"]).with_name(twin.name).as_posix())),
        ]
        facts = {"size": size(svg), "narrowest": narrowest(svg), "title": title(svg)}
        image.replace_self(Figure("", *pictures, alt=image.get("alt", ""), **facts))


def _drawn(node: nodes.Node) -> bool:
    if not (isinstance(node, nodes.image) and node["uri"].endswith(".svg")):
        return False
    while isinstance(node := node.parent, nodes.Element):
        if "cell_output" in node["classes"]:
            return True
    return False


def visit_figure(translator: Any, node: Figure) -> None:
    """Write the figure. It is a link to its picture, should there be no script to enlarge it."""
    builder = translator.builder
    light, dark = (
        f"{builder.imgpath}/{quote(builder.images[image['uri']])}" for image in node.children
    )
    width, height = (round(PIXELS * points) for points in node["size"])

    def image(source: str, mode: str) -> str:
        return (
            f'<img class="only-{mode}" src="{source}" width="{width}" height="{height}"'
            f' alt="{escape(node["alt"])}" loading="lazy" decoding="async"/>'
        )

    # What is written in the figure stays English: a Chinese page says below what is seen.
    zh = str(translator.config.language).startswith("zh")
    word = "放大" if zh else "Enlarge"
    name = escape(f"{word}: {node['title']}")
    said = f'<p class="figure-said" aria-hidden="true">{escape(node["alt"])}</p>\n' if zh else ""
    translator.body.append(
        f'<div class="book-figure" style="--narrowest: {node["narrowest"]}px">\n'
        f'<div class="figure-scroll">{image(light, "light")}{image(dark, "dark")}</div>\n'
        f'<a class="figure-enlarge" href="{light}" aria-label="{name}">{word}</a>\n</div>\n{said}'
    )
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect these steps to Sphinx."""
    app.add_node(Figure, html=(visit_figure, None))
    # Before Sphinx gathers the pictures of a page.
    app.connect("doctree-read", make_figures, priority=400)
    app.add_css_file("figures.css")
    app.add_js_file("figures.js")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
