"""Where the course runs: JupyterLab or Colab, which device, which seed."""

import importlib
import importlib.util
import subprocess
import sys

import torch

MINIMUM_PYTHON = (3, 10)
# Import name -> what pip calls it. Colab has torch, numpy and matplotlib; those are never touched there.
LEARNER_PACKAGES = {"tiktoken": "tiktoken", "tqdm": "tqdm", "safetensors": "safetensors"}


def in_colab() -> bool:
    """Whether this kernel runs in Google Colab.

    Example:
        >>> in_colab()
        False
    """
    return "google.colab" in sys.modules


def pick_device() -> torch.device:
    """The fastest device that all chapters run on: CUDA if there is one, else the CPU.

    Example:
        >>> pick_device().type in ("cpu", "cuda")
        True
    """
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """What to compute matrix products in on a device: bfloat16 on GPUs that have it, float16 on others.

    None on a CPU: few have the instructions, and attention's backward pass is slower in bfloat16 there.

    Example:
        >>> autocast_dtype(torch.device("cpu")) is None
        True
    """
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def set_seed(seed: int) -> None:
    """Seed PyTorch's global generators (CPU and GPU). Prints nothing, unlike a bare ``torch.manual_seed``.

    Example:
        >>> set_seed(123)
        >>> torch.rand(1)
        tensor([0.2961])
    """
    torch.manual_seed(seed)


def missing_packages(packages: dict[str, str] = LEARNER_PACKAGES) -> list[str]:
    """The pip names of those packages that can't be imported here.

    Example:
        >>> missing_packages({"torch": "torch"})
        []
    """
    return [pip_name for name, pip_name in packages.items() if importlib.util.find_spec(name) is None]


def prepare() -> None:
    """What the setup cell of every notebook calls: check Python, install what Colab lacks.

    Raises:
        RuntimeError: Python is too old, or a package is missing and can't be installed.

    Example:
        >>> prepare()
    """
    if sys.version_info < MINIMUM_PYTHON:
        raise RuntimeError(
            f"this course needs Python {'.'.join(map(str, MINIMUM_PYTHON))} or newer, "
            f"this kernel runs {sys.version.split()[0]}"
        )
    missing = missing_packages()
    if missing and in_colab():
        command = [sys.executable, "-m", "pip", "install", "--quiet", *missing]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        importlib.invalidate_caches()  # this kernel has looked into the folder before pip wrote to it
        missing = missing_packages()
        if missing:
            reason = (done.stderr or done.stdout).strip().rpartition("\n")[2]
            raise RuntimeError(
                f"missing package(s): {', '.join(missing)}. Installing failed: {reason or 'no reason given'}"
            )
    if missing:
        raise RuntimeError(
            f"missing package(s): {', '.join(missing)}. This notebook runs in another environment than the "
            f"one you installed. In a terminal, in the course's folder: {sys.executable} -m pip install "
            f"-r requirements.txt"
        )
