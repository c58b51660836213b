"""The course as a newcomer gets it: a copy of what is tracked, somewhere else, with or without git."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from utils.release import ROOT

FETCHED = ("tinyshakespeare.txt", "gpt2/encoder.json", "gpt2/vocab.bpe")  # what `make data` has put into data/


def git(*arguments: str, folder: Path = ROOT) -> str:
    """What a git command prints."""
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


def copied_course(folder: Path) -> Path:
    """Copy the course's files as they are now, changes that are not committed included, into a new folder."""
    for name in git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def committed_course(folder: Path) -> Path:
    """The same, as a git repository of one commit that can be cloned."""
    copied_course(folder)
    git("init", "--quiet", "--initial-branch=main", folder=folder)
    git("add", "--all", folder=folder)
    git("-c", "user.name=course", "-c", "user.email=", "commit", "--quiet", "--message=course", folder=folder)
    return folder


def copy_fetched_data(folder: Path) -> None:
    """Copy the corpus and the vocabulary, where they have been fetched, so that they are not fetched once more."""
    for name in FETCHED:
        if (ROOT / "data" / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / "data" / name, folder / name)
