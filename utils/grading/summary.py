"""One page about the class: how it did, which exercises were hard, and what was misunderstood."""

import io
import re
from collections import Counter
from collections.abc import Callable, Iterable
from html import escape
from statistics import mean, median
from urllib.parse import quote

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.checks import EXERCISES
from utils.checks.report import marked_up
from utils.grading.feedback import feedback_names, page
from utils.grading.results import StudentResult
from utils.grading.tables import (
    CHAPTERS,
    MAX_POINTS,
    Marks,
    by_name,
    chapter_of,
    handed_in,
    number,
    points_of,
    remarks_on,
    total,
)
from utils.plotting import BLUE, GREEN, ORANGE, PURPLE, RED

# Neighbouring chapters differ; yellow, the last of Okabe and Ito's colours, is too pale on white.
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, "#56B4E9")
INK = "#010203"  # stands for the page's own text colour
MOST_MISCONCEPTIONS = 12


def summary_page(results: Iterable[StudentResult], marks: Marks) -> str:
    """The page for the instructor.

    Example:
        >>> "<b>1</b> student" in summary_page([StudentResult("ada")], {})
        True
    """
    results = by_name(results)
    points = [points_of(result, marks) for result in results]
    totals = [total(p) for p in points]
    chapters = [c for c in CHAPTERS if any(c in handed_in(result) for result in results)]
    possible = sum(p for exercise_id, p in MAX_POINTS.items() if chapter_of(exercise_id) in chapters)
    parts = ["<h1>The class</h1>", _numbers(totals, chapters, possible)]
    if unprotected := [result.student for result in results if not result.is_protected]:
        parts.append(
            f'<p class="note"><b>Not protected.</b> The code of {len(unprotected)} of {len(results)} students ran '
            "without a sandbox: it could read and change what you can, these marks included.</p>"
        )
    waiting = sum(p is None for of_student in points for p in of_student.values())
    if waiting:
        parts.append(f'<p class="soft">Answers that wait for their marks in written.csv: {waiting}.</p>')
    if chapters:
        parts += [
            _success_rates(success_rates(results, points)),
            _histogram([100 * t / possible for t in totals], possible),
            _misconceptions(misconceptions(results)),
            _seconds([result.seconds for result in results]),
        ]
    parts.append(_students(results, points, totals, marks))
    return page("The class", "\n".join(parts))


def success_rates(results: list[StudentResult], points: list[dict[str, float | None]]) -> dict[str, float]:
    """By exercise, the share of the points that was earned by those who handed the chapter in.

    Written answers count once they are marked; exercises that nobody handed in are left out.

    Example:
        >>> results = [StudentResult("ada", written={"2.6": "a"}), StudentResult("sam")]
        >>> success_rates(results, [{"2.6": 3}, {"2.6": 0}])
        {'2.6': 0.75}
    """
    rates = {}
    for exercise_id, possible in MAX_POINTS.items():
        earned = [
            of_student[exercise_id] / possible
            for result, of_student in zip(results, points, strict=True)
            if chapter_of(exercise_id) in handed_in(result) and of_student.get(exercise_id) is not None
        ]
        if earned:
            rates[exercise_id] = mean(earned)
    return rates


def misconceptions(results: Iterable[StudentResult]) -> list[tuple[tuple[str, str], int]]:
    """How many students had each misconception, (exercise, name), commonest first.

    Example:
        >>> misconceptions([])
        []
    """
    counts = Counter(
        (exercise_id, name)
        for result in results
        for exercise_id, found in result.exercises.items()
        for name in found.misconceptions
    )
    order = list(MAX_POINTS)
    return sorted(counts.items(), key=lambda item: (-item[1], order.index(item[0][0]), item[0][1]))


# Parts of the page


def _numbers(totals: list[float], chapters: list[str], possible: int) -> str:
    said = f"<b>{len(totals)}</b> student{'s' * (len(totals) != 1)}"
    if chapters:
        middle, average = median(totals), mean(totals)
        said += (
            f" · mean <b>{average:.1f}</b> and median <b>{number(middle)}</b> of {possible} points"
            f" ({100 * average / possible:.0f} % and {100 * middle / possible:.0f} %)"
        )
        names = f"chapter {chapters[0]}" if len(chapters) == 1 else f"chapters {', '.join(chapters)}"
        return f'<p class="total">{said}</p><p class="soft">Handed in by at least one student: {names}.</p>'
    return f'<p class="total">{said}</p><p class="soft">No chapter was handed in.</p>'


def _success_rates(rates: dict[str, float]) -> str:
    def draw(axes: Axes) -> None:
        places, ticks, place = [], [], 0.0
        chapter = chapter_of(next(iter(rates)))
        for exercise_id, rate in rates.items():
            if chapter_of(exercise_id) != chapter:
                place += 0.8  # a gap between chapters
            chapter = chapter_of(exercise_id)
            colour = COLOURS[CHAPTERS.index(chapter) % len(COLOURS)]
            axes.bar(place, 100 * rate, width=0.8, color=colour)
            places.append(place)
            ticks.append(exercise_id)
            place += 1
        axes.set_xticks(places, ticks)
        axes.tick_params(axis="x", length=0, labelsize=8, rotation=90)
        axes.set_xlim(-0.8, places[-1] + 0.8)
        axes.set_ylim(0, 100)
        axes.set_ylabel("points earned, %")

    hardest = sorted(rates, key=rates.__getitem__)[:3]
    said = ", ".join(f"{exercise_id} ({100 * rates[exercise_id]:.0f} %)" for exercise_id in hardest)
    alt = f"A bar for each of {len(rates)} exercises. Lowest: {said}."
    return _figure(
        "success", 3.0, draw, "Success per exercise", f"Among those who handed the chapter in. Lowest: {said}.", alt
    )


def _histogram(percents: list[float], possible: int) -> str:
    counts = [0] * 10
    for percent in percents:
        counts[min(int(percent // 10), 9)] += 1

    def draw(axes: Axes) -> None:
        bars = axes.bar(range(10), counts, width=0.94, color=BLUE)
        axes.bar_label(bars, [str(c) if c else "" for c in counts], padding=2, color=INK, fontsize=9)
        axes.set_xticks([x - 0.5 for x in range(11)], [str(10 * x) for x in range(11)])
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.margins(y=0.15)
        axes.set_xlim(-0.55, 9.55)
        axes.set_xlabel(f"% of {possible} points")

    said = ", ".join(f"{10 * i} to {10 * i + 10} %: {count}" for i, count in enumerate(counts) if count)
    return _figure(
        "totals",
        2.4,
        draw,
        "Totals",
        "Number of students by the share of points they earned.",
        f"Students by total: {said}.",
    )


def _misconceptions(found: list[tuple[tuple[str, str], int]]) -> str:
    heading = "<h2>Commonest misconceptions</h2>"
    if not found:
        return f'{heading}<p class="soft">No answer behaves like a known misconception.</p>'
    found = found[:MOST_MISCONCEPTIONS]
    labels = [f"{exercise_id} {name}" for (exercise_id, name), _ in found]
    counts = [count for _, count in found]

    def draw(axes: Axes) -> None:
        colours = [COLOURS[CHAPTERS.index(chapter_of(i)) % len(COLOURS)] for (i, _), _ in found]
        bars = axes.barh(range(len(found)), counts, height=0.72, color=colours)
        axes.bar_label(bars, padding=3, color=INK, fontsize=9)
        axes.set_yticks(range(len(found)), labels)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(found) - 0.4, -0.6)  # the commonest on top
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)

    alt = "Students by misconception: " + ", ".join(f"{a}: {b}" for a, b in zip(labels, counts, strict=True)) + "."
    picture = _figure(
        "misconceptions", 0.5 + 0.27 * len(found), draw, "Commonest misconceptions", "Number of students.", alt
    )
    rows = "".join(
        f'<tr><td>{exercise_id}</td><td>{escape(name)}</td><td class="n">{count}</td>'
        f"<td>{marked_up(_sentence(exercise_id, name))}</td></tr>\n"
        for (exercise_id, name), count in found
    )
    head = '<tr><th>exercise</th><th>misconception</th><th class="n">students</th><th>what they were told</th></tr>'
    return f'{picture}<div class="wide"><table>\n{head}\n{rows}</table></div>'


def _sentence(exercise_id: str, name: str) -> str:
    known = EXERCISES[exercise_id].misconceptions if exercise_id in EXERCISES else ()
    return next((m.sentence for m in known if m.name == name), "")


def _seconds(seconds: list[float]) -> str:
    slowest_first = sorted(seconds, reverse=True)

    def draw(axes: Axes) -> None:
        axes.bar(range(len(seconds)), slowest_first, width=0.8 if len(seconds) < 80 else 1, color=GREEN)
        axes.set_xticks([])
        axes.set_xlim(-0.8, len(seconds) - 0.2)
        axes.set_xlabel("students, slowest first")
        axes.set_ylabel("seconds")

    said = f"Together {sum(seconds):.0f} s, median {median(seconds):.1f} s, at most {slowest_first[0]:.1f} s."
    return _figure("seconds", 2.0, draw, "Seconds per student", said, f"A bar per student, slowest first. {said}")


def _students(
    results: list[StudentResult], points: list[dict[str, float | None]], totals: list[float], marks: Marks
) -> str:
    files = feedback_names(result.student for result in results)
    rows = ""
    for result, of_student, all_points in zip(results, points, totals, strict=True):
        cells = "".join(
            f'<td class="n">{total(of_student, c) if c in handed_in(result) else "–"}</td>' for c in CHAPTERS
        )
        flags = "<br>".join(escape(flag) for flag in (*result.flags, *remarks_on(result, marks)))
        link = f'<a href="feedback/{quote(files[result.student])}">{escape(result.student) or "(no name)"}</a>'
        rows += (
            f'<tr><td>{link}</td><td class="n"><b>{all_points}</b></td>{cells}'
            f'<td class="n">{result.seconds:.1f}</td><td>{flags}</td></tr>\n'
        )
    chapters = "".join(f'<th class="n">{chapter}</th>' for chapter in CHAPTERS)
    head = f'<tr><th>student</th><th class="n">total</th>{chapters}<th class="n">seconds</th><th>flags</th></tr>'
    possible = sum(MAX_POINTS.values())
    note = f"Points in all, of {possible}, and in each chapter; – where it was not handed in."
    return f'<h2>Students</h2><p class="soft">{note}</p><div class="wide"><table>\n{head}\n{rows}</table></div>'


def _figure(name: str, height: float, draw: Callable[[Axes], None], title: str, caption: str, alt: str) -> str:
    """A picture as part of the page: the same input gives the same bytes, and its text has the page's colour."""
    looks = {
        "svg.hashsalt": name,  # ids within the page: the same on every run, others in every picture
        "svg.fonttype": "none",
        "font.size": 9,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    }
    file = io.StringIO()
    with matplotlib.rc_context(looks):
        figure = Figure(figsize=(9.2, height), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r' id="[a-zA-Z0-9.]+_[0-9]+"', "", svg)  # the same in every picture, and nothing points at them
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)
    return f"<h2>{escape(title)}</h2>\n<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
