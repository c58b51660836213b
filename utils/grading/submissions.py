"""From a folder of downloads to students and their notebooks. Nothing here runs or believes what it reads."""

import codecs
import contextlib
import json
import os
import re
import stat
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

from utils.checks import EXERCISES
from utils.grading.course import ChapterFacts, chapters, names_of, plain
from utils.release import ANSWER, CHECK, WRITTEN

MAX_FILE = 32 * 2**20
MAX_CELLS = 3000
MAX_CODE = 4 * 2**20  # characters in all cells together
PASSED_OVER = {"__MACOSX"}  # and every hidden folder, such as .ipynb_checkpoints
GRADE_ID = re.compile(r"(answer|check|written)-(\d{1,2})-(\d{1,2})")
COPY_NUMBER = re.compile(r"\((\d{1,6})\)|-(\d{1,6})$")
CELL_MAGIC = re.compile(r"\A(?:%%.*\n\s*)+")
COPY_OF = re.compile(r"^(copy of|kopie van|kopie von|copie de|copia de)\s+", re.I)


class UnreadableError(ValueError):
    """A file that is no notebook; the text says what it is."""


@dataclass(frozen=True)
class CodeCell:
    """A code cell as handed in: its text, the exercise it is marked with, and whether it may run."""

    source: str
    exercise: str | None
    is_own: bool


@dataclass(frozen=True)
class HandedIn:
    """A chapter's notebook as handed in.

    Attributes:
        chapter: "3".
        file: where it lies, relative to the folder of submissions.
        code: its code cells, in order.
        written: by exercise, what was answered in words.
    """

    chapter: str
    file: str
    code: tuple[CodeCell, ...]
    written: dict[str, str]


@dataclass
class Submission:
    """All that one student handed in.

    Attributes:
        student: folder name, or the part of a flat file's name before the chapter.
        files: the notebooks that were found, relative to the folder of submissions.
        flags: what the instructor should know.
    """

    student: str
    files: list[Path] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)


def find_submissions(folder: Path, without: Path | None = None) -> list[Submission]:
    """All students in a folder: one folder each, or flat files as a learning platform exports them, or both.

    Args:
        folder: where the downloads lie.
        without: a folder to pass over (where the marks go).

    Raises:
        NotADirectoryError: there is no such folder.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"expected a folder of submissions, found none at {folder}")
    found: dict[str, Submission] = {}
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.name.startswith(".") or entry.name in PASSED_OVER or (without and path.resolve() == without.resolve()):
            continue
        is_notebook = path.suffix.lower() == ".ipynb"
        if entry.is_symlink() and (is_notebook or entry.is_dir()):
            student, _ = student_of(path, folder) if is_notebook else (entry.name, "")
            submission = found.setdefault(student, Submission(student))
            submission.flags.append(f"{entry.name} is a link; links are not followed")
        elif entry.is_dir():
            submission = found.setdefault(entry.name, Submission(entry.name))
            collect(path, folder, submission)
        elif is_notebook:
            student, flag = student_of(path, folder)
            submission = found.setdefault(student, Submission(student))
            submission.files.append(path.relative_to(folder))
            submission.flags += [flag] if flag else []
    for submission in found.values():
        if not submission.files:
            submission.flags.append("no notebook was handed in")
    return list(found.values())


def collect(path: Path, folder: Path, submission: Submission) -> None:
    """All notebooks below a student's folder; links are flagged, not followed."""
    for place, names, files in os.walk(path):
        names[:] = sorted(name for name in names if not name.startswith(".") and name not in PASSED_OVER)
        for name in [*names, *sorted(files)]:
            file = Path(place, name)
            is_notebook = file.suffix.lower() == ".ipynb" and not name.startswith(".")
            if file.is_symlink() and (is_notebook or name in names):
                submission.flags.append(f"{file.relative_to(folder)} is a link; links are not followed")
            elif is_notebook and name in files:
                submission.files.append(file.relative_to(folder))


def student_of(path: Path, folder: Path) -> tuple[str, str]:
    """The student that a flat file belongs to, and a flag where that is a guess.

    Example:
        >>> student_of(Path("in/lovelace_ada_12345_03_causal_attention (1).ipynb"), Path("in"))
        ('lovelace_ada_12345', '')
    """
    name = COPY_OF.sub("", path.stem)
    written_with_underscores = re.sub(r"[ -]", "_", name.lower())  # as long as the name, so places agree
    for facts in chapters().values():
        start = written_with_underscores.find(facts.stem)
        if start > 0:
            return name[:start].rstrip(" _-.") or name, ""
        if start == 0:
            return folder.resolve().name, f"{path.name} names no student; the folder's name was taken"
    return COPY_NUMBER.sub("", name).strip() or name, f"{path.name} names no chapter; all of its name is the student's"


def hand_in(folder: Path, submission: Submission) -> tuple[dict[str, HandedIn], list[str]]:
    """Read a student's notebooks; of several for one chapter the newest counts.

    Returns:
        by chapter what counts, and flags.
    """
    flags = list(submission.flags)
    attempts: dict[str, list[tuple[Any, HandedIn]]] = {}
    for file in submission.files:
        try:
            cells, modified, remarks = read_cells(folder / file)
            chapter = chapter_of(cells, file)
        except UnreadableError as error:
            flags.append(f"{file}: {error}")
            continue
        flags += [f"{file}: {remark}" for remark in remarks]
        number = max([int(a or b) for a, b in COPY_NUMBER.findall(file.stem)], default=0)
        attempts.setdefault(chapter, []).append(((modified, number, str(file)), sorted_out(cells, chapter, str(file))))
    counting: dict[str, HandedIn] = {}
    for chapter in sorted(attempts, key=int):
        (_, newest), *others = sorted(attempts[chapter], key=lambda attempt: attempt[0], reverse=True)
        counting[chapter] = newest
        if others:
            flags.append(f"chapter {chapter}: {len(others) + 1} attempts; the newest counts, {newest.file}")
    return counting, flags


def read_cells(path: Path) -> tuple[list[dict[str, Any]], float, list[str]]:
    """The cells of a notebook file, each with ``cell_type``, ``source``, ``metadata`` and ``id``.

    The file is opened once and no link is followed, so nothing can change between looking and reading.

    Returns:
        the cells, when the file was last changed, and remarks.

    Raises:
        UnreadableError: it is no notebook, or too large.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise UnreadableError(f"can't be opened ({error.strerror})") from error
    facts = os.fstat(handle)
    if not stat.S_ISREG(facts.st_mode):
        os.close(handle)
        raise UnreadableError("is no ordinary file")
    with os.fdopen(handle, "rb") as file:
        if facts.st_size > MAX_FILE:
            raise UnreadableError(f"is too large ({facts.st_size / 2**20:.0f} MB; at most {MAX_FILE >> 20} MB)")
        content = file.read(MAX_FILE + 1)
    text, remarks = decoded(content)
    try:
        notebook = json.loads(text)
        if isinstance(notebook, dict) and notebook.get("nbformat", 4) != 4:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                notebook = nbformat.convert(nbformat.from_dict(notebook), 4)
    except (ValueError, RecursionError) as error:
        what = "is empty" if not text.strip() else f"is no valid JSON ({error})"
        raise UnreadableError(what[:200]) from error
    except Exception as error:  # whatever an old format's converter meets in a file that only looks like one
        raise UnreadableError(f"is no notebook that can be converted ({type(error).__name__})") from error
    found = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(found, list):
        raise UnreadableError("is JSON, but no notebook")
    cells = [cell for cell in map(well_formed, found[:MAX_CELLS]) if cell]
    if len(found) > MAX_CELLS or sum(len(cell["source"]) for cell in cells) > MAX_CODE:
        raise UnreadableError(f"is too long ({len(found)} cells)")
    return cells, facts.st_mtime, remarks


def decoded(content: bytes) -> tuple[str, list[str]]:
    """The text of a file and a remark if it is not in UTF-8."""
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if content.startswith(mark):
            with contextlib.suppress(UnicodeDecodeError):
                return content.decode(encoding), []
    try:
        return content.decode("utf-8"), []
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace"), ["not in UTF-8; read as Windows-1252"]


def well_formed(cell: Any) -> dict[str, Any] | None:
    """A cell with everything that is needed, or None for something else."""
    if not isinstance(cell, dict):
        return None
    source = cell.get("source", "")
    if isinstance(source, list):
        source = "".join(part for part in source if isinstance(part, str))
    metadata, identity = cell.get("metadata"), cell.get("id")
    return {
        "cell_type": str(cell.get("cell_type")),
        "source": source if isinstance(source, str) else "",
        "metadata": metadata if isinstance(metadata, dict) else {},
        "id": identity if isinstance(identity, str) else "",
    }


def marked_with(cell: dict[str, Any]) -> tuple[str, str]:
    """The role and exercise that a cell is marked with: by nbgrader's metadata, else by its first line; or ("", "")."""
    nbgrader = cell["metadata"].get("nbgrader")
    grade_id = nbgrader.get("grade_id") if isinstance(nbgrader, dict) else None
    if isinstance(grade_id, str) and (found := GRADE_ID.fullmatch(grade_id)):
        return found[1], f"{int(found[2])}.{int(found[3])}"
    source = CELL_MAGIC.sub("", cell["source"].lstrip()).lstrip()
    is_code = cell["cell_type"] == "code"
    for pattern, role, wanted in ((ANSWER, "answer", True), (CHECK, "check", True), (WRITTEN, "written", False)):
        if is_code == wanted and (found := pattern.search(source)):
            return role, found[1]
    return "", ""


def chapter_of(cells: list[dict[str, Any]], file: Path) -> str:
    """The chapter that a notebook is, by its exercises; without any by what it defines, then by its name.

    Raises:
        UnreadableError: it is none.
    """
    marks = Counter(exercise.split(".")[0] for _, exercise in map(marked_with, cells) if exercise)
    if not marks:
        code = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "code")
        defined = set(re.findall(r"^(?:def|class)\s+(\w+)", code, re.M))
        marks = Counter(e.split(".")[0] for e in EXERCISES if defined >= set(names_of(e)))
    if not marks:
        marks = Counter(number for number, facts in chapters().items() if facts.stem in file.stem.lower())
    known = [chapter for chapter, _ in marks.most_common() if chapter in chapters()]
    if not known:
        raise UnreadableError("belongs to no chapter of this course: no exercise was found in it")
    return known[0]


def sorted_out(cells: list[dict[str, Any]], chapter: str, file: str) -> HandedIn:
    """What is whose in a notebook: answers, the course's own cells, the learner's own."""
    facts = chapters()[chapter]
    code: list[CodeCell] = []
    written: dict[str, str] = dict.fromkeys(facts.written, "")
    for cell in cells:
        role, exercise = marked_with(cell)
        if role == "written" and exercise in written:
            written[exercise] = text_of(cell["source"], facts.written[exercise]) or written[exercise]
        elif cell["cell_type"] == "code":
            is_answer = role == "answer" and exercise in facts.answers
            code.append(CodeCell(cell["source"], exercise if is_answer else None, is_answer or is_own(cell, facts)))
    return HandedIn(chapter, file, tuple(code), written)


def is_own(cell: dict[str, Any], facts: ChapterFacts) -> bool:
    """Whether the learner wrote a cell, or changed one of the course's that may run.

    The course's unchanged cells come from the course itself; its training and its checks never run, changed or not.
    """
    if plain(cell["source"]) in facts.known:
        return False
    tags = cell["metadata"].get("tags")
    tags = [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
    return not {"training", "setup", "check"} & {facts.roles.get(cell["id"]), *tags}


def text_of(source: str, stub: str) -> str:
    """A written answer without its heading; empty if it is as handed out."""
    if plain(source) == plain(stub):
        return ""
    return WRITTEN.sub("", source.lstrip()).replace("YOUR ANSWER HERE", "").strip()
