"""The house style of the book's figures, and the few pictures that several chapters draw."""

from __future__ import annotations

import ast
import base64
import inspect
import io
import re
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from cycler import cycler
from einops import rearrange, repeat
from IPython.display import Markdown
from jaxtyping import Float
from matplotlib import cbook, colors, font_manager
from matplotlib.axes import Axes
from matplotlib.backend_bases import register_backend
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib_inline.config import InlineBackend
from PIL import Image
from torch import Tensor

# Okabe and Ito's colours, told apart by readers of any colour vision; markers and dashes repeat it.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
COLORS = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY, BLACK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (1, 2)))
MARGIN = 6  # points around a figure
WIDTH = 7.2  # inches: at the width of a page's column the text of a figure is as large as the prose


class Drawing(FigureCanvasSVG):
    """An SVG as the book stores it: the same twice, with a margin, and its photographs as JPEG."""

    def print_svg(self, filename: Any, *, metadata: Any = None, **others: Any) -> None:
        """Write the figure to a path or an open file."""
        text = io.StringIO()
        restore = others.get("bbox_inches_restore")  # of the others SVG makes no use
        metadata = {"Date": None, **(metadata or {})}
        super().print_svg(text, bbox_inches_restore=restore, metadata=metadata)
        svg = re.sub(r"data:image/png;base64,([^\"]+)", smaller, text.getvalue())
        # On one line: a notebook stores every line of it as a line of its own.
        svg = re.sub(r"\s*\n\s*", " ", re.sub(r">\s+<", "><", svg))
        width, height = (72 * inches + 2 * MARGIN for inches in self.figure.get_size_inches())
        ground = colors.to_hex(self.figure.get_facecolor())
        svg = re.sub(
            r'width="[\d.]+pt" height="[\d.]+pt" viewBox="[^"]*"([^>]*>)',
            f'width="{width:g}pt" height="{height:g}pt" '
            rf'viewBox="-{MARGIN} -{MARGIN} {width:g} {height:g}"\1'
            f'<path d="M -{MARGIN} -{MARGIN} h {width:g} v {height:g} h -{width:g} z" '
            f'style="fill: {ground}"/>',
            svg,
            count=1,
        )
        with cbook.open_file_cm(filename, "w", encoding="utf-8") as file:
            file.write(svg if cbook.file_requires_unicode(file) else svg.encode())


def smaller(png: re.Match[str]) -> str:
    """Return an embedded picture as JPEG where that is much smaller, as it is for photographs."""
    stored = base64.b64decode(png[1])
    picture, jpeg = Image.open(io.BytesIO(stored)), io.BytesIO()
    picture.convert("RGB").save(jpeg, "JPEG", quality=90, subsampling=0)
    opaque = "A" not in picture.mode or picture.getchannel("A").getextrema() == (255, 255)
    kind = "png"
    if opaque and 3 * len(jpeg.getvalue()) < len(stored):
        kind, stored = "jpeg", jpeg.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(stored).decode()}"


def style() -> None:
    """Switch matplotlib to the style of the book. Call it once, at the top of a chapter.

    Figures become SVG: sharp at any size, and the site makes a dark twin of each. The site also
    keeps all lettering at 9 pixels or more. A figure lettered in 10 points and up to 4.8 inches
    wide fits a screen of 360 pixels so; a wider one scrolls sideways there.
    """
    chinese = Path(__file__).parent / "fonts" / "NotoSansSC-dates.otf"
    fonts = font_manager.fontManager
    fonts.addfont(chinese)
    # It comes in one weight. Where no other is installed, every bold title would warn of that.
    fonts.ttflist.append(replace(fonts.ttflist[-1], weight=700))
    family = font_manager.FontProperties(fname=chinese).get_name()
    with warnings.catch_warnings():  # the notebook's own backend sets this off
        warnings.simplefilter("ignore", DeprecationWarning)
        inline = InlineBackend.instance()
        inline.set_trait("print_figure_kwargs", {"bbox_inches": None})  # all one width
        inline.set_trait("figure_formats", {"svg"})
    register_backend("svg", Drawing)
    plt.rcParams.update(
        {
            "axes.grid": False,
            "axes.prop_cycle": cycler(color=COLORS, marker=MARKERS, linestyle=DASHES),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "figure.constrained_layout.use": True,
            "figure.dpi": 144,
            "figure.figsize": (WIDTH, 3.2),
            "figure.titlesize": 11,
            "figure.titleweight": "bold",
            "font.family": ["DejaVu Sans", family],
            "font.size": 10,
            "image.cmap": "viridis",
            "legend.frameon": False,
            "lines.markersize": 5,
            "savefig.facecolor": "white",
            "svg.hashsalt": "attnbook",
        }
    )


def heatmap(
    ax: Axes,
    matrix: Tensor,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    values: bool = False,
    signed: bool = False,
) -> None:
    """Draw a (rows, columns) matrix as a heat map, a word on every row and column.

    Attention matrices have queries in rows and keys in columns. `values` writes each number into
    its cell, to two decimals; `signed` takes a map centred at zero, for numbers of both signs.
    """
    matrix = matrix.detach().float().cpu()
    limit = float(matrix.abs().max()) if signed else None
    cmap = "RdBu_r" if signed else "viridis"
    image = ax.imshow(
        matrix.numpy(), cmap=cmap, vmin=-limit if limit else None, vmax=limit, aspect="auto"
    )
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if values:
        write_values(ax, matrix, image)


def write_values(ax: Axes, matrix: Tensor, image: Any) -> None:
    """Write each number of the matrix into its cell, dark on light or light on dark."""
    for row, numbers in enumerate(matrix.tolist()):
        for column, number in enumerate(numbers):
            red, green, blue, _ = image.cmap(image.norm(number))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            text = f"{number:.2f}".rstrip("0").rstrip(".")
            ax.text(column, row, text, ha="center", va="center", color="white" if dark else "black")


def stages(steps: Sequence[tuple[str, Tensor] | str], *, signed: bool = False) -> Figure:
    """Draw a computation from left to right: matrices with their numbers and shapes, and arrows.

    A step is a pair of a name and its matrix, or the name of what is done between two matrices,
    written over an arrow. The shapes are read off the matrices, so they cannot disagree with them.
    """
    widths = [1.1 if isinstance(step, str) else max(step[1].shape[-1], 1.4) for step in steps]
    rows = max(step[1].shape[0] for step in steps if not isinstance(step, str))
    figure, axes = plt.subplots(
        1, len(steps), figsize=(WIDTH, 0.9 + 0.42 * rows), width_ratios=widths
    )
    for ax, step in zip(axes, steps, strict=True):
        if isinstance(step, str):
            ax.axis("off")
            arrow = {"arrowstyle": "->", "color": BLACK, "lw": 1.2}
            ax.annotate("", (1, 0.5), (0, 0.5), xycoords="axes fraction", arrowprops=arrow)
            ax.text(0.5, 0.56, step, ha="center", va="bottom", fontsize=10, transform=ax.transAxes)
            continue
        name, matrix = step
        heatmap(
            ax, matrix, [""] * matrix.shape[0], [""] * matrix.shape[1], values=True, signed=signed
        )
        ax.set_aspect("equal")
        ax.set_title(name, fontsize=10, fontweight="normal")
        ax.set_xlabel(str(tuple(matrix.shape)), fontsize=10)
    return figure


def diagram(
    boxes: dict[str, tuple[float, float, str]], arrows: Sequence[tuple[str, str, str]]
) -> Figure:
    """Draw boxes, each at its (x, y) with its text, and arrows from one to another.

    An arrow is (from, to, what is written beside its middle). y counts rows, from the bottom; one
    unit of x is about as wide as ten characters.
    """
    places = {name: (x, y) for name, (x, y, _) in boxes.items()}
    x, y = zip(*places.values(), strict=True)
    figure, ax = plt.subplots(figsize=(WIDTH, 0.85 * (max(y) - min(y) + 1)))
    ax.set(xlim=(min(x) - 0.8, max(x) + 0.8), ylim=(min(y) - 0.4, max(y) + 0.4))
    ax.axis("off")
    look = {"boxstyle": "round,pad=0.4", "facecolor": "none", "edgecolor": BLACK}
    drawn = {
        name: ax.text(x, y, text, ha="center", va="center", bbox=look)
        for name, (x, y, text) in boxes.items()
    }
    figure.canvas.draw()  # only then do the boxes, at which the arrows end, have their sizes
    for start, end, text in arrows:
        (x1, y1), (x2, y2) = places[start], places[end]
        arrow = {
            "arrowstyle": "->", "color": BLACK, "lw": 1.2, "shrinkA": 2, "shrinkB": 2,
            "patchA": drawn[start].get_bbox_patch(), "patchB": drawn[end].get_bbox_patch(),
        }  # fmt: skip
        ax.annotate("", (x2, y2), (x1, y1), arrowprops=arrow)
        ax.text((x1 + x2) / 2 + 0.08, (y1 + y2) / 2, text, ha="left", va="center")
    return figure


def band(ax: Axes, x: Sequence[float], runs: Tensor, label: str, number: int) -> None:
    """Draw the mean over seeds as a line and one standard deviation either side as a band.

    `runs` is (seeds, points); `number` picks colour, marker and dash.
    """
    runs = runs.detach().float().cpu()
    mean, sd = runs.mean(0), runs.std(0)
    color, every = COLORS[number], max(1, len(x) // 8)
    ax.plot(
        x, mean, color=color, marker=MARKERS[number], linestyle=DASHES[number], label=label,
        markevery=every,
    )  # fmt: skip
    ax.fill_between(x, mean - sd, mean + sd, color=color, alpha=0.2, linewidth=0)


def lit(photo: Float[Tensor, "color y x"], weights: Float[Tensor, "row column"]) -> Tensor:
    """Return the photograph, (y, x, color), lit by a map of weights and dark where they are 0."""
    photo, weights = photo.detach().cpu(), weights.detach().cpu()
    light = weights / weights.max()
    size = photo.shape[1] // light.shape[0], photo.shape[2] // light.shape[1]
    light = repeat(light, "row column -> (row y) (column x) 1", y=size[0], x=size[1])
    return rearrange(photo, "color y x -> y x color") * (0.08 + 0.92 * light)


def gallery(rows: dict[str, tuple[Tensor, Sequence[object]]], *, figure: Figure) -> None:
    """Draw rows of grey pictures: for each row's name its pictures and a title for each of them."""
    columns = max(len(pictures) for pictures, _ in rows.values())
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, (pictures, titles)) in zip(axes, rows.items(), strict=True):
        line[0].text(-0.15, 0.5, name, ha="right", va="center", transform=line[0].transAxes)
        for ax in line:
            ax.axis("off")
        shown = pictures.detach().float().cpu().numpy()
        for ax, picture, title in zip(line, shown, titles, strict=False):
            ax.imshow(picture, cmap="gray_r", vmin=0, vmax=1)
            ax.set_title(str(title), fontsize=10, fontweight="normal")


def show_source(thing: Callable[..., Any] | type) -> Markdown:
    """Return the source of a function, method or class of the package, without its docstrings."""
    source = textwrap.dedent(inspect.getsource(thing))
    lines: list[str | None] = list(source.splitlines())
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            docstring = node.body[0]
            for number in range(docstring.lineno - 1, docstring.end_lineno or docstring.lineno):
                lines[number] = None
    kept = "\n".join(line for line in lines if line is not None)
    return Markdown(f"```python\n{kept}\n```")
