"""From a folder of downloads to students and the notebooks that count."""

import json
import os
import shutil
from pathlib import Path

import nbformat
import pytest
from classroom import CHAPTERS, handed_in
from nbformat.v4.nbjson import writes

from utils.grading.submissions import (
    MAX_FILE,
    HandedIn,
    Submission,
    UnreadableError,
    chapter_of,
    find_submissions,
    hand_in,
    read_cells,
    sorted_out,
    student_of,
)

NAME = "03_causal_attention"
ANSWER = "# EXERCISE 3.2\ndef causal_softmax(scores):\n    return 'mine'\n"


def code(source, **metadata) -> dict:
    """A code cell as JSON."""
    return {"cell_type": "code", "source": source, "metadata": metadata, "outputs": [], "execution_count": None}


def notebook_of(*cells: dict) -> str:
    """A notebook's text."""
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": list(cells)})


def put(path: Path, text: str | bytes = "", modified: float = 1_000_000.0) -> Path:
    """Write a file, chapter 3 if nothing else is asked for, and say when."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = (text or notebook_of(code(ANSWER))) if isinstance(text, str) else text
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    os.utime(path, (modified, modified))
    return path


def students(folder: Path, **options) -> dict[str, Submission]:
    """All that was found, by student."""
    return {submission.student: submission for submission in find_submissions(folder, **options)}


def only(folder: Path) -> tuple[dict[str, HandedIn], list[str]]:
    """What the only student of a folder handed in."""
    (submission,) = find_submissions(folder)
    return hand_in(folder, submission)


# Layouts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "student"),
    [
        (f"student_1/{NAME}.ipynb", "student_1"),
        (f"Name_12345_assignsubmission_file_/{NAME}.ipynb", "Name_12345_assignsubmission_file_"),
        (f"student_1/week 3/homework/{NAME}.ipynb", "student_1"),
        (f"student_1/{NAME}/{NAME}.ipynb", "student_1"),  # nbgrader's submitted/STUDENT/ASSIGNMENT
        ("student_1/homework.IPYNB", "student_1"),
        (f"lovelace_ada_12345_{NAME} (1).ipynb", "lovelace_ada_12345"),
        (f"lovelaceada_12345_67890_{NAME}-1.ipynb", "lovelaceada_12345_67890"),
        (f"Copy of lovelace_ada_{NAME}.ipynb", "lovelace_ada"),
        (f"student 1 - {NAME}.ipynb", "student 1"),
        (f"student_1_{NAME.upper()}.ipynb", "student_1"),
    ],
)
def test_each_layout_names_its_student(tmp_path, file, student):
    put(tmp_path / file)
    found = students(tmp_path)
    assert list(found) == [student]
    assert found[student].files == [Path(file)] and not found[student].flags
    assert list(hand_in(tmp_path, found[student])[0]) == ["3"]


def test_folders_and_flat_files_may_lie_side_by_side(tmp_path):
    put(tmp_path / "student_1" / f"{NAME}.ipynb")
    put(tmp_path / f"student_1_{NAME}.ipynb")
    put(tmp_path / f"student_2_{NAME}.ipynb")
    assert {student: len(found.files) for student, found in students(tmp_path).items()} == {
        "student_1": 2,
        "student_2": 1,
    }


def test_a_flat_name_without_a_chapter_is_all_student_and_says_so(tmp_path):
    put(tmp_path / "homework (2).ipynb")
    (submission,) = find_submissions(tmp_path)
    assert submission.student == "homework"
    assert "names no chapter" in submission.flags[0]


@pytest.mark.parametrize("name", [f"{NAME}.ipynb", f"Copy of {NAME}.ipynb", f"{NAME} (1).ipynb"])
def test_a_flat_name_without_a_student_takes_the_folders_and_says_so(tmp_path, name):
    put(tmp_path / name)
    (submission,) = find_submissions(tmp_path)
    assert submission.student == tmp_path.name
    assert "names no student" in submission.flags[0]


def test_the_same_student_of_several_chapters_is_one(tmp_path):
    for chapter in CHAPTERS[:3]:
        put(tmp_path / f"student_7_{chapter.stem}.ipynb", writes(handed_in(chapter, {})))
    (submission,) = find_submissions(tmp_path)
    assert list(hand_in(tmp_path, submission)[0]) == ["1", "2", "3"]


def test_other_files_are_no_students(tmp_path):
    put(tmp_path / "readme.txt", "hello")
    put(tmp_path / "grades.csv", "a,b")
    assert not students(tmp_path)


def test_an_empty_folder_still_has_its_row(tmp_path):
    (tmp_path / "student_1").mkdir()
    put(tmp_path / "student_2" / "essay.pdf", "%PDF")
    found = students(tmp_path)
    assert [list(f.flags) for f in found.values()] == [["no notebook was handed in"]] * 2


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", "__MACOSX", ".git"])
def test_hidden_folders_are_passed_over_at_every_depth(tmp_path, hidden):
    put(tmp_path / hidden / f"{NAME}.ipynb")
    put(tmp_path / "student_1" / f"{NAME}.ipynb")
    put(tmp_path / "student_1" / hidden / f"{NAME}-checkpoint.ipynb", modified=2_000_000)
    put(tmp_path / "student_1" / "deeper" / hidden / f"{NAME}.ipynb", modified=2_000_000)
    assert students(tmp_path)["student_1"].files == [Path("student_1", f"{NAME}.ipynb")]
    assert len(students(tmp_path)) == 1


def test_the_shadow_files_of_a_mac_are_passed_over(tmp_path):
    put(tmp_path / f"._student_1_{NAME}.ipynb", b"\0\5\26\7")
    put(tmp_path / "student_1" / f"._{NAME}.ipynb", b"\0\5\26\7")
    put(tmp_path / "student_1" / f"{NAME}.ipynb")
    assert [len(found.files) for found in students(tmp_path).values()] == [1]


def test_the_folder_for_marks_is_nobodys_submission(tmp_path):
    put(tmp_path / "student_1" / f"{NAME}.ipynb")
    put(tmp_path / "marks" / "feedback" / "student_1.html", "<html>")
    assert list(students(tmp_path, without=tmp_path / "marks")) == ["student_1"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(NotADirectoryError, match="nowhere"):
        find_submissions(tmp_path / "nowhere")


# Links and other things that are no files ---------------------------------------------------------------


def test_a_linked_notebook_is_flagged_and_not_followed(tmp_path):
    secret = put(tmp_path / "elsewhere" / f"{NAME}.ipynb")
    folder = tmp_path / "in"
    (folder / "student_1").mkdir(parents=True)
    (folder / "student_1" / f"{NAME}.ipynb").symlink_to(secret)
    (folder / f"student_2_{NAME}.ipynb").symlink_to(secret)
    (folder / "student_3").symlink_to(secret.parent)
    (folder / "student_4" / "more").parent.mkdir()
    (folder / "student_4" / "more").symlink_to(secret.parent)
    found = students(folder)
    assert list(found) == ["student_1", "student_2", "student_3", "student_4"]
    for submission in found.values():
        assert not submission.files
        assert any("links are not followed" in flag for flag in submission.flags)


def test_a_file_that_becomes_a_link_after_it_was_found_is_not_followed(tmp_path):
    file = put(tmp_path / "in" / "student_1" / f"{NAME}.ipynb")
    (submission,) = find_submissions(tmp_path / "in")
    shutil.move(file, tmp_path / "kept.ipynb")
    file.symlink_to(tmp_path / "kept.ipynb")
    handed, flags = hand_in(tmp_path / "in", submission)
    assert not handed and "can't be opened" in flags[0]


def test_a_pipe_does_not_make_the_grader_wait(tmp_path):
    (tmp_path / "student_1").mkdir()
    os.mkfifo(tmp_path / "student_1" / f"{NAME}.ipynb")
    handed, flags = only(tmp_path)
    assert not handed and "is no ordinary file" in " ".join(flags)


def test_a_folder_named_like_a_notebook_is_no_notebook(tmp_path):
    put(tmp_path / "student_1" / "trap.ipynb" / f"{NAME}.ipynb")
    assert list(only(tmp_path)[0]) == ["3"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_flagged(tmp_path):
    put(tmp_path / "student_1" / f"{NAME}.ipynb").chmod(0)
    handed, flags = only(tmp_path)
    assert not handed and "can't be opened" in flags[0]


# Attempts ----------------------------------------------------------------------------------------------


def test_the_newest_attempt_counts_whatever_its_number(tmp_path):
    put(tmp_path / f"student_1_{NAME}.ipynb", modified=3_000_000)
    put(tmp_path / f"student_1_{NAME} (2).ipynb", modified=2_000_000)
    put(tmp_path / f"student_1_{NAME} (1).ipynb", modified=1_000_000)
    handed, flags = only(tmp_path)
    assert handed["3"].file == f"student_1_{NAME}.ipynb"
    assert [flag for flag in flags if "3 attempts" in flag]


@pytest.mark.parametrize("names", [("", " (1)", " (2)", " (10)"), ("", "-1", "-2", "-10")])
def test_of_attempts_as_old_as_each_other_the_highest_number_counts(tmp_path, names):
    for ending in names:
        put(tmp_path / f"student_1_{NAME}{ending}.ipynb")
    handed, flags = only(tmp_path)
    assert handed["3"].file == f"student_1_{NAME}{names[-1]}.ipynb"
    assert any("attempt" in flag and names[-1] in flag for flag in flags)


def test_an_unreadable_newer_attempt_does_not_hide_an_older_one(tmp_path):
    put(tmp_path / "student_1" / f"{NAME}.ipynb", modified=1_000_000)
    put(tmp_path / "student_1" / f"{NAME} (1).ipynb", "{broken", modified=2_000_000)
    handed, flags = only(tmp_path)
    assert handed["3"].file.endswith(f"{NAME}.ipynb")
    assert any("no valid JSON" in flag for flag in flags)


def test_one_attempt_is_not_flagged(tmp_path):
    put(tmp_path / "student_1" / f"{NAME}.ipynb")
    assert only(tmp_path)[1] == []


# Which chapter ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_the_chapter_is_read_from_the_content_not_from_the_name(tmp_path, chapter):
    misleading = CHAPTERS[(CHAPTERS.index(chapter) + 1) % len(CHAPTERS)].name
    put(tmp_path / "student_1" / misleading, writes(handed_in(chapter, {})))
    assert list(only(tmp_path)[0]) == [str(int(chapter.stem[:2]))]


def test_without_marks_the_chapter_is_the_one_whose_names_are_defined():
    cells = [{"cell_type": "code", "source": "def causal_softmax(x):\n    return x", "metadata": {}, "id": ""}]
    assert chapter_of(cells, Path("homework.ipynb")) == "3"


def test_without_any_exercise_the_chapter_is_the_one_in_the_name():
    assert chapter_of([], Path(f"Copy of {NAME}.ipynb")) == "3"


def test_a_pasted_exercise_of_another_chapter_does_not_change_the_chapter():
    cells = [code(f"# EXERCISE {e}\n") | {"id": ""} for e in ("1.1", "3.1", "3.2")]
    assert chapter_of(cells, Path("x.ipynb")) == "3"


@pytest.mark.parametrize(
    "cells", [[], [code("print('no exercise here')")], [code("# EXERCISE 99.1\nx = 1")], [code("# EXERCISE 0.1")]]
)
def test_a_notebook_of_another_course_is_flagged(tmp_path, cells):
    put(tmp_path / "student_1" / "homework.ipynb", notebook_of(*cells))
    handed, flags = only(tmp_path)
    assert not handed and "belongs to no chapter" in flags[0]


# Damaged files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\n", "is empty"),
        (b"   \t\n", "is empty"),
        (b'{"cells": [', "no valid JSON"),
        (b"%PDF-1.7", "no valid JSON"),
        (b"PK\x03\x04\xff\xfe\x00", "no valid JSON"),
        (b"[]", "no notebook"),
        (b"null", "no notebook"),
        (b'{"cells": 3}', "no notebook"),
        (b'{"nbformat": 3, "worksheets": 3}', "can be converted"),
        (b"[" * 200_000, "no valid JSON"),
        (b'{"cells":' * 100_000, "no valid JSON"),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else value,
)
def test_a_damaged_file_is_flagged_with_what_it_is(tmp_path, content, said):
    put(tmp_path / "student_1" / f"{NAME}.ipynb", content)
    handed, flags = only(tmp_path)
    assert not handed
    assert len(flags) == 1 and said in flags[0] and len(flags[0]) < 400


def test_an_empty_file_is_flagged(tmp_path):
    path = put(tmp_path / "student_1" / f"{NAME}.ipynb")
    path.write_bytes(b"")
    assert "is empty" in only(tmp_path)[1][0]


def test_deeply_nested_outputs_are_flagged_not_fatal(tmp_path):
    deep = '{"a":' * 50_000 + "1" + "}" * 50_000
    text = notebook_of(code(ANSWER)).replace('"outputs": []', f'"outputs": [{deep}]')
    put(tmp_path / "student_1" / f"{NAME}.ipynb", text)
    handed, flags = only(tmp_path)
    assert list(handed) == ["3"] or "no valid JSON" in flags[0]


def test_a_file_of_70_megabytes_is_refused_unread(tmp_path):
    path = put(tmp_path / "student_1" / f"{NAME}.ipynb")
    with path.open("r+b") as file:
        file.truncate(70 * 2**20)  # sparse: takes no room on the disk
    assert path.stat().st_size > MAX_FILE
    assert "too large (70 MB" in only(tmp_path)[1][0]


def test_a_notebook_with_too_many_cells_is_refused(tmp_path):
    put(tmp_path / "student_1" / "x.ipynb", notebook_of(*[code("x")] * 4000))
    assert "is too long (4000 cells)" in only(tmp_path)[1][0]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_every_encoding_that_editors_write_is_read(tmp_path, encoding):
    text = json.loads(notebook_of(code(ANSWER + "# für später: é")))
    put(tmp_path / "student_1" / "x.ipynb", json.dumps(text, ensure_ascii=False).encode(encoding))
    handed, flags = only(tmp_path)
    assert "für später: é" in handed["3"].code[0].source
    assert bool(flags) == (encoding == "cp1252")


def test_bytes_of_no_encoding_lose_only_themselves(tmp_path):
    content = notebook_of(code(ANSWER + "# HERE")).encode().replace(b"HERE", b"\x81\xff\x9d")
    put(tmp_path / "student_1" / "x.ipynb", content)
    handed, flags = only(tmp_path)
    assert "causal_softmax" in handed["3"].code[0].source
    assert "Windows-1252" in flags[0]


def test_half_a_surrogate_pair_is_read_like_any_character(tmp_path):
    put(tmp_path / "student_1" / "x.ipynb", notebook_of(code(ANSWER + "# \udce9")))
    assert "\udce9" in only(tmp_path)[0]["3"].code[0].source


def test_nbformat_3_is_converted(tmp_path):
    old = nbformat.convert(nbformat.from_dict(json.loads(notebook_of(code(ANSWER)))), 3)
    put(tmp_path / "student_1" / "x.ipynb", json.dumps(old))
    assert only(tmp_path)[0]["3"].code[0].exercise == "3.2"


def test_nbformat_4_0_without_ids_is_read(tmp_path):
    chapter = json.loads(writes(handed_in(CHAPTERS[2], {})))
    chapter["nbformat_minor"] = 0
    for cell in chapter["cells"]:
        del cell["id"]
    put(tmp_path / "student_1" / "x.ipynb", json.dumps(chapter))
    handed, flags = only(tmp_path)
    assert not flags
    assert {cell.exercise for cell in handed["3"].code} == {None, "3.1", "3.2", "3.3", "3.4", "3.5"}


@pytest.mark.parametrize("version", [None, "4", 99, -1, [], {}, True])
def test_an_odd_format_number_is_no_crash(tmp_path, version):
    notebook = json.loads(notebook_of(code(ANSWER))) | {"nbformat": version}
    put(tmp_path / "student_1" / "x.ipynb", json.dumps(notebook))
    handed, flags = only(tmp_path)
    assert handed or flags


# Odd cells ---------------------------------------------------------------------------------------------

ODD_CELLS = (
    None, 3, "text", [], {}, {"cell_type": None}, {"cell_type": "code"}, {"cell_type": []},
    code(None), code(3), code({}), code([]), code([None, 3, "x = 1"]), code(["a\n", ["b"]]),
    {"cell_type": "code", "source": "x", "metadata": []},
    {"cell_type": "code", "source": "x", "metadata": "none"},
    {"cell_type": "code", "source": "x", "metadata": None, "id": 7},
    code("x", tags=[{"a": 1}, None, ["training"]]), code("x", tags="training"), code("x", tags={"a": 1}),
    code("x", nbgrader=[]), code("x", nbgrader=None), code("x", nbgrader={"grade_id": 3}),
    code("x", nbgrader={"grade_id": "answer-3-2\n"}), code("x", nbgrader={"grade_id": "answer-99-99"}),
    code("x", nbgrader={"grade_id": "answer-³-²"}),
    {"cell_type": "raw", "source": "# EXERCISE 3.2", "metadata": {}},
    {"cell_type": "markdown", "source": None, "metadata": {}}, code("\0"), code("x" * 100_000),
)  # fmt: skip


@pytest.mark.parametrize("odd", ODD_CELLS, ids=lambda cell: repr(cell)[:60])
def test_an_odd_cell_does_not_hide_the_answer(tmp_path, odd):
    put(tmp_path / "student_1" / "x.ipynb", notebook_of(odd, code(ANSWER), odd))
    handed, _ = only(tmp_path)
    assert [cell.source for cell in handed["3"].code if cell.exercise == "3.2"][:1] == [ANSWER]


def test_a_grade_id_of_thousands_of_digits_does_not_hide_the_answer(tmp_path):
    odd = code("x", nbgrader={"grade_id": f"answer-{'9' * 5000}-1"})
    put(tmp_path / "student_1" / "x.ipynb", notebook_of(odd, code(ANSWER), odd))
    assert "3.2" in {cell.exercise for cell in only(tmp_path)[0]["3"].code}


def test_a_source_that_is_a_list_of_lines_is_joined(tmp_path):
    put(tmp_path / "student_1" / "x.ipynb", notebook_of(code(ANSWER.splitlines(keepends=True))))
    assert only(tmp_path)[0]["3"].code[0].source == ANSWER


# What is whose -----------------------------------------------------------------------------------------


def test_the_courses_own_cells_are_not_the_learners():
    chapter = handed_in(CHAPTERS[2], {})
    found = sorted_out([dict(cell) for cell in chapter.cells], "3", "x.ipynb")
    assert all(cell.exercise for cell in found.code if cell.is_own)


def test_a_changed_course_cell_is_the_learners_but_training_never_runs():
    cells = [dict(cell) for cell in handed_in(CHAPTERS[6], {}).cells]
    for cell in cells:
        if cell["cell_type"] == "code":
            cell["source"] += "\nprint('changed')"
    found = sorted_out(cells, "7", "x.ipynb").code
    tags = [cell["metadata"].get("tags", []) for cell in cells if cell["cell_type"] == "code"]
    assert {"training", "setup", "course"} <= {tag for some in tags for tag in some}
    for cell, its_tags in zip(found, tags, strict=True):
        assert cell.is_own == (not {"training", "setup", "check"} & set(its_tags))


def test_a_written_answer_is_found_without_its_heading():
    cells = [{"cell_type": "markdown", "source": "**EXERCISE 3.6**\n\nNothing leaks.", "metadata": {}, "id": ""}]
    assert sorted_out(cells, "3", "x.ipynb").written == {"3.6": "Nothing leaks."}


def test_a_written_answer_as_handed_out_is_empty():
    cells = [dict(cell) for cell in handed_in(CHAPTERS[2], {}).cells]
    assert sorted_out(cells, "3", "x.ipynb").written == {"3.6": ""}


def test_the_file_is_read_once_however_it_grows(tmp_path):
    path = put(tmp_path / "x.ipynb")
    cells, modified, remarks = read_cells(path)
    assert len(cells) == 1 and modified == 1_000_000 and not remarks


def test_what_is_no_file_is_an_unreadable_one(tmp_path):
    with pytest.raises(UnreadableError, match="can't be opened"):
        read_cells(tmp_path / "gone.ipynb")


def test_a_folder_in_place_of_a_file_is_unreadable(tmp_path):
    with pytest.raises(UnreadableError):
        read_cells(tmp_path)


@pytest.mark.parametrize("prefix", ["Copy of ", "Kopie von ", "Copie de ", "Copia de "])
def test_the_words_that_drives_put_before_copies_are_no_part_of_the_student(prefix):
    assert student_of(Path(f"{prefix}student_1_{NAME}.ipynb"), Path("in"))[0] == "student_1"


@pytest.mark.parametrize(
    "spelled",
    [
        "Lovelace_Ada_03_Causal_Attention.ipynb",
        "lovelace_ada_03 causal attention.ipynb",
    ],
)
def test_other_spellings_of_the_chapter_still_end_the_students_name(tmp_path, spelled):
    assert student_of(Path(spelled), tmp_path)[0].lower() == "lovelace_ada"
