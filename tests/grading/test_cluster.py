"""Several machines, for which two processes of Dask's on this one stand: the same marks as without them."""

import os
import random

import pytest
from classroom import CHAPTERS, PROFILES, chosen, handed_in, written

from utils.grading.__main__ import main

if os.environ.get("CI") != "true":
    pytest.importorskip("distributed", reason="pip install -r tests/requirements.txt")


@pytest.fixture(scope="module")
def scheduler():
    """The address of a cluster of two processes."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        yield cluster.scheduler_address


@pytest.mark.usefixtures("needs_sandbox")
def test_a_cluster_gives_the_marks_of_this_machine(scheduler, tmp_path, monkeypatch):
    # a wrong answer may earn more on other cases
    monkeypatch.setattr("utils.grading.batch.secrets.randbits", lambda bits: 7)
    folder = tmp_path / "in"
    for number in range(3):
        draws = random.Random(number)
        answers = chosen(CHAPTERS[2], PROFILES["partly right"][0], draws, seed=0)
        written(handed_in(CHAPTERS[2], answers), folder / f"student_{number}" / CHAPTERS[2].name)
    options = {"here": ["--jobs", "2"], "there": ["--scheduler", scheduler]}
    for name, words in options.items():
        assert main([str(folder), "--out", str(tmp_path / name), *words]) == 0
    for file in ("grades.csv", "written.csv", *(f"feedback/student_{number}.html" for number in range(3))):
        assert (tmp_path / "here" / file).read_bytes() == (tmp_path / "there" / file).read_bytes(), file


@pytest.mark.usefixtures("needs_sandbox")
def test_a_cluster_that_is_not_there_is_told(tmp_path, capsys):
    written(handed_in(CHAPTERS[0], {}), tmp_path / "in" / "student_1" / CHAPTERS[0].name)
    words = [str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--scheduler", "tcp://127.0.0.1:1"]
    assert main(words) == 2
    assert "Nothing was marked" in capsys.readouterr().err
