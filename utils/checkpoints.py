"""Checkpoints: a training run on the disk, complete enough to go on as if it had never stopped."""

from __future__ import annotations

import os
import uuid
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

FORMAT = 1
KEYS = {"format", "model", "optimizer", "optimizer_kind", "step", "config", "random"}


def save_checkpoint(
    path: str | Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    generators: Sequence[torch.Generator] = (),
) -> None:
    """Write model, optimizer, step and random state in one piece: a reader sees the old file or the new one.

    Args:
        path: of the file; its folder is made where missing.
        model: its ``cfg``, if it has one, is kept as well.
        optimizer: its moments belong to the run as much as the weights do.
        step: how many steps are done.
        generators: further sources of randomness, such as the one that draws the batches.

    Raises:
        OSError: the file can't be written; an older one of that name is left as it was.

    Example:
        >>> import tempfile
        >>> model = nn.Linear(2, 1)
        >>> optimizer = torch.optim.AdamW(model.parameters())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_checkpoint(f"{folder}/run.pt", model, optimizer, step=7)
        ...     load_checkpoint(f"{folder}/run.pt", model, optimizer)
        7
    """
    path, model = Path(path), _plain(model)
    content = {
        "format": FORMAT,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "optimizer_kind": _kind_of(optimizer),
        "step": step,
        "config": _config_of(model),
        "random": [generator.get_state() for generator in (*_global_generators(), *generators)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # written beside the target, because os.replace is atomic on one disk only
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with temporary.open("wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())  # or a power cut could leave a new name on an empty file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(
    path: str | Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    generators: Sequence[torch.Generator] = (),
) -> int:
    """Bring a run back to where ``save_checkpoint`` left it. Nothing is changed unless everything fits.

    Args:
        path: of the file.
        model: built as the saved one was.
        optimizer: the run's; None to use the model only, which leaves all random states alone.
        generators: as many as were saved.

    Returns:
        how many steps are done.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint, is damaged, or belongs to another model, optimizer or number of
            generators. The message says what differs.

    Example:
        see ``save_checkpoint``
    """
    model = _plain(model)
    saved = _read(path)
    _compare_configs(saved["config"], _config_of(model))
    _compare_tensors(saved["model"], model.state_dict())
    if optimizer is not None:
        sources = (*_global_generators(), *generators)
        if len(sources) != len(saved["random"]):
            raise ValueError(
                f"the checkpoint holds the state of {len(saved['random'])} random generators, got {len(sources)} "
                "(PyTorch's own ones included)"
            )
        _compare_optimizers(saved["optimizer_kind"], _kind_of(optimizer))
        pairs = list(zip(sources, saved["random"], strict=True))
        for generator, state in pairs:
            _try_out(generator, state)
        optimizer.load_state_dict(saved["optimizer"])
        for generator, state in pairs:
            generator.set_state(state)
    model.load_state_dict(saved["model"])
    return saved["step"]


def _plain(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, DistributedDataParallel) else model


def _global_generators() -> list[torch.Generator]:
    on_gpu = torch.cuda.is_available()
    return [torch.default_generator, *([torch.cuda.default_generators[torch.cuda.current_device()]] if on_gpu else [])]


def _config_of(model: nn.Module) -> dict | None:
    cfg = getattr(model, "cfg", None)
    return asdict(cfg) if is_dataclass(cfg) else None


def _kind_of(optimizer: torch.optim.Optimizer) -> dict:
    shapes = [[tuple(parameter.shape) for parameter in group["params"]] for group in optimizer.param_groups]
    return {"class": type(optimizer).__name__, "shapes": shapes}


def _compare_optimizers(saved: dict, given: dict) -> None:
    # PyTorch counts the parameters only: it would take the moments of other ones, or of another method
    if saved["class"] != given["class"]:
        raise ValueError(f"the checkpoint belongs to another optimizer: {saved['class']}, here {given['class']}")
    if saved["shapes"] != given["shapes"]:
        sizes = [[len(group) for group in kind["shapes"]] for kind in (saved, given)]
        raise ValueError(
            "the checkpoint belongs to another optimizer: the parameters in its groups differ in number, order "
            f"or shape (groups of {sizes[0]}, here of {sizes[1]})"
        )


def _try_out(generator: torch.Generator, state: torch.Tensor) -> None:
    try:
        torch.Generator(generator.device).set_state(state)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"the checkpoint holds no state for a generator on {generator.device}: {error}") from error


def _read(path: str | Path) -> dict:
    try:
        with zipfile.ZipFile(path) as archive:  # PyTorch doesn't compare the checksums
            if damaged := archive.testzip():
                raise ValueError(f"the checksum of {damaged} is wrong")
        saved = torch.load(path, map_location="cpu", weights_only=True)  # data only: a file can't run code
    except (zipfile.BadZipFile, RuntimeError, EOFError, UnpicklingError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{path} is no checkpoint, or it is damaged: {reason[0]}") from error
    if not isinstance(saved, dict) or saved.get("format") != FORMAT or set(saved) != KEYS:
        raise ValueError(f"{path} is no checkpoint of this course")
    return saved


def _compare_configs(saved: dict | None, given: dict | None) -> None:
    if saved is None or given is None:
        return
    # which kernel computes is no property of the weights
    names = [name for name in {**saved, **given} if name != "fused" and saved.get(name) != given.get(name)]
    if names:
        different = ", ".join(f"{name}={saved.get(name)!r} (here {given.get(name)!r})" for name in names)
        raise ValueError(f"the checkpoint belongs to a model with {different}")


def _compare_tensors(saved: dict, given: dict) -> None:
    for name in {**saved, **given}:
        shapes = [tuple(tensors[name].shape) if name in tensors else "none" for tensors in (saved, given)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"{name}: the checkpoint has shape {shapes[0]}, the model {shapes[1]}")
