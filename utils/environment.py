"""Which device, which number format, which seed."""

import torch


def pick_device() -> torch.device:
    """The fastest device that all chapters run on: CUDA if there is one, else the CPU.

    Apple's GPU (MPS) is left alone: some operations are missing there, others round in their own way, and no output
    of the course was ever compared on it.

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
