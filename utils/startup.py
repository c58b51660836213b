"""What the setup cell of every notebook runs: is all there, is it the right one, which device will be used.

It is run by its path, so that no other package named ``utils`` can come before it, and it imports nothing but
Python's own modules until it knows that the rest is there.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

OLDEST_TORCH = (2, 5)
# What the chapters import. The versions stand in requirements.txt.
LEARNER_PACKAGES = ("torch", "numpy", "matplotlib", "tiktoken", "tqdm", "safetensors")
REQUIREMENT = re.compile(r"^([A-Za-z0-9_-]+)[^#\n]*", re.M)


def prepare(course: Path, in_colab: bool = False) -> None:
    """Make ``import utils`` find the course, install what Colab lacks, and say which device will be used.

    Args:
        course: the course's folder, the one that holds ``utils/``.
        in_colab: whether this kernel runs in Google Colab. Nothing is ever installed elsewhere.

    Raises:
        RuntimeError: Python or PyTorch is too old, or a package is missing and can't be installed.

    Example:
        >>> prepare(Path.cwd())
        Ready. Device: CPU. Every chapter is sized for it.
    """
    _put_first(course)
    from utils.preflight import MINIMUM_PYTHON

    if sys.version_info < MINIMUM_PYTHON:
        raise RuntimeError(
            f"This course needs Python {'.'.join(map(str, MINIMUM_PYTHON))} or newer; "
            f"this kernel runs {sys.version.split()[0]} ({sys.executable}). {_other_kernel()}"
        )
    _install_missing(course, in_colab)
    _compare_torch(course)
    from utils.hints import explain_unknown_names

    explain_unknown_names(getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)())
    print(_ready(in_colab))


def missing_packages(names: tuple[str, ...] = LEARNER_PACKAGES) -> list[str]:
    """Those packages that can't be imported here.

    Example:
        >>> missing_packages(("torch", "no_such_package"))
        ['no_such_package']
    """
    return [name for name in names if importlib.util.find_spec(name) is None]


def requirements(course: Path) -> dict[str, str]:
    """The lines of ``requirements.txt`` by the name of the package; none where the file is missing.

    Example:
        >>> requirements(Path.cwd())["torch"]
        'torch==2.13.0'
    """
    path = course / "requirements.txt"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return {found[1]: found[0].strip() for found in REQUIREMENT.finditer(text)}


def _install_missing(course: Path, in_colab: bool) -> None:
    missing = missing_packages()
    if not missing:
        return
    if not in_colab:
        raise RuntimeError(
            f"Missing here: {', '.join(missing)}. This kernel runs {sys.executable}, an environment without the "
            f"course's packages. {_other_kernel()} Or install them there, in the course's folder: "
            f"{sys.executable} -m pip install -r requirements.txt"
        )
    wanted = [requirements(course).get(name, name) for name in missing]
    # Colab's own versions of PyTorch and NumPy fit its machine and its GPU: whatever comes must fit them.
    kept = [f"{name}=={_version(name)}" for name in ("torch", "numpy") if _version(name)]
    print(f"Installing what is missing here: {', '.join(missing)} …")
    command = [sys.executable, "-m", "pip", "install", "--quiet", *wanted, *kept]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    importlib.invalidate_caches()  # this kernel has looked into the folder before pip wrote to it
    missing = missing_packages()
    if missing:
        reason = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        raise RuntimeError(
            f"Missing here: {', '.join(missing)}. Installing failed: {reason or 'no reason given'}. "
            "Is there a connection? Run this cell again to try once more."
        )


def _put_first(course: Path) -> None:
    """Let ``import utils`` mean the course's, whatever else has that name or was loaded under it."""
    sys.path[:] = [str(course), *(place for place in sys.path if place != str(course))]
    loaded = sys.modules.get("utils")
    file = getattr(loaded, "__file__", None) or ""
    folders = [*getattr(loaded, "__path__", ()), os.path.dirname(file)]
    if loaded is None or str(course / "utils") in folders:
        return
    for name in [name for name in sys.modules if name.partition(".")[0] == "utils"]:
        del sys.modules[name]
    print(f"Note: another package named utils was loaded ({file or folders[0]}). From here on, utils is the course's.")


def _compare_torch(course: Path) -> None:
    installed, pinned = _version("torch") or "", requirements(course).get("torch", "").partition("==")[2]
    if tuple(int(part) for part in re.findall(r"\d+", installed)[:2]) < OLDEST_TORCH:
        raise RuntimeError(
            f"This kernel has PyTorch {installed}; the course needs {'.'.join(map(str, OLDEST_TORCH))} or newer "
            f"and was written with {pinned or 'a newer one'}. {_other_kernel()}"
        )
    if pinned and installed.partition("+")[0] != pinned:
        print(f"Note: PyTorch {installed} runs here, the stored outputs come from {pinned}: last digits may differ.")


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _other_kernel() -> str:
    return (
        "In JupyterLab, take the kernel of the environment that `make lab` has made (Kernel → Change Kernel), "
        "or start JupyterLab with `make lab`."
    )


def _ready(in_colab: bool) -> str:
    import torch

    from utils.environment import pick_device

    device = pick_device()
    if device.type == "cuda":
        return (
            f"Ready. Device: GPU ({torch.cuda.get_device_name(device)}). Chapter 7 trains its larger model there, "
            "so its numbers are others than the stored ones, which come from a CPU."
        )
    more = " For a GPU: Runtime → Change runtime type → T4 GPU, then run all cells again." if in_colab else ""
    return f"Ready. Device: CPU. Every chapter is sized for it.{more}"
