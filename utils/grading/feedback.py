"""One page per student: points, what was wrong and how to go on. Nothing in it depends on when it was made."""

import hashlib
import re
from collections.abc import Iterable
from html import escape

from utils.checks import WRITTEN
from utils.checks.report import COLOURS, SYMBOLS, marked_up
from utils.grading.results import StudentResult
from utils.grading.tables import CHAPTERS, MAX_POINTS, Mark, Marks, chapter_of, handed_in, points_of, shown, total

# How a later run knows the pages that it may remove.
MARKER = "<!doctype html>\n<!-- made by utils.grading, which replaces or removes this page -->\n"

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #ffffff; --soft: #5c5c5c; --line: #d4d4d4;
  --fill: #0072B2; --warn: #fff1d6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #17191c; --soft: #a8a8a8; --line: #43474d;
  --fill: #56B4E9; --warn: #43340f; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem;
  margin: 0 auto; padding: 1.5rem 1.2rem 4rem; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; }
a { color: var(--fill); } p { margin: .5em 0; } figure { margin: 1.6rem 0; } svg { width: 100%; height: auto; }
figcaption, .soft { color: var(--soft); font-size: .9rem; }
.total { font-size: 1.3rem; font-weight: 600; }
.note { background: var(--warn); border-left: 5px solid #E69F00; padding: .5em .9em; margin: 1em 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .35em .7em .35em 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; white-space: nowrap; } .n { text-align: right; white-space: nowrap; }
.bar { background: var(--line); border-radius: 3px; height: .75rem; min-width: 8rem; margin-top: .4rem; }
.bar > div { background: var(--fill); border-radius: 3px; height: 100%; }
code { font-size: .92em; }
.answer { white-space: pre-wrap; border: 1px solid var(--line); border-radius: 4px; padding: .6em .8em;
  margin: .5em 0; }
"""

NAMES_OF_DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|$)")  # no files on Windows


def feedback_names(students: Iterable[str]) -> dict[str, str]:
    """The file of each student's page, which is safe on every system and the same whoever else is there.

    A short name in small letters stays as it is. Every other one is cleaned and gets a hash of the exact name after
    a "~", which no name that stays as it is contains: so two of them never meet, even where case does not matter.

    Example:
        >>> feedback_names(["sam_lee", "sam lee"])
        {'sam_lee': 'sam_lee.html', 'sam lee': 'sam_lee~13166f313b.html'}
    """
    return {student: f"{_stem(student)}.html" for student in students}


def _stem(student: str) -> str:
    if re.fullmatch(r"[a-z0-9_][a-z0-9._-]{0,79}", student) and not NAMES_OF_DEVICES.match(student):
        return student
    cleaned = re.sub(r"^-|[^A-Za-z0-9_-]", "_", student[:80])
    exact = hashlib.sha256(student.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{cleaned}~{exact[:10]}"


def page(title: str, body: str) -> str:
    """A page that needs no other file and loads none.

    Example:
        >>> page("ada", "<p>1</p>").startswith(MARKER)
        True
    """
    # the policy is a second lock: should a text slip through unescaped, it still runs and loads nothing
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return shown(
        f'{MARKER}<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def feedback_page(result: StudentResult, marks: Marks) -> str:
    """The page of one student.

    Example:
        >>> "<h1>ada</h1>" in feedback_page(StudentResult("ada"), {})
        True
    """
    points, chapters = points_of(result, marks), handed_in(result)
    parts = [
        f"<h1>{escape(result.student)}</h1>",
        f'<p class="total">{total(points)} of {sum(MAX_POINTS.values())} points</p>',
        f'<p class="soft">{_in_those_chapters(points, chapters)}</p>',
    ]
    if not result.is_protected:
        parts.append('<p class="note"><b>Unprotected:</b> the code ran without a sandbox.</p>')
    if result.flags:
        flags = "".join(f"<br>{escape(flag)}" for flag in result.flags)
        parts.append(f'<p class="note"><b>About the files</b>{flags}</p>')
    parts.append(_overview(points, chapters))
    for chapter in chapters:
        parts.append(f'<h2 id="chapter-{chapter}">Chapter {chapter}</h2>')
        for exercise_id in MAX_POINTS:
            if chapter_of(exercise_id) != chapter:
                continue
            if exercise_id in result.exercises:
                parts.append(result.exercises[exercise_id].report._repr_html_())
            elif exercise_id in result.written:
                mark = marks.get((shown(result.student), exercise_id), Mark())
                parts.append(_written(exercise_id, result.written[exercise_id], mark))
    return page(f"Feedback for {result.student}", "\n".join(parts))


def _in_those_chapters(points: dict[str, float | None], chapters: list[str]) -> str:
    if not chapters:
        return "No chapter was handed in."
    if len(chapters) == len(CHAPTERS):
        said = f"All {len(CHAPTERS)} chapters were handed in."
    else:
        possible = sum(_possible(chapter) for chapter in chapters)
        said = f"Handed in: chapter{'s' * (len(chapters) > 1)} {', '.join(chapters)}, worth {possible} points."
    waiting = [exercise_id for exercise_id, p in points.items() if p is None]
    return said + (f" Read by a person, and not marked yet: {', '.join(waiting)}." if waiting else "")


def _possible(chapter: str) -> int:
    return sum(p for exercise_id, p in MAX_POINTS.items() if chapter_of(exercise_id) == chapter)


def _overview(points: dict[str, float | None], chapters: list[str]) -> str:
    rows = ""
    for chapter in CHAPTERS:
        earned, possible = total(points, chapter), _possible(chapter)
        if chapter in chapters:
            name = f'<a href="#chapter-{chapter}">Chapter {chapter}</a>'
            bar = f'<div class="bar" aria-hidden="true"><div style="width:{100 * earned / possible:.1f}%"></div></div>'
        else:
            name, bar = f"Chapter {chapter}", '<span class="soft">not handed in</span>'
        rows += (
            f'<tr><td style="white-space:nowrap">{name}</td><td style="width:70%">{bar}</td>'
            f'<td class="n">{earned} of {possible}</td></tr>\n'
        )
    return f"<table>\n{rows}</table>"


def _written(exercise_id: str, answer: str, mark: Mark) -> str:
    exercise, points = WRITTEN[exercise_id], mark.points(exercise_id)
    if points is None:
        status, said = "open", "not marked yet"
    else:
        status = "passed" if points == exercise.points else "failed"
        said = f"{points:g} of {exercise.points} points"
    comment = ""
    if mark.comment and points is not None:
        comment = f'<p style="white-space:pre-wrap"><b>→</b> {marked_up(mark.comment)}</p>'
    shown_answer = escape(answer.strip()) or '<span class="soft">Nothing written.</span>'
    return (
        f'<div style="border-left:5px solid {COLOURS[status]};padding:.3em .9em;margin:.3em 0;max-width:52em">'
        f'<p style="margin:.2em 0"><b style="color:{COLOURS[status]}">{SYMBOLS[status]}</b> '
        f"<b>Exercise {exercise_id} · {escape(exercise.title)}: {said}</b></p>{comment}"
        f'<div class="answer" dir="auto">{shown_answer}</div></div>'
    )
