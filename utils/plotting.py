"""Pictures for the notebooks: matrices, bars and curves, readable in every theme and with any colour vision.

Every picture is shown through ``show``, which asks for a text that says what is to be seen. Figures are
never compared between machines, so the cells that draw them print the numbers that matter as well.
"""

import io
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

# Okabe and Ito's palette: told apart by readers with any colour vision
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#7f7f7f"


def new_figure(width: float = 7.0, height: float = 3.0, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of that size in inches, with ``columns`` plots side by side.

    Example:
        >>> figure, axes = new_figure(columns=2)
        >>> len(axes)
        2
    """
    figure, axes = plt.subplots(1, columns, figsize=(width, height), squeeze=False, layout="constrained")
    return figure, list(axes[0])


def draw_matrix(
    axes: Axes,
    matrix: Tensor,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str = "",
    decimals: int = 2,
    turned: bool = False,
    limits: tuple[float, float] | None = None,
) -> None:
    """A matrix as coloured cells with the numbers inside; -inf, a hidden score, is a grey cell.

    Args:
        axes: where to draw.
        matrix: (number of rows, number of columns).
        rows, columns: their labels; ``[]`` for none.
        title: above the matrix.
        decimals: of the numbers in the cells.
        turned: write the column labels upright, where cells are narrow.
        limits: the values of the darkest and the brightest colour; those of the matrix if left out.

    Raises:
        ValueError: the labels don't fit the matrix.

    Example:
        >>> import torch
        >>> _, (axes,) = new_figure()
        >>> draw_matrix(axes, torch.eye(2), ["a", "b"], ["c", "d"])
    """
    if len(rows) not in (0, len(matrix)) or len(columns) not in (0, matrix.shape[-1]):
        raise ValueError(f"matrix of shape {tuple(matrix.shape)} with {len(rows)} row and {len(columns)} column labels")
    values = matrix.detach().cpu().double()
    is_shown = values.isfinite()
    if limits is None:
        limits = tuple(v.item() for v in values[is_shown].aminmax()) if is_shown.any() else (0.0, 1.0)
    low, high = limits
    colours = plt.get_cmap("cividis").with_extremes(bad="#d9d9d9")  # cividis runs from dark to light
    axes.imshow(np.ma.masked_invalid(values.numpy()), cmap=colours, vmin=low, vmax=high, aspect="auto")
    for (i, j), value in np.ndenumerate(values.numpy()):
        colour = "black" if value > (low + high) / 2 or not np.isfinite(value) else "white"
        text = f"{value:.{decimals}f}" if np.isfinite(value) else "−∞"
        axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=8 if turned else 9)
    axes.set_xticks(range(len(columns)), columns, rotation=90 if turned else 0)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.set_title(title, fontsize=11)


def draw_lines(
    axes: Axes, x: Sequence[float], lines: Mapping[str, Sequence[float]], title: str = "", xlabel: str = ""
) -> None:
    """One line per name, told apart by colour and dashes, and by markers where there are few points.

    Args:
        axes: where to draw.
        x: the same for every line.
        lines: name -> one number per entry of ``x``.
        title: above the plot.
        xlabel: below it.

    Example:
        >>> _, (axes,) = new_figure()
        >>> draw_lines(axes, [1, 2, 3], {"squares": [1, 4, 9]})
    """
    styles = zip((BLUE, RED, GREEN, ORANGE, PURPLE), ("-", "--", "-.", ":", "-"), "osD^v", strict=True)
    for (name, y), (colour, dashes, marker) in zip(lines.items(), styles, strict=False):
        shown = marker if len(x) <= 20 else ""
        axes.plot(x, y, color=colour, linestyle=dashes, marker=shown, markersize=5, label=name)
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(xlabel)
    axes.set_title(title, fontsize=11)


def draw_bars(
    axes: Axes,
    heights: Tensor,
    labels: Sequence[str],
    title: str = "",
    colour: str = BLUE,
    decimals: int = 2,
    spread: Tensor | None = None,
) -> None:
    """One bar per label with its number above (below, where negative).

    Args:
        axes: where to draw.
        heights: (number of labels,).
        labels: under the bars.
        title: above the plot.
        colour: of all bars.
        decimals: of the numbers at the bars.
        spread: (2, number of labels), the lowest and highest value behind each bar, drawn as a black line.

    Example:
        >>> import torch
        >>> _, (axes,) = new_figure()
        >>> draw_bars(axes, torch.tensor([0.2, 0.8]), ["a", "b"])
    """
    errors = None if spread is None else [(heights - spread[0]).tolist(), (spread[1] - heights).tolist()]
    bars = axes.bar(range(len(labels)), heights.tolist(), color=colour, yerr=errors, capsize=4)
    axes.bar_label(bars, fmt=f"%.{decimals}f", padding=2, fontsize=9)
    axes.set_xticks(range(len(labels)), labels)
    axes.margins(y=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=11)


def show(figure: Figure, alt: str) -> None:
    """Show a finished figure, with ``alt`` for readers who can't see it, and close it.

    The picture is on white ground, so that it reads the same in light and dark themes and on paper.

    Raises:
        ValueError: ``alt`` is empty.

    Example:
        >>> figure, _ = new_figure()
        >>> show(figure, "an empty plot")  # doctest: +SKIP
    """
    if not alt.strip():
        raise ValueError("a figure needs a text that says what is to be seen")
    picture = io.BytesIO()
    # without the version of matplotlib inside, the same picture is the same file
    figure.savefig(picture, format="png", dpi=110, facecolor="white", metadata={"Software": None})
    plt.close(figure)
    data = {"image/png": picture.getvalue(), "text/plain": alt}
    display(data, raw=True, metadata={"image/png": {"alt": alt}})
