"""Data files: checked, cached, replaced, rebuilt. Sources are injected unless a test says otherwise."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils import data, fetching
from utils.fetching import DataFile, DataUnavailableError, Source, fetch

REPOSITORY = Path(__file__).resolve().parent.parent
CONTENT = b"To be, or not to be\n" * 50
NO_ANSWER = "nobody answers"


def unreachable() -> bytes:
    raise OSError(NO_ANSWER)


def file_from(*reads: Callable[[], bytes], content: bytes = CONTENT) -> DataFile:
    sources = tuple(Source(f"source {number}", read) for number, read in enumerate(reads, start=1))
    return DataFile("play.txt", len(content), hashlib.sha256(content).hexdigest(), sources)


class Counted:
    """A source that counts how often it is asked."""

    def __init__(self, content: bytes = CONTENT) -> None:
        self.content, self.calls = content, 0

    def __call__(self) -> bytes:
        self.calls += 1
        return self.content


# The cache


def test_second_call_reads_the_cache(tmp_path):
    source = Counted()
    first = fetch(file_from(source), tmp_path)
    second = fetch(file_from(source), tmp_path)
    assert (first.origin, second.origin, source.calls) == ("source 1", "cache", 1)
    assert first.content == second.content == CONTENT
    assert first.path == second.path == tmp_path / "play.txt"


@pytest.mark.parametrize(
    "damaged", [b"", CONTENT[:-1], CONTENT.replace(b"\n", b"\r\n"), "é".encode("latin-1")],
    ids=["empty", "cut", "crlf", "not-utf8"],
)  # fmt: skip
def test_damaged_cache_is_replaced(tmp_path, damaged):
    (tmp_path / "play.txt").write_bytes(damaged)
    assert fetch(file_from(Counted()), tmp_path).content == CONTENT
    assert (tmp_path / "play.txt").read_bytes() == CONTENT


def test_damaged_cache_is_never_used_when_nothing_is_reachable(tmp_path):
    (tmp_path / "play.txt").write_bytes(b"damaged")
    with pytest.raises(DataUnavailableError, match=r"cached copy .*play\.txt: wrong content \(7 bytes"):
        fetch(file_from(unreachable), tmp_path)


def test_interrupted_download_leaves_nothing(tmp_path):
    def interrupted() -> bytes:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(file_from(interrupted), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*paths: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(file_from(Counted()), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def own_folders(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """A stand-in for `data/` and for the user's cache folder."""
    monkeypatch.setattr(fetching, "DATA_FOLDER", tmp_path / "data")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return tmp_path / "data", tmp_path / "user" / "attention-course"


def test_files_go_to_the_data_folder_first(own_folders):
    folder, user_folder = own_folders
    assert fetch(file_from(Counted())).path == folder / "play.txt"
    assert not user_folder.exists()


def test_unwritable_data_folder_falls_back_to_the_users_cache(own_folders):
    folder, user_folder = own_folders
    folder.write_text("a file where the folder should be")
    source = Counted()
    assert fetch(file_from(source)).path == user_folder / "play.txt"
    assert fetch(file_from(source)).origin == "cache"
    assert source.calls == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_data_folder_falls_back_to_the_users_cache(own_folders):
    folder, user_folder = own_folders
    folder.mkdir()
    folder.chmod(0o555)
    try:
        assert fetch(file_from(Counted())).path == user_folder / "play.txt"
    finally:
        folder.chmod(0o755)


def test_content_is_returned_when_no_folder_can_be_written(own_folders, tmp_path):
    (tmp_path / "data").write_text("")
    (tmp_path / "user").write_text("")
    fetched = fetch(file_from(Counted()))
    assert (fetched.content, fetched.path) == (CONTENT, None)


def test_given_folder_is_the_only_one_used(own_folders, tmp_path):
    fetch(file_from(Counted()), tmp_path / "here")
    assert {path.name for path in tmp_path.iterdir()} == {"here"}


RIVAL = """
import hashlib, sys
from utils.fetching import DataFile, Source, fetch
content = sys.argv[2].encode() * 3_000_000
sha256 = hashlib.sha256(content).hexdigest()
file = DataFile("play.txt", len(content), sha256, (Source("memory", lambda: content),))
assert all(fetch(file, sys.argv[1]).content == content for _ in range(25))
"""


def test_two_processes_never_see_half_a_file(tmp_path):
    # Each process takes the other's file for a damaged one and replaces it, again and again.
    command = [sys.executable, "-c", RIVAL, str(tmp_path)]
    rivals = [subprocess.Popen([*command, letter], cwd=REPOSITORY) for letter in "ab"]
    seen = set()
    while any(rival.poll() is None for rival in rivals):
        if (tmp_path / "play.txt").exists():
            content = (tmp_path / "play.txt").read_bytes()
            seen.add((len(content), bytes(set(content))))
    assert [rival.returncode for rival in rivals] == [0, 0]
    assert seen <= {(3_000_000, b"a"), (3_000_000, b"b")}
    assert [path.name for path in tmp_path.iterdir()] == ["play.txt"]


# Sources and the one error


def test_sources_are_tried_in_order_until_one_is_right(tmp_path):
    last = Counted()
    fetched = fetch(file_from(unreachable, Counted(b"<html>log in</html>"), Counted(), last), tmp_path)
    assert (fetched.origin, fetched.content, last.calls) == ("source 3", CONTENT, 0)


def test_wrong_content_is_never_stored(tmp_path):
    with pytest.raises(DataUnavailableError):
        fetch(file_from(Counted(b"<html>log in</html>")), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_error_says_what_was_tried_and_what_to_do(own_folders, monkeypatch):
    monkeypatch.setattr(fetching, "REPOSITORY", own_folders[0].parent)
    portal = b"<html>log in</html>"
    file = file_from(unreachable, Counted(portal))
    with pytest.raises(DataUnavailableError) as caught:
        fetch(file)
    message = str(caught.value)
    assert f"source 1: {NO_ANSWER}" in message
    assert f"source 2: wrong content (19 bytes, sha256 {hashlib.sha256(portal).hexdigest()}" in message
    assert f"by hand at data/play.txt: 1,000 bytes, sha256 {file.sha256}" in message


def test_file_put_there_by_hand_is_used(tmp_path):
    (tmp_path / "play.txt").write_bytes(CONTENT)
    assert fetch(file_from(unreachable), tmp_path).content == CONTENT


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/missing":
            return self.send_error(404)
        if self.path == "/silent":
            return time.sleep(2)
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:100] if self.path in ("/cut", "/stalled") else CONTENT)
        if self.path == "/stalled":
            time.sleep(2)
        return None

    def log_message(self, *arguments: object) -> None:
        """Say nothing: the tests look at stderr."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_download_is_silent_where_nobody_watches(server, capfd):
    assert fetching.download(f"{server}/play", len(CONTENT)) == CONTENT
    assert capfd.readouterr() == ("", "")


def test_download_reads_hardly_more_than_expected(server):
    assert len(fetching.download(f"{server}/play", 10)) == 11


def test_cut_download_is_refused(server, tmp_path):
    with pytest.raises(DataUnavailableError, match=r"wrong content \(100 bytes"):
        fetch(file_from(partial(fetching.download, f"{server}/cut", len(CONTENT))), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("page", ["silent", "stalled"])
def test_silent_server_is_given_up_soon(server, page):
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        fetching.download(f"{server}/{page}", len(CONTENT), answer_seconds=0.2)
    assert time.monotonic() - start < 1.5


def test_slow_name_lookup_is_given_up_soon(monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", lambda *arguments, **options: time.sleep(2))
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.2 s"):
        fetching.download("http://play.invalid/", 1, answer_seconds=0.2)
    assert time.monotonic() - start < 1.5


def test_slow_download_is_given_up(server):
    with pytest.raises(TimeoutError, match="not complete after 0 s"):
        fetching.download(f"{server}/play", len(CONTENT), total_seconds=0)


def test_missing_page_is_an_error(server):
    with pytest.raises(OSError, match="404"):
        fetching.download(f"{server}/missing", 1)


def pip_stand_in(folder: Path, script: str) -> str:
    """Return a program that plays `python -m pip`."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for pip is a shell script")
@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo python: No module named pip >&2; exit 1", "pip: python: No module named pip"),
        ("exit 3", "pip: ended with code 3"),
        ("exit 0", "pip: ended with code 0"),
        ("exec sleep 5", r"pip did not finish within 0\.3 s"),
    ],
    ids=["no-pip", "no-message", "no-wheel", "hangs"],
)
def test_failing_pip_is_reported_and_stays_silent(tmp_path, monkeypatch, capfd, script, message):
    monkeypatch.setattr(sys, "executable", pip_stand_in(tmp_path, script))
    with pytest.raises(OSError, match=message):
        fetching.wheel_from_index("package==1", "0" * 64, seconds=0.3 if "sleep" in script else 30)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for pip is a shell script")
def test_wheel_with_another_checksum_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", pip_stand_in(tmp_path, "echo not a wheel > package.whl"))
    with pytest.raises(ValueError, match=r"wrong content .* expected 0000"):
        fetching.wheel_from_index("package==1", "0" * 64)


# The corpus


def test_corpus_is_the_known_text():
    text = data.load_tinyshakespeare()
    assert (len(text), len(set(text)), text.isascii()) == (1_115_394, 65, True)
    assert text.startswith("First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\n")
    assert hashlib.sha256(text.encode()).hexdigest() == data.TINYSHAKESPEARE.sha256


def test_corpus_is_rebuilt_from_the_package_index(capfd):
    # This one test asks the real package index.
    assert hashlib.sha256(data.rebuild_tinyshakespeare()).hexdigest() == data.TINYSHAKESPEARE.sha256
    assert capfd.readouterr() == ("", "")


def test_package_index_is_the_last_resort():
    kinds = [source.label.split()[0] for source in data.TINYSHAKESPEARE.sources]
    assert kinds == ["download", "download", "rebuilt"]


PLAY = r"""# A play

### SCENE I. A street.

_Enter two Citizens, with
clubs_

**First & Second**<>
Hear me.<>
'Speak'\--

_Exit_

I go on.

**All**<>
_\[Within]_<>
Lost.

Lost as well.

**Third**<>
So do I:

_\[Aside]_<>
being well.<>
And _\[kneeling,]_<>
dropped<>
kept.
""".replace("<>", "  ")  # two spaces end a line in Markdown, but an editor may remove them here


def test_play_is_read_as_speeches():
    assert data.speeches(PLAY) == [
        "First:\nHear me.\n'Speak'--\nI go on.\n",
        "All:\n",
        "Third:\nSo do I:\nbeing well.\nAnd\nkept.\n",
    ]


def test_corrections_apply_at_their_positions():
    assert data.apply_corrections("in m y view", [(0, "in", "In"), (3, "m y", "my")]) == "In my view"


@pytest.mark.parametrize(
    ("corrections", "message"),
    [
        ([(4, "m y", "my")], "at 4 expects 'm y' but found ' y '"),
        ([(11, "x", "y")], "at 11 expects 'x' but found ''"),
        ([(3, "", "x")], "at 3 expects ''"),
        ([(3, "m y", "my"), (5, "y", "z")], "at 5 overlaps"),
    ],
    ids=["elsewhere", "past-the-end", "unchecked", "overlap"],
)
def test_correction_that_does_not_fit_is_refused(corrections, message):
    with pytest.raises(ValueError, match=message):
        data.apply_corrections("in m y view", corrections)


def test_stale_corrections_do_not_change_the_corpus_silently(tmp_path, monkeypatch):
    stale = tmp_path / "corrections.json"
    stale.write_text(json.dumps([[0, "Second", "First"]]))
    monkeypatch.setattr(data, "CORRECTIONS_FILE", stale)
    monkeypatch.setattr(data, "draft_corpus", lambda: "First Citizen:\n")
    with pytest.raises(ValueError, match="at 0 expects 'Second' but found 'First '"):
        data.rebuild_tinyshakespeare()


LINES = st.lists(st.sampled_from(["", "All:", "to be", "to  be", "Yes, my lord."]), max_size=12)


@settings(deadline=None)
@given(kept=LINES, changed=LINES, rest=LINES)
def test_derived_corrections_turn_the_draft_into_the_corpus(kept, changed, rest):
    corpus = "\n".join(["Start", *kept, *changed, "The end."]) + "\n"
    draft = "\n".join(["Start", *kept, *rest, "The end.", "The rest."]) + "\n"
    try:
        corrections = data.derive_corrections(draft, corpus)
    except ValueError:
        return  # refusing is allowed, a wrong result is not
    assert data.apply_corrections(draft, corrections).startswith(corpus)


def test_derived_corrections_are_small_and_carry_text_to_check():
    draft = "All:\nWhat?\nYou m ay.\nOut.\nNo more.\nTail.\n"
    corpus = "All:\nWhat?  Now\nYou may.\nNo more.\nTITLE\n"
    corrections = data.derive_corrections(draft, corpus)
    assert data.apply_corrections(draft, corrections).startswith(corpus)
    assert all(old.strip() for _, old, _ in corrections)


def test_corrections_stay_small():
    assert (REPOSITORY / "data" / "tinyshakespeare_corrections.json").stat().st_size < 10_000


def test_corrections_are_only_derived_from_the_right_corpus(tmp_path, capsys):
    wrong = tmp_path / "input.txt"
    wrong.write_bytes(b"First Citizen:\r\n")
    before = data.CORRECTIONS_FILE.read_bytes()
    assert data.main(["--derive-corrections", str(wrong)]) == 1
    assert "wrong content (16 bytes" in capsys.readouterr().err
    assert data.CORRECTIONS_FILE.read_bytes() == before


# Splitting


def test_split_keeps_the_first_nine_tenths_for_training():
    train, val = data.train_val_split(torch.arange(19))
    assert (train.tolist(), val.tolist()) == (list(range(17)), [17, 18])


@settings(deadline=None)
@given(text=st.text(), fraction=st.floats(0.01, 0.99))
def test_split_loses_nothing(text, fraction):
    train, val = data.train_val_split(text, fraction)
    assert (train + val, len(train)) == (text, int(fraction * len(text)))


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 90, float("nan")])
def test_split_refuses_a_fraction_outside_0_to_1(fraction):
    with pytest.raises(ValueError, match="train_fraction must be between 0 and 1"):
        data.train_val_split("abc", fraction)


# The command line


def run_module(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "utils.data"], cwd=folder, env={**os.environ, **environment},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_command_fetches_everything_and_says_where_it_is():
    done = run_module(REPOSITORY)
    assert (done.returncode, done.stderr) == (0, "")
    for expected in (
        "1,115,394 characters, 1,115,394 bytes",
        "1,042,301 bytes",
        data.TINYSHAKESPEARE.sha256,
        "origin: ",
        "stored: data/tinyshakespeare.txt",
        "stored: data/gpt2/encoder.json",
        "50,257 tokens",
    ):
        assert expected in done.stdout


def test_command_fails_with_the_clear_error_when_nothing_is_reachable(tmp_path):
    # A fresh copy of the code without a cache, every address sent to a port where nobody listens.
    shutil.copytree(REPOSITORY / "utils", tmp_path / "utils", ignore=shutil.ignore_patterns("__pycache__"))
    dead = "http://127.0.0.1:9"
    done = run_module(
        tmp_path, http_proxy=dead, https_proxy=dead, no_proxy="", NO_PROXY="", XDG_CACHE_HOME=str(tmp_path),
        PIP_NO_INDEX="1", PIP_FIND_LINKS="", PIP_CONFIG_FILE=os.devnull, PYTHONPATH="",
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("tinyshakespeare.txt could not be fetched.")
    assert all(f"  - {source.label}: " in done.stderr for source in data.TINYSHAKESPEARE.sources)
    assert f"data/tinyshakespeare.txt: 1,115,394 bytes, sha256 {data.TINYSHAKESPEARE.sha256}" in done.stderr
    assert not (tmp_path / "data").exists()


IS_GIT_CHECKOUT = (REPOSITORY / ".git").exists() and shutil.which("git") is not None


@pytest.mark.skipif(not IS_GIT_CHECKOUT, reason="not a Git checkout")
@pytest.mark.parametrize(
    ("path", "ignored"),
    [
        ("data/tinyshakespeare.txt", True),
        ("data/gpt2/encoder.json", True),
        ("data/.tinyshakespeare.txt.0.part", True),
        ("data/tinyshakespeare_corrections.json", False),
        ("data/README.md", False),
    ],
)
def test_git_ignores_what_is_fetched_and_nothing_else(path, ignored):
    done = subprocess.run(["git", "check-ignore", "--no-index", "-q", path], cwd=REPOSITORY, check=False)
    assert (done.returncode == 0) is ignored
