"""From ``solutions/`` to ``notebooks/``: mark the cells, strip the answers, execute, store the outputs.

    python -m utils.release                  all chapters
    python -m utils.release 01 05            only these
    python -m utils.release --check          change nothing, say whether notebooks/ is the release of solutions/
    python -m utils.release --repository https://github.com/you/your-fork
                                             let setup cells and Colab links lead to your fork; executes nothing

``solutions/`` is the only source that is edited by hand. A cell's role is read from its text, so nobody
writes metadata by hand. Metadata of exercise cells follows nbgrader's schema 3.
"""

import argparse
import base64
import copy
import io
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib.image
import nbformat
import numpy as np
from nbclient import NotebookClient
from nbformat import NotebookNode
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
SOLUTIONS, NOTEBOOKS = ROOT / "solutions", ROOT / "notebooks"

ANSWER = re.compile(r"\A# EXERCISE (\d+\.\d+)\b")
WRITTEN = re.compile(r"\A\*\*EXERCISE (\d+\.\d+)\*\*")
CHECK = re.compile(r"""^check\(\s*["'](\d+\.\d+)["']""", re.MULTILINE)
REGION = re.compile(
    r"^(?P<indent>[ \t]*)### BEGIN SOLUTION[ \t]*\n(?P<body>.*?)^[ \t]*### END SOLUTION[ \t]*$", re.M | re.S
)
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
SETUP_CELL = ROOT / "utils" / "setup_cell.txt"
ADDRESS = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?", re.ASCII)
REPOSITORY = re.compile(r'^REPOSITORY = "https://github.com/([^"]+)"$', re.M)
COLAB = re.compile(r"(https://colab\.research\.google\.com/github/)[^/\s]+/[^/\s]+(/blob/)")
README = ROOT / "README.md"
MEASURED = "# MEASURED"  # starts a cell whose picture differs on every run
KEPT_TAGS = {"setup", "training"}  # roles that a text alone does not show; the others are derived
CELL_SECONDS = 600


class ReleaseError(RuntimeError):
    """A notebook can't be released as it is; the message names the notebook, the cell and the reason."""


def role_of(cell: NotebookNode) -> tuple[str, str]:
    """What a cell is for, and its exercise ("" if none).

    Roles: "answer", "written", "check" of an exercise; "text" and "course" otherwise.

    Example:
        >>> role_of(nbformat.v4.new_code_cell("# EXERCISE 1.1"))
        ('answer', '1.1')
    """
    is_code = cell.cell_type == "code"
    for pattern, role, wanted in ((ANSWER, "answer", True), (CHECK, "check", True), (WRITTEN, "written", False)):
        if is_code == wanted and (found := pattern.search(cell.source)):
            return role, found[1]
    return ("course", "") if is_code else ("text", "")


def nbgrader_metadata(role: str, exercise: str, points: int) -> dict[str, Any]:
    """nbgrader's schema 3 for one exercise cell.

    Example:
        >>> nbgrader_metadata("check", "1.1", 3)["grade_id"]
        'check-1-1'
    """
    grade, solution = role in ("check", "written"), role in ("answer", "written")
    metadata = {
        "grade": grade,
        "grade_id": f"{role}-{exercise.replace('.', '-')}",
        "locked": role == "check",
        "schema_version": 3,
        "solution": solution,
        "task": False,
    }
    return metadata | ({"points": points} if grade else {})


def marked(notebook: NotebookNode, points: dict[str, int]) -> NotebookNode:
    """A copy in which every cell carries its role as a tag, and exercise cells nbgrader's metadata.

    The setup cell and the Colab links come from ``utils/setup_cell.txt``, the one place that knows where
    the repository lives.

    Args:
        notebook: a chapter from ``solutions/``.
        points: full marks by exercise.

    Raises:
        ReleaseError: an exercise is unknown, or lacks its answer or its check, or has one twice.
    """
    notebook = pointed_to_repository(notebook)
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    seen: list[tuple[str, str]] = []
    for cell in notebook.cells:
        role, exercise = role_of(cell)
        tags = sorted(KEPT_TAGS & set(cell.metadata.get("tags", [])))
        cell.metadata = nbformat.from_dict({"tags": tags or [role]})
        if exercise:
            if exercise not in points:
                raise ReleaseError(f"cell {cell.id}: there is no exercise {exercise} in utils.checks")
            seen.append((role, exercise))
            cell.metadata["nbgrader"] = nbgrader_metadata(role, exercise, points[exercise])
    for exercise in dict.fromkeys(e for _, e in seen):
        roles = sorted(role for role, e in seen if e == exercise)
        if roles not in (["answer", "check"], ["written"]):
            raise ReleaseError(f"exercise {exercise} has the cells {roles}; expected one answer and one check")
    return notebook


def repository() -> str:
    """Owner and name of the repository on GitHub, from the one place that knows them.

    Example:
        >>> repository().count("/")
        1
    """
    return REPOSITORY.search(SETUP_CELL.read_text(encoding="utf-8"))[1]


def pointed_to_repository(notebook: NotebookNode) -> NotebookNode:
    """A copy with the setup cell of ``utils/setup_cell.txt``, and Colab links to the repository named there."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if "setup" in cell.metadata.get("tags", []):
            cell.source = SETUP_CELL.read_text(encoding="utf-8").strip()
        elif cell.cell_type == "markdown":
            cell.source = COLAB.sub(rf"\g<1>{repository()}\g<2>", cell.source)
    return notebook


def repoint(address: str) -> list[Path]:
    """Let every setup cell and every Colab link lead to another repository; returns the files that changed.

    Nothing is executed: no output depends on the address.

    Args:
        address: of the repository on GitHub (Colab opens no others), such as https://github.com/you/your-fork.

    Raises:
        ReleaseError: the address is not one of a repository on GitHub. Nothing is changed then.
    """
    found = ADDRESS.fullmatch(address)
    if not found:
        raise ReleaseError(f"expected an address like https://github.com/OWNER/NAME, got {address}")
    old, new = repository(), found[1]
    readme = COLAB.sub(rf"\g<1>{new}\g<2>", README.read_text("utf-8")).replace(f"github.com/{old}", f"github.com/{new}")
    texts = {
        README: readme.replace(f"cd {old.split('/')[1]}\n", f"cd {new.split('/')[1]}\n"),
        SETUP_CELL: REPOSITORY.sub(f'REPOSITORY = "https://github.com/{new}"', SETUP_CELL.read_text("utf-8")),
    }
    changed = [path for path, text in texts.items() if replaced_if_changed(text, path)]
    paths = [*sorted(SOLUTIONS.glob("*.ipynb")), *sorted(NOTEBOOKS.glob("*.ipynb"))]
    return changed + [path for path in paths if written_if_changed(pointed_to_repository(read(path)), path)]


def stripped(notebook: NotebookNode) -> NotebookNode:
    """A copy without answers: every solution region becomes a stub that says what is missing.

    Raises:
        ReleaseError: an answer cell has no solution region, or a region lies elsewhere or stays open.

    Example:
        >>> cell = nbformat.v4.new_code_cell(
        ...     "# EXERCISE 1.1\\ndef f():\\n    ### BEGIN SOLUTION\\n    return 1\\n    ### END SOLUTION")
        >>> print(stripped(nbformat.v4.new_notebook(cells=[cell])).cells[0].source)
        # EXERCISE 1.1
        def f():
            # YOUR CODE HERE
            raise NotImplementedError("exercise 1.1")
    """
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        role, exercise = role_of(cell)
        stub = (
            rf'\g<indent># YOUR CODE HERE\n\g<indent>raise NotImplementedError("exercise {exercise}")'
            if role == "answer"
            else r"\g<indent>YOUR ANSWER HERE"
        )
        source, regions = REGION.subn(stub, cell.source)
        if (role in ("answer", "written")) != bool(regions) or "### BEGIN" in source or "### END" in source:
            raise ReleaseError(
                f"cell {cell.id} ({role} {exercise}): expected whole ### BEGIN SOLUTION … ### END SOLUTION regions "
                "in answer cells and nowhere else"
            )
        cell.source = source
    return notebook


def executed(notebook: NotebookNode, folder: Path, name: str) -> NotebookNode:
    """A copy with fresh outputs, free of noise: no times, no warnings, streams joined.

    Args:
        notebook: any notebook.
        folder: the working directory of its kernel.
        name: for error messages.

    Raises:
        ReleaseError: a cell raises, or writes to stderr.
    """
    notebook = copy.deepcopy(notebook)
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        allow_errors=True,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                raise ReleaseError(f"{name}, cell {cell.id}: {output.ename}: {output.evalue}")
            if output.get("name") == "stderr":
                raise ReleaseError(f"{name}, cell {cell.id} writes to stderr: {output.text}")
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    return notebook


def with_pictures_of(new: NotebookNode, old: NotebookNode | None) -> NotebookNode:
    """``new``, with each picture of ``old`` that looks the same kept byte by byte, so that diffs stay quiet.

    Only where the cell's source is the same too: there, a faint difference comes from the drawing library. A cell
    that says it is ``MEASURED`` draws what a clock says; its picture is kept however it looks.
    """
    stored = {(cell.id, cell.source): cell for cell in old.cells} if old is not None else {}
    for cell in new.cells:
        before = stored.get((cell.id, cell.source), {}).get("outputs", [])
        for output, previous in zip(cell.get("outputs", []), before, strict=False):
            picture, kept = (o.get("data", {}).get("image/png") for o in (output, previous))
            if picture and kept and (cell.source.startswith(MEASURED) or looks_the_same(picture, kept)):
                output.data["image/png"] = kept
    return new


def looks_the_same(first: str, second: str, tolerance: float = 0.002) -> bool:
    """Whether two base64 PNGs have the same size and nearly the same pixels."""
    if first == second:
        return True
    a, b = (matplotlib.image.imread(io.BytesIO(base64.b64decode(text))) for text in (first, second))
    return a.shape == b.shape and float(np.abs(a - b).mean()) < tolerance


def written_if_changed(notebook: NotebookNode, path: Path) -> bool:
    """Validate and write in one step; say whether the file changed."""
    nbformat.validate(notebook)
    return replaced_if_changed(nbformat.writes(notebook, version=4) + "\n", path)


def replaced_if_changed(text: str, path: Path) -> bool:
    """Write a text file in one step; say whether it changed."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, suffix=".tmp", delete=False, newline="\n"
    ) as file:
        file.write(text)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)
    return True


def read(path: Path) -> NotebookNode | None:
    """A notebook, or None where there is no file."""
    return nbformat.read(path, as_version=4) if path.exists() else None


def sources(notebook: NotebookNode) -> list[tuple[str, str, str, Any]]:
    """All of a notebook but its outputs: id, type, source and metadata of every cell."""
    return [(c.id, c.cell_type, c.source, c.metadata) for c in notebook.cells]


def is_released(solution: Path, points: dict[str, int]) -> bool:
    """Whether ``notebooks/`` holds, cell by cell, what this chapter's release would write (outputs aside)."""
    marked_solution, released = marked(read(solution), points), read(NOTEBOOKS / solution.name)
    return (
        released is not None
        and sources(read(solution)) == sources(marked_solution)
        and sources(released) == sources(stripped(marked_solution))
    )


def release(solution: Path, points: dict[str, int], notebooks: Path = NOTEBOOKS) -> list[Path]:
    """Execute one chapter with and without answers, and store both; returns the files that changed.

    Nothing is written unless both run through.

    Raises:
        ReleaseError: see ``marked``, ``stripped`` and ``executed``.
    """
    source, path = marked(read(solution), points), notebooks / solution.name
    work = [
        (source, solution.parent, f"{solution.parent.name}/{solution.name}"),
        (stripped(source), notebooks, f"{notebooks.name}/{solution.name}"),
    ]
    with ThreadPoolExecutor(len(work)) as pool:  # each waits for a kernel of its own, one thread per kernel
        solved, unsolved = pool.map(executed, *zip(*work, strict=True))
    solved = with_pictures_of(solved, read(solution))
    unsolved = with_pictures_of(unsolved, solved)  # a picture that no answer changes is the same in both
    changed = [p for notebook, p in ((solved, solution), (unsolved, path)) if written_if_changed(notebook, p)]
    return changed


def full_points() -> dict[str, int]:
    """Full marks by exercise, the written ones included.

    Example:
        >>> full_points()["2.6"]
        4
    """
    from utils.checks import EXERCISES, WRITTEN

    return {exercise.id: exercise.points for exercise in (*EXERCISES.values(), *WRITTEN.values())}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m utils.release", description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", help="beginnings of file names, such as 01; all if left out")
    parser.add_argument("--repository", metavar="URL", help="change nothing but where setup cells and links lead")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 unless all is released")
    options = parser.parse_args(arguments)
    points = full_points()
    wanted = tuple(options.chapters) or ("",)
    solutions = [path for path in sorted(SOLUTIONS.glob("*.ipynb")) if path.name.startswith(wanted)]
    if not solutions:
        print(f"no notebook in solutions/ starts with {' or '.join(wanted)}", file=sys.stderr)
        return 1
    try:
        if options.repository is not None:
            changed = repoint(options.repository)
            print(f"{len(changed)} files lead to {repository()} now; commit them" if changed else "nothing to change")
            return 0
        if options.check:
            stale = [path.name for path in solutions if not is_released(path, points)]
            print(f"not released: {', '.join(stale)}; run make notebooks" if stale else "all released")
            return 1 if stale else 0
        for solution in tqdm(solutions, desc="chapters", disable=None):
            changed = release(solution, points)
            names = ", ".join(f"{path.parent.name}/{path.name}" for path in changed)
            tqdm.write(f"{solution.stem}: {names or 'unchanged'}")
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
