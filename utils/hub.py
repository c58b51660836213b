"""Published models: fetched from the Hugging Face hub once, and checked before each use."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from torch import Tensor

FILES = ("config.json", "model.safetensors")
# What the presets of `utils.gpt` are called on the hub.
HUB_NAMES = {name: f"openai-community/{name}" for name in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")}


def fetch_pretrained(name: str) -> Path:
    """The folder that holds a model's ``config.json`` and ``model.safetensors``, downloaded where needed.

    What was downloaded once is used without asking the hub, unless it was damaged on the disk.

    Args:
        name: a local folder, a short name such as "gpt2", or a repository on the hub.

    Raises:
        RuntimeError: a file can't be had, or is still damaged after a second download.

    Example:
        >>> fetch_pretrained("gpt2").name  # doctest: +SKIP
        '607a30d783dfa663caf39e06633721c8d4cfcd7e'
    """
    folder = Path(name)
    if folder.is_dir():
        missing = [file for file in FILES if not (folder / file).is_file()]
        if missing:
            raise RuntimeError(f"the folder {name} lacks {' and '.join(missing)}")
        return folder
    repository = HUB_NAMES.get(name, name)
    return _cached(repository) or [_fetch(repository, file) for file in FILES][-1].parent


def read_pretrained(folder: Path) -> tuple[dict, dict[str, Tensor]]:
    """The configuration and the tensors in a folder that ``fetch_pretrained`` gave.

    Raises:
        RuntimeError: a file is damaged.

    Example:
        >>> config, tensors = read_pretrained(fetch_pretrained("gpt2"))  # doctest: +SKIP
    """
    # imported here, because few readers load published weights
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = "config.json"
    try:
        config = json.loads((folder / file).read_text(encoding="utf-8"))
        file = "model.safetensors"
        return config, load_file(folder / file)
    except (ValueError, SafetensorError) as error:
        raise RuntimeError(f"{folder / file} is damaged ({error}); download it again") from error


def _cached(repository: str) -> Path | None:
    # imported here, because few readers need it and it takes a second
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [try_to_load_from_cache(repository, file) for file in FILES]
    except HFValidationError:  # no name that a repository could have: the download says so
        return None
    paths = [Path(path) for path in found if isinstance(path, str)]
    return paths[0].parent if len(paths) == len(FILES) and all(map(is_intact, paths)) else None


def _fetch(repository: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        path = Path(hf_hub_download(repository, file))
        if not is_intact(path):
            path = Path(hf_hub_download(repository, file, force_download=True))
    # many kinds of failure (no network, a proxy, no such repository, a full disk), one thing to be said
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RuntimeError(
            f"{file} of {repository} could not be fetched: {reason}\n"
            f"Go online and try again; or download {' and '.join(FILES)} by hand from "
            f"https://huggingface.co/{repository}/tree/main into a folder and give that folder's path."
        ) from error
    if not is_intact(path):
        raise RuntimeError(f"{file} of {repository} is damaged, even after a second download; is the disk full?")
    return path


def is_intact(path: Path) -> bool:
    """Whether a file in the hub's cache has the content that its name promises.

    The cache names each file after its checksum: sha256 for large files, git's sha1 for small ones. Where the
    disk knows no links the name is lost; then there is nothing to compare, and the file counts as intact.

    Example:
        >>> is_intact(Path(__file__))
        True
    """
    checksum = path.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", checksum):
        digest = hashlib.sha256()
    elif re.fullmatch(r"[0-9a-f]{40}", checksum):
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
    else:
        return True
    with path.open("rb") as stream:
        while piece := stream.read(2**20):
            digest.update(piece)
    return digest.hexdigest() == checksum
