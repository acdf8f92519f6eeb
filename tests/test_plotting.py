from __future__ import annotations

import io
import re

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import torch

from attnbook import plotting


@pytest.fixture(autouse=True)
def house_style():
    with mpl.rc_context({"backend": "agg"}):
        plotting.style()
        yield
        plt.close("all")


def words(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_chinese_dates_can_be_drawn():
    figure, ax = plt.subplots()
    ax.set_title("2026年11月22日星期日 一二三四五六")
    figure.canvas.draw()  # a missing glyph warns, and a warning is an error


def test_bold_titles_find_their_fonts(caplog):
    figure, ax = plt.subplots()
    ax.set_title("Weights", fontweight="bold")
    figure.canvas.draw()
    assert not caplog.records


def test_heatmap_names_rows_and_columns():
    _, ax = plt.subplots()
    plotting.heatmap(ax, torch.tensor([[0.0, 1.0], [0.25, 0.5]]), ["a", "b"], ["c", "d"])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["c", "d"]
    assert words(ax) == []


def test_values_are_readable_in_their_cells():
    _, ax = plt.subplots()
    matrix = torch.tensor([[0.0, 1.0], [0.25, 2 / 3]], requires_grad=True)
    plotting.heatmap(ax, matrix, ["a", "b"], ["c", "d"], values=True)
    assert words(ax) == ["0", "1", "0.25", "0.67"]
    assert [text.get_color() for text in ax.texts[:2]] == ["white", "black"]  # on dark, on light


def test_signed_map_is_centred_at_zero():
    _, ax = plt.subplots()
    plotting.heatmap(ax, torch.tensor([[-2.0, 1.0]]), ["a"], ["c", "d"], signed=True)
    assert ax.images[0].get_clim() == (-2, 2)


def test_stages_show_the_shapes_of_what_they_are_given():
    figure = plotting.stages([("x", torch.zeros(3, 2)), "times W", ("y", torch.ones(3, 4))])
    left, arrow, right = figure.axes
    assert (left.get_title(loc="center"), left.get_xlabel()) == ("x", "(3, 2)")
    assert (right.get_title(loc="center"), right.get_xlabel()) == ("y", "(3, 4)")
    assert "times W" in words(arrow)


def test_band_is_one_standard_deviation_either_side():
    _, ax = plt.subplots()
    runs = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    plotting.band(ax, [0, 1], runs, "label", 1)
    assert ax.lines[0].get_ydata().tolist() == [2, 4]
    low, high = (ax.collections[0].get_paths()[0].vertices[:, 1].min(), runs.std(0)[1] + 4)
    assert low == pytest.approx(2 - 2**0.5) and high == pytest.approx(4 + 8**0.5)


def documented(x: int) -> int:
    """Say what it does."""
    # why it does it
    return x + 1


class Documented:
    """A class."""

    def method(self) -> None:
        """Do nothing."""


def test_show_source_leaves_out_docstrings_and_nothing_else():
    shown = plotting.show_source(documented).data
    assert shown == (
        "```python\ndef documented(x: int) -> int:\n    # why it does it\n    return x + 1\n```"
    )
    assert '"""' not in plotting.show_source(Documented).data
    assert plotting.show_source(Documented.method).data.startswith("```python\ndef method")


def test_lit_is_bright_where_the_weight_is():
    photo = torch.ones(3, 4, 6)
    picture = plotting.lit(photo, torch.tensor([[0.0, 0.5, 1.0], [0.0, 0.0, 0.0]]))
    assert picture.shape == (4, 6, 3)
    assert picture[0, :, 0].tolist() == pytest.approx([0.08, 0.08, 0.54, 0.54, 1, 1])
    assert picture[2:].eq(0.08).all()


def test_gallery_shows_each_picture_with_its_title():
    figure = plt.figure()
    rows = {"first": (torch.zeros(2, 8, 8), [3, 5]), "second": (torch.zeros(1, 8, 8), ["x"])}
    plotting.gallery(rows, figure=figure)
    assert [ax.get_title(loc="center") for ax in figure.axes] == ["3", "5", "x", ""]
    assert [len(ax.images) for ax in figure.axes] == [1, 1, 1, 0]
    assert "second" in words(figure.axes[2])


def test_pictures_may_lie_anywhere_and_have_gradients(device):
    photo = torch.ones(3, 4, 6, device=device, requires_grad=True)
    weights = torch.rand(2, 3, device=device, requires_grad=True)
    plt.imshow(plotting.lit(photo, weights).numpy())
    plotting.gallery({"row": (photo, ["a", "b", "c"])}, figure=plt.figure())


def svg(picture: torch.Tensor, **arguments: object) -> str:
    figure, ax = plt.subplots(figsize=(4, 2))
    ax.imshow(picture.numpy(), **arguments)
    figure.suptitle("Title")
    file = io.BytesIO()
    figure.savefig(file, format="svg")
    return file.getvalue().decode()


def test_figures_are_the_same_twice_and_have_a_margin(tmp_path):
    plt.plot([1, 2])
    matrix = torch.eye(3)
    first = svg(matrix)
    assert first == svg(matrix)
    assert 'width="300pt" height="156pt" viewBox="-6 -6 300 156"' in first
    assert "dc:date" not in first
    plt.savefig(tmp_path / "figure.svg")
    assert (tmp_path / "figure.svg").read_text(encoding="utf-8") == first


def test_photographs_are_jpeg_and_heat_maps_are_exact():
    torch.manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 20, 20), 400, mode="bicubic")
    photo = smooth[0].permute(1, 2, 0).clamp(0, 1)
    assert "data:image/jpeg" in svg(photo)
    assert "data:image/png" in svg(torch.rand(20, 20))
    see_through = torch.cat([photo, torch.full((400, 400, 1), 0.5)], -1)
    assert "data:image/png" in svg(see_through)
    assert len(re.findall("<image", svg(photo))) == 1


def test_diagram_has_its_boxes_and_arrows():
    boxes = {"a": (0, 0, "below"), "b": (1, 1, "above\n(2)"), "c": (-1, 1, "beside")}
    figure = plotting.diagram(boxes, [("a", "b", "goes to"), ("a", "c", "")])
    (ax,) = figure.axes
    texts = [text for text in ax.texts if text.get_text()]
    assert [text.get_text() for text in texts] == ["below", "above\n(2)", "beside", "goes to"]
    arrows = [text.arrow_patch for text in ax.texts if getattr(text, "arrow_patch", None)]
    assert len(arrows) == 2
    below, above = (text.get_bbox_patch().get_window_extent() for text in texts[:2])
    assert below.y1 < above.y0 and not below.overlaps(above)
