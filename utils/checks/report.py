"""What a learner sees after a check: points, one row per part, and a sentence where something is wrong."""

from dataclasses import dataclass
from html import escape

SYMBOLS = {"passed": "✓", "failed": "✗", "open": "○"}
# Okabe and Ito's palette: told apart by readers with any colour vision, on light and dark ground
COLOURS = {"passed": "#009E73", "failed": "#D55E00", "open": "#7f7f7f"}


@dataclass(frozen=True)
class Row:
    """One part of an exercise. ``status`` is "passed", "failed" or "open" (not attempted yet)."""

    title: str
    points: int
    max_points: int
    status: str
    fault: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Report:
    """The answer of ``check``.

    ``repr(report)`` is the number of points, which is how nbgrader reads partial credit;
    ``print(report)`` is the text form, and notebooks show the HTML form. All three depend on nothing but
    the answer: no times, addresses or random numbers.

    Example:
        >>> Report("1.1", "The dot product", "", (Row("values", 2, 2, "passed"),))
        2
    """

    exercise_id: str
    title: str
    summary: str
    rows: tuple[Row, ...]
    teaching: tuple[str, ...] = ()

    @property
    def points(self) -> int:
        """Points earned."""
        return sum(row.points for row in self.rows)

    @property
    def max_points(self) -> int:
        """Points there are."""
        return sum(row.max_points for row in self.rows)

    @property
    def status(self) -> str:
        """ "passed" when every row is, "open" when nothing was attempted, else "failed"."""
        states = {row.status for row in self.rows}
        return states.pop() if len(states) == 1 else "failed"

    @property
    def messages(self) -> list[str]:
        """Everything the report says beyond points: teaching first, then faults and hints."""
        said = [*self.teaching, self.summary]
        said += [text for row in self.rows for text in (row.fault, row.hint)]
        return list(dict.fromkeys(text for text in said if text))

    def __repr__(self) -> str:
        return str(self.points)

    def heading(self) -> str:
        """The first line of both forms."""
        name = f"Exercise {self.exercise_id}" + (f" · {self.title}" if self.title else "")
        return f"{name}: {self.points} of {self.max_points} points" if self.rows else name

    def __str__(self) -> str:
        lines = [f"{SYMBOLS[self.status]} {self.heading()}"]
        lines += [f"  → {text}" for text in (*self.teaching, self.summary) if text]
        for row in self.rows:
            lines.append(f"  {SYMBOLS[row.status]} {row.title} ({row.points}/{row.max_points})")
            lines += [f"      {text}" for text in (row.fault, row.hint) if text]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        colour = COLOURS[self.status]
        said = "".join(
            f'<p style="margin:.3em 0"><b>→</b> {marked_up(text)}</p>'
            for text in (*self.teaching, self.summary)
            if text
        )
        rows = "".join(html_row(row) for row in self.rows)
        return (
            f'<div role="status" style="border-left:5px solid {colour};padding:.3em .9em;margin:.3em 0;'
            f'text-align:left;max-width:52em">'
            f'<p style="margin:.2em 0"><b style="color:{colour}">{SYMBOLS[self.status]}</b> '
            f"<b>{escape(self.heading())}</b></p>{said}"
            f'<ul style="list-style:none;margin:.3em 0;padding:0">{rows}</ul></div>'
        )


def html_row(row: Row) -> str:
    """One part as a list item."""
    details = "".join(
        f'<br><span style="margin-left:1.6em;display:inline-block">{marked_up(text)}</span>'
        for text in (row.fault, row.hint)
        if text
    )
    return (
        f'<li style="margin:.15em 0"><b style="color:{COLOURS[row.status]}">{SYMBOLS[row.status]}</b> '
        f"{marked_up(row.title)} ({row.points}/{row.max_points}){details}</li>"
    )


def marked_up(text: str) -> str:
    """HTML-escaped, with `code` between backticks set as code.

    Example:
        >>> marked_up("use `dim=-1` & go")
        'use <code>dim=-1</code> &amp; go'
    """
    pieces = escape(text).split("`")
    if len(pieces) % 2 == 0:  # an odd backtick is just a backtick
        return escape(text)
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(pieces))
