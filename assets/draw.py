"""Draws the SVG figures in this folder.

    python assets/draw.py            write all of them

The numbers in the figures are computed by the course's own code, and a test compares the files with what
this script draws, so a figure can't fall behind the code.
"""

import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from utils.attention import SimpleSelfAttention  # noqa: E402  (the repository is found first)

WORDS = ["Your", "journey", "starts", "with", "one", "step"]
INPUTS = torch.tensor(
    [
        [0.43, 0.15, 0.89],
        [0.55, 0.87, 0.66],
        [0.57, 0.85, 0.64],
        [0.22, 0.58, 0.33],
        [0.77, 0.25, 0.10],
        [0.05, 0.80, 0.55],
    ]
)  # (T, d), the course's running example
CELL = 34
LIGHT, DARK = (240, 246, 251), (0, 84, 140)  # one hue from light to dark: readable in grey and in any colour vision


def shade(value: float) -> tuple[str, str]:
    """Fill and text colour for a value between 0 and 1."""
    red, green, blue = (round(a + (b - a) * value) for a, b in zip(LIGHT, DARK, strict=True))
    return f"rgb({red},{green},{blue})", "#ffffff" if value > 0.5 else "#1b1b1b"


def label(x: float, y: float, text: str, size: int = 12, anchor: str = "middle", style: str = "") -> str:
    """One line of text, centred on (x, y) unless anchored otherwise."""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}"{style}>{escape(text)}</text>'


def matrix(x: float, y: float, values: Tensor, rows: Sequence[str], columns: Sequence[str], title: str) -> list[str]:
    """A table of coloured cells whose upper left corner is (x, y), with labels and a title above."""
    low, high = float(values.min()), float(values.max())
    parts = [label(x + CELL * values.shape[1] / 2, y - 44, title, 15, style=' font-weight="bold"')]
    for i, row in enumerate(values.tolist()):
        if rows:
            parts.append(label(x - 8, y + CELL * (i + 0.62), rows[i], anchor="end"))
        for j, value in enumerate(row):
            fill, ink = shade((value - low) / (high - low))
            left, top = x + CELL * j, y + CELL * i
            parts.append(
                f'<rect x="{left:g}" y="{top:g}" width="{CELL}" height="{CELL}" fill="{fill}" stroke="#ffffff"/>'
            )
            parts.append(label(left + CELL / 2, top + CELL * 0.62, f"{value:.2f}", 11, style=f' fill="{ink}"'))
    for j, name in enumerate(columns):
        corner = (x + CELL * (j + 0.5), y - 8)
        turned = f' transform="rotate(-35 {corner[0]:g} {corner[1]:g})"'
        parts.append(label(corner[0] - 4, corner[1], name, 11, "start", turned))
    return parts


def arrow(x: float, y: float, above: str, below: str) -> list[str]:
    """An arrow to the right with a line of text above and below."""
    return [
        f'<path d="M{x:g} {y:g} h50 m-9 -6 l9 6 l-9 6" fill="none" stroke="#D55E00" stroke-width="2.5"/>',
        label(x + 26, y - 14, above, 12),
        label(x + 26, y + 24, below, 12),
    ]


def attention_figure() -> str:
    """Inputs, scores, weights and context vectors of the running example, left to right."""
    attention = SimpleSelfAttention()
    scores = attention.get_scores(INPUTS)  # (T, d) -> (T, T)
    weights = attention.get_weights(scores)  # (T, T)
    contexts = attention.get_context_vectors(INPUTS, weights)  # (T, d)
    top, middle = 96, 96 + CELL * 3
    parts = matrix(76, top, INPUTS, WORDS, [], "inputs X")
    parts += arrow(190, middle, "dot", "products")
    parts += matrix(256, top, scores, [], WORDS, "scores X Xᵀ")
    parts += arrow(474, middle, "softmax", "per row")
    parts += matrix(540, top, weights, [], WORDS, "weights")
    parts += arrow(758, middle, "blend", "of X")
    parts += matrix(824, top, contexts, [], [], "context vectors")
    said = (
        "Attention on six words in four tables: the 6 by 3 inputs, their 6 by 6 dot products, the softmax of each "
        "row, and the 6 by 3 context vectors, each a blend of all inputs."
    )
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 950 330" role="img" '
            'aria-labelledby="title" font-family="Helvetica, Arial, sans-serif" fill="#1b1b1b">',
            f'<title id="title">{escape(said)}</title>',
            '<rect width="950" height="330" rx="10" fill="#ffffff"/>',
            *parts,
            "</svg>\n",
        ]
    )


FIGURES = {"attention.svg": attention_figure}


def main() -> None:
    """Write every figure beside this script."""
    for name, draw in FIGURES.items():
        (Path(__file__).parent / name).write_text(draw(), encoding="utf-8", newline="\n")
        print(f"assets/{name}")


if __name__ == "__main__":
    main()
