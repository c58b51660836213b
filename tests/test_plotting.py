"""Pictures: what is written into them, and what is refused."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.axes import Axes

from utils.plotting import draw_bars, draw_lines, draw_matrix, new_figure, show


@pytest.fixture
def axes() -> Iterator[Axes]:
    figure, (axes,) = new_figure()
    yield axes
    plt.close(figure)


def written(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_matrix_shows_every_number_and_hidden_scores_as_minus_infinity(axes):
    draw_matrix(axes, torch.tensor([[1.0, float("-inf")], [0.25, -2.0]]), ["a", "b"], ["c", "d"], "title")
    assert written(axes) == ["1.00", "−∞", "0.25", "-2.00"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["c", "d"]


def test_matrix_of_one_value_is_as_bright_as_its_limits_say(axes):
    draw_matrix(axes, torch.ones(2, 2), [], [], limits=(0, 1))
    assert axes.images[0].get_clim() == (0, 1)
    assert all(text.get_color() == "black" for text in axes.texts)  # dark text on a bright cell


def test_matrix_of_hidden_scores_only(axes):
    draw_matrix(axes, torch.full((1, 2), float("-inf")), [], [])
    assert written(axes) == ["−∞", "−∞"]


@pytest.mark.parametrize(("rows", "columns"), [(["a"], ["c", "d"]), (["a", "b"], ["c"])])
def test_labels_that_do_not_fit_the_matrix_are_refused(axes, rows, columns):
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        draw_matrix(axes, torch.eye(2), rows, columns)


def test_lines_are_told_apart_by_more_than_colour(axes):
    draw_lines(axes, [1, 2], {"a": [1, 2], "b": [2, 1], "c": [0, 0]})
    assert len({line.get_linestyle() for line in axes.lines}) == len({line.get_marker() for line in axes.lines}) == 3
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b", "c"]


def test_long_curves_have_no_markers(axes):
    draw_lines(axes, range(100), {"loss": range(100)})
    assert axes.lines[0].get_marker() == ""
    assert axes.get_legend() is None


def test_bars_carry_their_numbers(axes):
    draw_bars(axes, torch.tensor([0.2, 0.8]), ["a", "b"], spread=torch.tensor([[0.1, 0.7], [0.3, 0.9]]))
    assert written(axes) == ["0.20", "0.80"]


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_picture_without_a_text_is_refused(alt):
    figure, _ = new_figure()
    with pytest.raises(ValueError, match="text"):
        show(figure, alt)
    plt.close(figure)
