"""Every chapter in a stand-in for Google Colab: a folder that holds one notebook, and nothing of the course."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import nbformat
import pytest
from course_copy import committed_course, copy_fetched_data
from habits import HABITS
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from utils.checks import EXERCISES
from utils.grading.__main__ import main as grade
from utils.release import NOTEBOOKS, REPOSITORY, SETUP_CELL, SOLUTIONS, repository, role_of

CHAPTERS = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))
SETUP = SETUP_CELL.read_text(encoding="utf-8").strip()
ADDRESS = f"https://github.com/{repository()}"
ON_A_CPU_IN_COLAB = (
    "Ready. Device: CPU. Every chapter is sized for it. "
    "For a GPU: Runtime → Change runtime type → T4 GPU, then run all cells again.\n"
)
STATE = """
import os, random, sys
import numpy, torch, utils
print(sorted(os.listdir()))
print(os.path.relpath(utils.__file__))
print(sys.path, [(name, id(module)) for name, module in sys.modules.items() if name.split(".")[0] == "utils"])
print(torch.get_rng_state().sum().item(), hash(random.getstate()), numpy.random.get_state()[1].sum())
print(torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled())
"""


class Colab:
    """What a Colab machine gives a notebook: an empty folder, `google.colab`, and the way to the repository."""

    def __init__(self, folder: Path, repository_folder: Path) -> None:
        self.content = folder / "content"
        self.content.mkdir()
        modules = folder / "modules"
        (modules / "google" / "colab").mkdir(parents=True)
        (modules / "google" / "colab" / "__init__.py").touch()
        (modules / "usercustomize.py").write_text("import google.colab\n")  # a Colab kernel has imported it
        copy_fetched_data(folder / "cache" / "attention-course")
        self.environment = os.environ | {
            "PYTHONPATH": str(modules),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "CUDA_VISIBLE_DEVICES": "",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{repository_folder.as_uri()}.insteadOf",
            "GIT_CONFIG_VALUE_0": ADDRESS,
        }

    def run(self, notebook: NotebookNode, name: str) -> NotebookNode:
        """Put the notebook into the folder, and run it from top to bottom, stopping at the first error."""
        nbformat.write(notebook, self.content / name)
        NotebookClient(
            notebook,
            timeout=600,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": str(self.content)}},
        ).execute(env=self.environment)
        return notebook


@pytest.fixture(scope="session")
def repository_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return committed_course(tmp_path_factory.mktemp("repository"))


@pytest.fixture
def colab(tmp_path: Path, repository_folder: Path) -> Colab:
    return Colab(tmp_path, repository_folder)


def texts_of(cell: NotebookNode) -> list[tuple[str, str]]:
    """What a cell printed and showed, pictures aside."""
    shown = [(output.get("name", output.output_type), output.get("text", "")) for output in cell.outputs]
    return shown + [
        (kind, value)
        for output in cell.outputs
        for kind, value in sorted(output.get("data", {}).items())
        if kind.startswith("text/")
    ]


def solved(name: str) -> NotebookNode:
    """The learner's notebook with the model answers typed in."""
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    for cell, model in zip(notebook.cells, nbformat.read(SOLUTIONS / name, as_version=4).cells, strict=True):
        if role_of(cell)[0] in ("answer", "written"):
            cell.source = model.source
    return notebook


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_alone_runs_from_top_to_bottom_and_prints_what_is_stored(colab: Colab, name: str):
    stored = nbformat.read(NOTEBOOKS / name, as_version=4)
    notebook = copy.deepcopy(stored)
    extra = [new_code_cell(STATE), new_code_cell(SETUP), new_code_cell(STATE)]
    notebook.cells += extra
    notebook = colab.run(notebook, name)

    setup, *others = (pair for pair in zip(stored.cells, notebook.cells) if pair[0].cell_type == "code")  # noqa: B905
    assert texts_of(setup[1]) == [("stdout", ON_A_CPU_IN_COLAB)]
    for ours, theirs in others:
        assert texts_of(theirs) == texts_of(ours), ours.id

    before, again, after = (texts_of(cell) for cell in notebook.cells[-3:])
    folder = ADDRESS.rpartition("/")[2]
    assert f"{sorted([name, folder])}\n{folder}/utils/__init__.py\n" in before[0][1]
    assert again == [("stdout", ON_A_CPU_IN_COLAB)]
    assert after == before, "the setup cell changes something when it is run a second time"


def test_no_answer_about_the_way_to_the_repository_is_a_clear_error(colab: Colab):
    colab.environment["GIT_CONFIG_KEY_0"] = "url.file:///nowhere/at/all.insteadOf"
    notebook = nbformat.v4.new_notebook(cells=[new_code_cell(SETUP)])
    with pytest.raises(Exception, match=r"The course is not in .*content or above it, and can't be fetched: .*nowhere"):
        colab.run(notebook, "alone.ipynb")
    assert sorted(path.name for path in colab.content.iterdir()) == ["alone.ipynb"], "nothing half-fetched stays"


def test_a_notebook_that_colab_saved_runs_checks_and_grades(colab: Colab, tmp_path: Path, needs_sandbox: object):
    """Solved in Colab, downloaded, opened in JupyterLab, handed in."""
    name, chapter = CHAPTERS[0], "1"
    saved = HABITS["saved_by_colab"](colab.run(solved(name), name))
    handed_in = tmp_path / "submissions" / "one" / f"Copy of {name}"
    handed_in.parent.mkdir(parents=True)
    handed_in.write_text(nbformat.v4.nbjson.writes(saved), encoding="utf-8")
    assert '"nbformat_minor": 0' in handed_in.read_text(encoding="utf-8")

    reopened = nbformat.read(handed_in, as_version=4)
    points = {
        exercise: float(output.data["text/plain"])
        for cell in colab.run(reopened, name).cells
        for role, exercise in [role_of(cell)]
        if role == "check"
        for output in cell.outputs
        if output.output_type == "execute_result"
    }
    full = {exercise.id: exercise.points for exercise in EXERCISES.values() if exercise.id.startswith(f"{chapter}.")}
    assert points == full

    assert grade([str(tmp_path / "submissions"), "--out", str(tmp_path / "grades"), "--jobs", "1"]) == 0
    header, row = (tmp_path / "grades" / "grades.csv").read_text(encoding="utf-8").splitlines()
    marks = dict(zip(header.split(","), row.split(","), strict=True))
    assert {exercise: float(marks[exercise]) for exercise in full} == full


def test_setup_cell_names_the_repository_once():
    assert len(REPOSITORY.findall(SETUP)) == 1
    assert SETUP.count("github.com") == 1
