"""Before anything is installed: can the course be installed here? `make` runs this file with the Python it was given.

    python3 utils/preflight.py

Only Python's own modules are there at this moment, and Python may be an old one. Exit code 0 if nothing is in the way;
else 1, with one sentence for each thing that is, and how to mend it.
"""

import importlib.util
import os
import shutil
import sys

MINIMUM_PYTHON = (3, 10)
NEEDED_GB = 3  # measured: 1.9 GB with PyTorch's CPU build, plus room for pip's downloads
GB = 10**9


def obstacles(folder: str = ".") -> list:
    """What keeps the course from being installed into ``folder``, a sentence each.

    Example:
        >>> obstacles()
        []
    """
    found = []
    if sys.version_info < MINIMUM_PYTHON:
        found.append(
            "This course needs Python {}.{} or newer, and {} is {}. If you have a newer one, name it: "
            "make lab PYTHON=python3.12".format(*MINIMUM_PYTHON, sys.executable, sys.version.split()[0])
        )
    elif not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
        found.append(
            "This Python can't make environments (its module venv or ensurepip is missing). On Debian and Ubuntu: "
            "sudo apt install python3-venv"
        )
    if not os.access(folder, os.W_OK):
        found.append(f"Nothing can be written into {os.path.abspath(folder)}. Copy the course to a folder of yours.")
    free = shutil.disk_usage(folder).free / GB
    if free < NEEDED_GB:
        found.append(
            f"The disk of {os.path.abspath(folder)} has {free:.1f} GB left; installing needs {NEEDED_GB} GB. "
            "Make room, or copy the course to another disk."
        )
    return found


def main() -> int:
    """The command line; returns the exit code."""
    found = obstacles()
    for sentence in found:
        print(sentence, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
