"""What the book needs to know about the chapters, read from the notebooks themselves.

Times, prerequisites and symbols stand in each notebook's own tables. They are read at build time, so the book can't
fall behind the notebooks.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

TITLE = re.compile(r"\A# (\d+) · (.+)$", re.M)
SYMBOLS = re.compile(r"^\*\*Symbols\.?\*\*[^\n]*\n\n(?P<table>(?:\|[^\n]*\|\n?)+)", re.M)
SYMBOL_COLUMNS = ["symbol", "variable", "what it is", "shape"]


class BookError(RuntimeError):
    """The book can't be built; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Symbol:
    """One row of a chapter's symbol table, as Markdown."""

    symbol: str
    variable: str
    meaning: str
    shape: str


@dataclass(frozen=True)
class Chapter:
    """One notebook.

    Attributes:
        path: the notebook's file.
        notebook: its cells.
        number: 1, 2, …
        title: without the number.
        facts: the table under the title ("You need", "Time", …), as Markdown.
        symbols: the rows of its symbol table.
    """

    path: Path
    notebook: NotebookNode
    number: int
    title: str
    facts: dict[str, str]
    symbols: tuple[Symbol, ...]

    @property
    def page(self) -> str:
        """The page's source, relative to the root of the book."""
        return f"notebooks/{self.path.name}"


def rows_of(table: str) -> list[list[str]]:
    r"""The cells of a Markdown table, header first; the line of dashes is left out.

    Example:
        >>> rows_of("| a | b |\n|---|---|\n| `x` | $y$ |")
        [['a', 'b'], ['`x`', '$y$']]
    """
    lines = [line.strip() for line in table.strip().splitlines()]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in cells if not all(re.fullmatch(r":?-+:?", cell) for cell in row)]


def read_chapter(path: Path) -> Chapter:
    """A chapter with what its first cells say.

    Raises:
        BookError: the title, the table of facts or the symbol table is missing or has another form.
    """
    notebook = nbformat.read(path, as_version=4)
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    title = TITLE.search(texts[0]) if texts else None
    if title is None:
        raise BookError(f"{path.name}: the first cell should start with a title such as '# 3 · Causal attention'")
    facts = dict(row for row in rows_of("\n".join(re.findall(r"^\|.*\|$", texts[0], re.M))) if len(row) == 2)
    if missing := {"You need", "Time"} - set(facts):
        raise BookError(f"{path.name}: the table under the title lacks {', '.join(sorted(missing))}")
    tables = [rows_of(match["table"]) for match in map(SYMBOLS.search, texts) if match]
    if len(tables) != 1 or tables[0][0] != SYMBOL_COLUMNS or any(len(row) != 4 for row in tables[0]):
        raise BookError(f"{path.name}: expected one **Symbols** table with the columns {', '.join(SYMBOL_COLUMNS)}")
    return Chapter(path, notebook, int(title[1]), title[2], facts, tuple(Symbol(*row) for row in tables[0][1:]))


def read_chapters(folder: Path) -> list[Chapter]:
    """All chapters of a folder, in order.

    Raises:
        BookError: there are none, or one can't be read.
    """
    chapters = [read_chapter(path) for path in sorted(folder.glob("[0-9]*.ipynb"))]
    if not chapters:
        raise BookError(f"no notebooks in {folder.name}/")
    return chapters


def times_table(chapters: Iterable[Chapter]) -> str:
    """Chapter, what it needs and how long it takes, as a Markdown table with links as in ``notebooks/``."""
    lines = ["| chapter | you need | time |", "|---|---|---|"]
    for chapter in chapters:
        lines.append(
            f"| [{chapter.number} · {chapter.title}]({chapter.path.name}) | {chapter.facts['You need']} "
            f"| {chapter.facts['Time']} |"
        )
    return "\n".join(lines)


def symbols_table(chapters: Iterable[Chapter]) -> str:
    """All symbols of the course as a Markdown table, each once, with links to its chapters as in ``notebooks/``.

    Rows of several chapters are one where symbol and variable agree; texts that differ stand side by side.
    """
    merged: dict[tuple[str, str], list[tuple[Symbol, Chapter]]] = {}
    for chapter in chapters:
        for row in chapter.symbols:
            key = (re.sub(r",\\?\s*", ", ", row.symbol), row.variable)  # "$B,\ T$" and "$B, T$" look the same
            merged.setdefault(key, []).append((row, chapter))
    lines = ["| symbol | variable | what it is | shape | chapter |", "|---|---|---|---|---|"]
    for (symbol, variable), found in merged.items():
        meaning = one_text(row.meaning for row, _ in found)
        shape = one_text(row.shape for row, _ in found)
        links = ", ".join(f"[{chapter.number}]({chapter.path.name})" for _, chapter in found)
        lines.append(f"| {symbol} | {variable} | {meaning} | {shape} | {links} |")
    return "\n".join(lines)


def one_text(texts: Iterable[str]) -> str:
    """Different texts joined; one that another only continues is left out.

    Example:
        >>> one_text(["a number", "a number, here 6", "(T, d)"])
        'a number, here 6; (T, d)'
    """
    distinct = list(dict.fromkeys(texts))
    return "; ".join(t for t in distinct if not any(other != t and other.startswith(t) for other in distinct))
