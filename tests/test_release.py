"""From solutions/ to notebooks/: what is stripped, what is kept, and that nothing is half-written."""

import base64
import io
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
from matplotlib import image as pictures
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from utils import release
from utils.release import ROOT, ReleaseError, full_points

POINTS = {"1.1": 3, "2.6": 4}
ANSWER = """# EXERCISE 1.1
def f(x):
    \"\"\"Doubles.\"\"\"
    # a hint that stays
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION
"""
CHECK = 'check("1.1", f)'


def small_notebook(*more, answer: str = ANSWER) -> nbformat.NotebookNode:
    setup = new_code_cell("old setup", metadata={"tags": ["setup"]})
    define = new_code_cell("def check(exercise, answer):\n    return 7")
    return new_notebook(cells=[setup, define, new_code_cell(answer), new_code_cell(CHECK), *more])


def test_every_chapter_is_released():
    points = full_points()
    chapters = sorted(release.SOLUTIONS.glob("*.ipynb"))
    assert chapters
    assert [path.name for path in chapters] == sorted(path.name for path in release.NOTEBOOKS.glob("*.ipynb"))
    for path in chapters:
        assert release.is_released(path, points), f"{path.name}: run make notebooks"


def test_check_mode_notices_an_edited_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    for folder in ("solutions", "notebooks"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    monkeypatch.setattr(release, "SOLUTIONS", tmp_path / "solutions")
    monkeypatch.setattr(release, "NOTEBOOKS", tmp_path / "notebooks")
    assert release.main(["--check"]) == 0
    victim = next(iter(sorted((tmp_path / "notebooks").glob("*.ipynb"))))
    notebook = nbformat.read(victim, as_version=4)
    notebook.cells[2].source += "\nedited"
    nbformat.write(notebook, victim)
    assert release.main(["--check"]) == 1
    assert victim.name in capsys.readouterr().out


def test_solution_becomes_a_stub_and_the_rest_stays():
    stripped = release.stripped(release.marked(small_notebook(), POINTS))
    assert stripped.cells[2].source == (
        '# EXERCISE 1.1\ndef f(x):\n    """Doubles."""\n    # a hint that stays\n'
        '    # YOUR CODE HERE\n    raise NotImplementedError("exercise 1.1")\n'
    )
    assert stripped.cells[3].source == CHECK


def test_every_region_of_a_class_is_stripped_at_its_own_depth():
    answer = (
        "# EXERCISE 1.1\nclass A:\n    def f(self):\n        ### BEGIN SOLUTION\n        return 1\n"
        "        ### END SOLUTION\n\n    ### BEGIN SOLUTION\n    secret = 2\n    ### END SOLUTION\n"
    )
    source = release.stripped(release.marked(small_notebook(answer=answer), POINTS)).cells[2].source
    assert "secret" not in source
    assert "return 1" not in source
    assert source.count("NotImplementedError") == 2
    assert '        raise NotImplementedError("exercise 1.1")\n\n    # YOUR CODE HERE' in source


def test_written_answer_becomes_a_blank():
    written = new_markdown_cell("**EXERCISE 2.6**\n\n### BEGIN SOLUTION\nBecause.\n### END SOLUTION")
    marked = release.marked(small_notebook(written), POINTS)
    assert release.stripped(marked).cells[4].source == "**EXERCISE 2.6**\n\nYOUR ANSWER HERE"
    metadata = marked.cells[4].metadata.nbgrader
    assert (metadata.grade, metadata.solution, metadata.points) == (True, True, 4)


@pytest.mark.parametrize(
    "answer",
    [
        "# EXERCISE 1.1\ndef f(x):\n    return x",
        "# EXERCISE 1.1\ndef f(x):\n    ### BEGIN SOLUTION\n    return x",
        "# EXERCISE 1.1\ndef f(x):\n    return x\n    ### END SOLUTION",
    ],
    ids=["no region", "never closed", "never opened"],
)
def test_answer_without_a_whole_region_is_refused(answer: str):
    with pytest.raises(ReleaseError, match=r"answer 1\.1"):
        release.stripped(release.marked(small_notebook(answer=answer), POINTS))


def test_solution_region_outside_of_an_answer_is_refused():
    leak = new_code_cell("### BEGIN SOLUTION\nx = 1\n### END SOLUTION")
    with pytest.raises(ReleaseError, match="course"):
        release.stripped(release.marked(small_notebook(leak), POINTS))


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([new_code_cell("# EXERCISE 9.9\n")], "no exercise 9.9"),
        ([new_code_cell(CHECK)], "1.1 has the cells"),
        ([new_code_cell(ANSWER)], "1.1 has the cells"),
    ],
    ids=["unknown", "two checks", "two answers"],
)
def test_wrong_sets_of_exercise_cells_are_refused(cells: list, message: str):
    with pytest.raises(ReleaseError, match=message):
        release.marked(small_notebook(*cells), POINTS)


def test_cells_are_marked_by_what_they_say():
    marked = release.marked(small_notebook(new_markdown_cell("text")), POINTS)
    assert [cell.metadata.tags for cell in marked.cells] == [["setup"], ["course"], ["answer"], ["check"], ["text"]]
    answer, check = (marked.cells[i].metadata.nbgrader for i in (2, 3))
    assert (answer.grade, answer.solution, answer.locked, "points" in answer) == (False, True, False, False)
    assert (check.grade, check.solution, check.locked, check.points) == (True, False, True, 3)
    assert answer.schema_version == check.schema_version == 3
    assert answer.grade_id != check.grade_id


def test_setup_cell_and_colab_links_come_from_one_place():
    setup = release.SETUP_CELL.read_text(encoding="utf-8")
    repository = release.REPOSITORY.search(setup)[1]
    link = "[x](https://colab.research.google.com/github/somebody/fork/blob/main/notebooks/01.ipynb)"
    marked = release.marked(small_notebook(new_markdown_cell(link)), POINTS)
    assert marked.cells[0].source == setup.strip()
    assert marked.cells[4].source == link.replace("somebody/fork", repository)


@pytest.fixture
def fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of all that names the repository."""
    for folder in ("solutions", "notebooks"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
        monkeypatch.setattr(release, folder.upper(), tmp_path / folder)
    for name, path in (("SETUP_CELL", release.SETUP_CELL), ("README", release.README)):
        shutil.copy(path, tmp_path)
        monkeypatch.setattr(release, name, tmp_path / path.name)
    return tmp_path


def texts_in(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text("utf-8") for path in folder.rglob("*") if path.is_file()}


def test_one_command_lets_everything_lead_to_a_fork(fork: Path, capsys: pytest.CaptureFixture):
    before, old = texts_in(fork), release.repository()
    assert release.main(["--repository", "https://github.com/some-one/my.fork.git"]) == 0
    after = texts_in(fork)
    assert after.keys() == before.keys()
    assert f"{len(after)} files" in capsys.readouterr().out
    for name, text in after.items():
        assert f"github.com/{old}" not in text, name
        assert f"github/{old}/" not in text, name
        assert "github.com/some-one/my.fork" in text or "github/some-one/my.fork/blob" in text, name
    assert "cd my.fork\n" in after["README.md"]
    assert release.main(["--check"]) == 0, "what was released stays released"
    assert release.main(["--repository", f"https://github.com/{old}"]) == 0
    assert texts_in(fork) == before, "the way there and back changes nothing else"


@pytest.mark.parametrize(
    "address", ["my.fork", "https://gitlab.com/a/b", "https://github.com/a", "https://github.com/a/b/c", "", 'x"y']
)
def test_an_address_that_colab_cannot_open_is_refused_and_nothing_changes(address: str, fork: Path):
    before = texts_in(fork)
    with pytest.raises(ReleaseError, match=r"expected an address like https://github.com/OWNER/NAME"):
        release.repoint(address)
    assert texts_in(fork) == before


def test_a_cell_that_warns_or_raises_is_refused_by_name(tmp_path: Path):
    for source, message in (
        ("import sys; print('careful', file=sys.stderr)", "writes to stderr"),
        ("1 / 0", "ZeroDivisionError"),
    ):
        notebook = new_notebook(cells=[new_code_cell(source)])
        with pytest.raises(ReleaseError, match=message) as refusal:
            release.executed(notebook, tmp_path, "03.ipynb")
        assert "03.ipynb" in str(refusal.value)
        assert notebook.cells[0].id in str(refusal.value)


def test_progress_bar_leaves_only_its_last_line(tmp_path: Path):
    source = (
        "import sys\nfrom tqdm import tqdm\n"
        "for i in tqdm(range(50), file=sys.stdout, leave=False, mininterval=0):\n    pass\nprint('50 steps done')"
    )
    notebook = release.executed(new_notebook(cells=[new_code_cell(source)]), tmp_path, "x.ipynb")
    (output,) = notebook.cells[0].outputs
    assert output.text == "50 steps done\n"


@pytest.fixture
def course(tmp_path: Path) -> tuple[Path, Path]:
    """A course of one small chapter: its path in solutions/, and notebooks/."""
    solution = tmp_path / "solutions" / "01_small.ipynb"
    solution.parent.mkdir()
    (tmp_path / "notebooks").mkdir()
    notebook = small_notebook(new_code_cell("print(21 * 2)"))
    notebook.cells[0].metadata.tags = []
    notebook.cells[0].source = "x = 1"
    nbformat.write(notebook, solution)
    return solution, tmp_path / "notebooks"


def test_releasing_twice_changes_nothing(course: tuple[Path, Path]):
    solution, notebooks = course
    assert release.release(solution, POINTS, notebooks) == [solution, notebooks / solution.name]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in (solution, notebooks / solution.name)]
    assert release.release(solution, POINTS, notebooks) == []
    assert before == [(path.read_bytes(), path.stat().st_mtime_ns) for path in (solution, notebooks / solution.name)]
    released = nbformat.read(notebooks / solution.name, as_version=4)
    assert released.cells[4].outputs[0].text == "42\n"
    assert "return 2 * x" not in str(released)


def test_a_chapter_that_fails_leaves_both_files_as_they_were(course: tuple[Path, Path]):
    solution, notebooks = course
    release.release(solution, POINTS, notebooks)
    notebook = nbformat.read(solution, as_version=4)
    notebook.cells[4].source = "f(1) + 1  # fine with the solution, an error without"
    nbformat.write(notebook, solution)
    before = [path.read_bytes() for path in (solution, notebooks / solution.name)]
    with pytest.raises(ReleaseError, match="NotImplementedError"):
        release.release(solution, POINTS, notebooks)
    assert before == [path.read_bytes() for path in (solution, notebooks / solution.name)]
    assert [path.name for path in notebooks.iterdir()] == [solution.name]


def picture(shade: float, note: str = "") -> str:
    """A base64 PNG of one grey."""
    file = io.BytesIO()
    pictures.imsave(file, np.full((4, 4, 3), shade), format="png", metadata={"Comment": note})
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(("shade", "kept"), [(0.5, True), (0.9, False)], ids=["same", "another"])
def test_a_picture_that_looks_the_same_is_kept_byte_by_byte(shade: float, kept: bool):
    def notebook(png: str) -> nbformat.NotebookNode:
        output = new_output("display_data", data={"image/png": png, "text/plain": "grey"})
        return new_notebook(cells=[new_code_cell("show()", id="a", outputs=[output])])

    old, new = picture(0.5), picture(shade, note="another version of the drawing library")
    assert old != new
    result = release.with_pictures_of(notebook(new), notebook(old)).cells[0].outputs[0].data["image/png"]
    assert result == (old if kept else new)


@pytest.mark.parametrize("source", ["# MEASURED: what a clock says\nshow()", "show()"])
def test_a_measured_picture_is_kept_as_long_as_its_cell_stays_the_same(source: str):
    def notebook(source: str, png: str) -> nbformat.NotebookNode:
        output = new_output("display_data", data={"image/png": png, "text/plain": "grey"})
        return new_notebook(cells=[new_code_cell(source, id="a", outputs=[output])])

    old, new = picture(0.2), picture(0.9)
    same = release.with_pictures_of(notebook(source, new), notebook(source, old))
    assert same.cells[0].outputs[0].data["image/png"] == (old if source.startswith("# MEASURED") else new)
    edited = release.with_pictures_of(notebook(source + "  # edited", new), notebook(source, old))
    assert edited.cells[0].outputs[0].data["image/png"] == new


def test_unknown_chapter_is_an_error(capsys):
    assert release.main(["99"]) == 1
    assert "99" in capsys.readouterr().err
