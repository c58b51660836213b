"""Files that are there in full or not at all, whenever the run is killed."""

import contextlib
import os
import re
import uuid
from pathlib import Path

LEFTOVER = re.compile(r"\..+\.tmp-[0-9a-f]{32}", re.DOTALL)


def write_text(path: Path, text: str) -> None:
    r"""Write a text file in one step, as UTF-8 with the line ends that ``text`` has.

    Half of a surrogate pair, which UTF-8 can't hold, is written as what it is: ``\udce9``.

    Raises:
        OSError: the folder can't be written. What was there before is untouched.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "name"
        >>> write_text(path, "Zo\udce9")
        >>> print(path.read_text(encoding="utf-8"))
        Zo\udce9
    """
    # in the same folder, because os.replace is atomic on one disk only
    temporary = path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex}")
    try:
        # O_BINARY is Windows' word for leaving line ends alone
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with open(os.open(temporary, flags, 0o644), "wb") as file:
            file.write(text.encode("utf-8", "backslashreplace"))
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove what runs that were killed left half-written in ``folder``.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / f".grades.csv.tmp-{'0' * 32}").touch()
        >>> remove_leftovers(folder)
        >>> list(folder.iterdir())
        []
    """
    for path in list(folder.iterdir()):
        if LEFTOVER.fullmatch(path.name):
            path.unlink()
