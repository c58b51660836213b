"""What nbval does not see: guards on every stored notebook, in both folders."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from utils.checks import EXERCISES, WRITTEN
from utils.release import SETUP_CELL, role_of

ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|work|usr|opt|var|content|Users|private)/|\b[A-Z]:\\\\")
TIME = re.compile(r"\b\d+(?:\.\d+)?\s?(?:ms|µs|s|sec|seconds|minutes)\b|\b\d\d:\d\d(?::\d\d)?\b|\b\d+(?:\.\d+)?it/s")
IGNORING = re.compile(r"nbval[-_](?:ignore|skip)|NBVAL_(?:IGNORE|SKIP)|raises-exception", re.I)
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)]+)\)|<img[^>]+src=\"(?!https?:|data:)([^\"]+)\"")
HEADING = re.compile(r"^### Exercise (\d+\.\d+) · (.+)$", re.M)
FACTS = re.compile(r"^\*\*(\d+) minutes · difficulty [●○]{3} · (\d+) points?\*\*$", re.M)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(notebook: NotebookNode) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def output_texts(cell: NotebookNode) -> list[str]:
    """Every compared text of a cell: streams, plain texts and HTML."""
    found = []
    for output in cell.outputs:
        found += [output.get("text", "")]
        found += [value for kind, value in output.get("data", {}).items() if kind.startswith("text/")]
    return found


def test_there_are_notebooks_in_both_folders(notebook_path: Path):
    twin = {"notebooks": "solutions", "solutions": "notebooks"}[notebook_path.parent.name]
    assert (notebook_path.parent.parent / twin / notebook_path.name).exists()


def test_notebook_is_valid_and_its_cell_ids_are_unique(notebook: NotebookNode):
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5)
    ids = [cell.id for cell in notebook.cells]
    assert len(ids) == len(set(ids))


def test_every_code_cell_is_executed_in_order(notebook: NotebookNode):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1)), "nbval compares nothing where a cell was not executed"


def test_no_output_is_stderr_or_an_error_or_a_widget(notebook: NotebookNode):
    for cell in code_cells(notebook):
        for output in cell.outputs:
            assert output.output_type in ("stream", "display_data", "execute_result"), cell.source
            assert output.get("name") != "stderr", cell.source
            assert not any("widget" in kind for kind in output.get("data", {})), cell.source
    assert "widgets" not in notebook.metadata


def test_metadata_holds_nothing_of_one_machine(notebook: NotebookNode):
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags", "nbgrader"}


@pytest.mark.parametrize("pattern", [ADDRESS, ABSOLUTE_PATH, TIME], ids=["address", "path", "time"])
def test_no_output_holds_what_changes_between_runs(notebook: NotebookNode, pattern: re.Pattern):
    for cell in code_cells(notebook):
        for text in output_texts(cell):
            assert not pattern.search(text), (cell.id, pattern.search(text))


@pytest.mark.parametrize(
    ("pattern", "bad"),
    [
        (ADDRESS, "<object at 0x7f3a12bc>"),
        (ABSOLUTE_PATH, "see /home/ada/course"),
        (TIME, "took 3.1 s"),
        (TIME, "12:30:05"),
        (TIME, "340 ms"),
    ],
)
def test_the_patterns_catch_what_they_should(pattern: re.Pattern, bad: str):
    assert pattern.search(bad)


def test_no_output_is_exempt_from_comparison(notebook: NotebookNode):
    for cell in notebook.cells:
        assert not IGNORING.search(cell.source), cell.id
        assert not any(IGNORING.search(tag) for tag in cell.metadata.get("tags", [])), cell.id


def test_every_picture_has_a_text_for_readers_who_cannot_see_it(notebook: NotebookNode):
    pictures = [o for cell in code_cells(notebook) for o in cell.outputs if "image/png" in o.get("data", {})]
    assert pictures
    for output in pictures:
        assert len(output.metadata["image/png"]["alt"]) > 20
        assert output.data["text/plain"] == output.metadata["image/png"]["alt"]


def test_cells_with_a_picture_print_numbers_beside_it(notebook: NotebookNode):
    """Pictures are not compared, so the numbers in them must be."""
    for cell in code_cells(notebook):
        if any("image/png" in output.get("data", {}) for output in cell.outputs):
            position = notebook.cells.index(cell)
            near = [c for c in notebook.cells[max(0, position - 2) : position + 1] if c.cell_type == "code"]
            printed = "".join(o.text for c in near for o in c.outputs if o.output_type == "stream")
            assert re.search(r"\d", printed), cell.id


def test_setup_cell_is_the_same_everywhere(notebook: NotebookNode):
    setups = [cell for cell in notebook.cells if "setup" in cell.metadata.tags]
    assert len(setups) == 1
    assert setups[0] is code_cells(notebook)[0]
    assert setups[0].source == SETUP_CELL.read_text(encoding="utf-8").strip()


def test_every_cell_says_what_it_is(notebook: NotebookNode):
    roles = {"setup", "training", "course", "text", "answer", "check", "written"}
    for cell in notebook.cells:
        assert len(set(cell.metadata.tags) & roles) == 1, cell.id


def test_metadata_follows_nbgraders_schema_3(notebook: NotebookNode):
    grade_ids = []
    for cell in notebook.cells:
        role, exercise = role_of(cell)
        assert ("nbgrader" in cell.metadata) == bool(exercise)
        if not exercise:
            continue
        metadata = cell.metadata.nbgrader
        grade, solution = role in ("check", "written"), role in ("answer", "written")
        wanted = {"grade": grade, "solution": solution, "locked": role == "check", "task": False, "schema_version": 3}
        assert {name: metadata[name] for name in wanted} == wanted
        assert set(metadata) == {*wanted, "grade_id"} | ({"points"} if grade else set())
        grade_ids.append(metadata.grade_id)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", grade_id) for grade_id in grade_ids)
    assert len(grade_ids) == len(set(grade_ids))


def test_points_can_be_read_from_the_stored_output(notebook: NotebookNode, notebook_path: Path):
    """As nbgrader does it: the plain text of a check's result is the number of points earned."""
    for cell in notebook.cells:
        role, exercise = role_of(cell)
        if role == "check":
            (result,) = [output for output in cell.outputs if output.output_type == "execute_result"]
            full = EXERCISES[exercise].points
            assert cell.metadata.nbgrader.points == full
            assert float(result.data["text/plain"]) == (full if notebook_path.parent.name == "solutions" else 0)


def test_folders_differ_in_exercise_cells_only(chapter: tuple[NotebookNode, NotebookNode]):
    unsolved, solved = chapter
    assert [cell.id for cell in unsolved.cells] == [cell.id for cell in solved.cells]
    for ours, theirs in zip(unsolved.cells, solved.cells, strict=True):
        role, _ = role_of(theirs)
        assert ours.metadata == theirs.metadata
        if role not in ("answer", "written"):
            assert ours.source == theirs.source
        if role not in ("answer", "check", "written"):
            assert ours == theirs, f"cell {ours.id} depends on a learner's answer"


def test_no_line_of_a_solution_is_in_the_learners_notebook(chapter: tuple[NotebookNode, NotebookNode]):
    unsolved, solved = chapter
    for ours, theirs in zip(unsolved.cells, solved.cells, strict=True):
        if role_of(theirs)[0] == "answer":
            assert "SOLUTION" not in ours.source
            for region in re.findall(r"BEGIN SOLUTION\n(.*?)\n[^\n]*END SOLUTION", theirs.source, re.S):
                assert all(line.strip() not in ours.source for line in region.splitlines() if re.search(r"\w", line))
            assert "raise NotImplementedError" in ours.source


def test_unsolved_reports_say_not_attempted_and_solved_ones_are_full(chapter: tuple[NotebookNode, NotebookNode]):
    for notebook, solved in zip(chapter, (False, True), strict=True):
        for cell in notebook.cells:
            role, exercise = role_of(cell)
            if role == "check":
                (output,) = cell.outputs
                full = EXERCISES[exercise].points
                assert output.data["text/plain"] == (str(full) if solved else "0")
                assert ("Not attempted yet." in output.data["text/html"]) != solved


def test_chapter_holds_all_its_exercises_once_and_describes_them_right(chapter: tuple[NotebookNode, NotebookNode]):
    _, solved = chapter
    headings = HEADING.findall(texts(solved))
    number = headings[0][0].split(".")[0]
    known = EXERCISES | WRITTEN
    assert sorted(headings) == sorted((e.id, e.title) for e in known.values() if e.id.startswith(f"{number}."))
    for i, cell in enumerate(solved.cells):
        if cell.cell_type == "markdown" and (found := HEADING.search(cell.source)):
            exercise = known[found[1]]
            minutes, points = FACTS.search(cell.source).groups()
            assert int(points) == exercise.points
            assert 5 <= int(minutes) <= 60
            wanted = ["written"] if exercise.id in WRITTEN else ["answer", "check"]
            following = solved.cells[i + 1 : i + 1 + len(wanted)]
            assert [role_of(c) for c in following] == [(role, exercise.id) for role in wanted]


def test_tasks_offer_help_in_steps_and_name_what_is_not_allowed(chapter: tuple[NotebookNode, NotebookNode]):
    for cell in chapter[1].cells:
        if cell.cell_type == "markdown" and (found := HEADING.search(cell.source)):
            task = cell.source[found.start() :]
            if found[1] in WRITTEN:
                assert "<summary>Hint</summary>" in task
                continue
            assert task.index("<summary>Hint</summary>") < task.index("<summary>Pseudocode</summary>")
            for name in EXERCISES[found[1]].forbid:
                assert f"`{name}`" in task or name in ("matmul", "loop"), name


def test_rubrics_stand_beside_the_model_answer_and_nowhere_else(chapter: tuple[NotebookNode, NotebookNode]):
    unsolved, solved = chapter
    for ours, theirs in zip(unsolved.cells, solved.cells, strict=True):
        role, exercise = role_of(theirs)
        if role == "written":
            for criterion in WRITTEN[exercise].rubric:
                assert f"{criterion.points} point · {criterion.text}" in theirs.source
                assert criterion.text not in texts(unsolved)
            assert WRITTEN[exercise].remark in theirs.source
            assert "YOUR ANSWER HERE" in ours.source


def test_no_course_cell_defines_what_a_learner_is_asked_for(notebook: NotebookNode):
    """Else a check would praise a learner who has not run the answer cell at all."""
    asked = {
        argument.id
        for cell in notebook.cells
        if role_of(cell)[0] == "check"
        for call in ast.walk(ast.parse(cell.source))
        if isinstance(call, ast.Call)
        for argument in call.args
        if isinstance(argument, ast.Name)
    }
    assert asked
    for cell in code_cells(notebook):
        if role_of(cell)[0] == "answer":
            continue
        for node in ast.walk(ast.parse(cell.source)):
            bound = getattr(node, "name", None) if isinstance(node, ast.FunctionDef | ast.ClassDef) else None
            if isinstance(node, ast.alias):
                bound = node.asname or node.name
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                bound = node.id
            assert bound not in asked, f"cell {cell.id} binds {bound}"


def test_relative_links_lead_somewhere(notebook: NotebookNode, notebook_path: Path):
    for groups in LINK.findall(texts(notebook)):
        target = next(filter(None, groups)).split("#")[0]
        assert (notebook_path.parent / target).exists(), target


def test_chapter_keeps_to_the_size_and_the_frame(notebook: NotebookNode):
    text = texts(notebook)
    assert 60 <= len(notebook.cells) <= 100
    assert 2500 <= len(text.split()) <= 4000
    for cell in code_cells(notebook):
        if role_of(cell)[0] != "answer":
            assert len(cell.source.splitlines()) <= 20, cell.id
    for wanted in (
        "colab.research.google.com",
        "After this chapter you can",
        "You need",
        "Takeaways",
        "Quiz",
        "Answers",
    ):
        assert wanted in text
    assert text.count("**Predict.**") >= 3
