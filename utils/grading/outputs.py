"""Everything that marking a class leaves behind in the folder for marks."""

from collections.abc import Sequence
from pathlib import Path

from utils.grading.atomic import remove_leftovers, write_text
from utils.grading.feedback import MARKER, feedback_names, feedback_page
from utils.grading.results import StudentResult
from utils.grading.summary import summary_page
from utils.grading.tables import named, read_written, remarks_on, unclaimed, up_to_date, write_grades, write_written


def write_outputs(out: Path, results: Sequence[StudentResult]) -> list[str]:
    """Write the tables, the pages and the summary; what was filled in in written.csv is read first, and kept.

    Args:
        out: the folder for marks; made if it is not there.
        results: one for each student.

    Returns:
        what the instructor should know about written.csv, one sentence each.

    Raises:
        ValueError: written.csv can't be understood. Nothing has been written then.
        OSError: a file can't be written. All others are whole.

    Example:
        >>> import tempfile
        >>> out = Path(tempfile.mkdtemp())
        >>> write_outputs(out, [StudentResult("ada")])
        []
        >>> sorted(path.name for path in out.iterdir())
        ['feedback', 'grades.csv', 'summary.html', 'written.csv']
    """
    marks = up_to_date(read_written(out / "written.csv"), results)
    pages = out / "feedback"
    pages.mkdir(parents=True, exist_ok=True)
    for folder in (out, pages):
        remove_leftovers(folder)

    write_written(out / "written.csv", marks)
    write_grades(out / "grades.csv", results, marks)
    names = feedback_names(result.student for result in results)
    for result in results:
        write_text(pages / names[result.student], feedback_page(result, marks))
    remove_stale_pages(pages, set(names.values()))
    write_text(out / "summary.html", summary_page(results, marks))

    remarks = [f"{named(result.student)}, {remark}" for result in results for remark in remarks_on(result, marks)]
    return remarks + unclaimed(marks, results)


def remove_stale_pages(folder: Path, current: set[str]) -> None:
    """Remove pages of students who are gone, and nothing that a person put there.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_text(folder / "ada.html", MARKER)
        >>> remove_stale_pages(folder, set())
        >>> list(folder.iterdir())
        []
    """
    marker = MARKER.encode()
    for path in list(folder.glob("*.html")):
        if path.name in current or path.is_symlink() or not path.is_file():
            continue
        with path.open("rb") as file:
            is_ours = file.read(len(marker)) == marker
        if is_ours:
            path.unlink()
