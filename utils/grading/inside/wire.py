"""Data on its way between the trusted process and the sandbox: JSON, and tensors as safetensors. Never pickle.

A message is framed by its length. What comes out of the sandbox may be anything, so ``unpack`` believes nothing:
whatever is not plain data of a sensible size is a ``WireError``.
"""

import json
import math
import struct
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from utils.checks.probes.observe import Raised, Strange

LENGTH = struct.Struct(">Q")
MAX_BYTES = 16 * 2**20  # the largest honest reply is below 0.1 MB
MAX_DEPTH = 40
MAX_INT_BITS = 256
DTYPES = {
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool,
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
}  # fmt: skip


class WireError(ValueError):
    """What arrived is not a message of this kind; the text says why."""


def pack(value: Any) -> bytes:
    """Data as bytes: the length of a JSON text, the text, and the tensors it refers to.

    What can't be data (a tensor of a rare dtype, an enormous integer) becomes ``Strange``.

    Example:
        >>> unpack(pack({"result": (torch.ones(2), None, float("inf"))}))
        {'result': (tensor([1., 1.]), None, inf)}
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_tagged(value, tensors, 0)).encode("ascii")
    return LENGTH.pack(len(text)) + text + safetensors.torch.save(tensors)


def unpack(message: bytes) -> Any:
    """Back from ``pack``.

    Raises:
        WireError: the bytes are anything else.
    """
    if len(message) > MAX_BYTES:
        raise WireError(f"expected at most {MAX_BYTES} bytes, got {len(message)}")
    try:
        (length,) = LENGTH.unpack_from(message)
        text, blob = message[LENGTH.size : LENGTH.size + length], message[LENGTH.size + length :]
        # a byte that is neither 0 nor 1 is no bool, and PyTorch may do anything with it
        tensors = {
            name: tensor.view(torch.uint8).ne(0) if tensor.dtype == torch.bool else tensor
            for name, tensor in safetensors.torch.load(blob).items()
        }
        return _untagged(json.loads(text.decode("ascii")), tensors, 0)
    except WireError:
        raise
    except Exception as error:  # whatever a parser says to bytes that somebody made up
        raise WireError(f"expected JSON and tensors, got something else ({type(error).__name__})") from error


def _tagged(value: Any, tensors: dict[str, Tensor], depth: int) -> Any:
    """JSON for a value: scalars and lists as they are, everything else as ``{tag: ...}``."""
    if depth > MAX_DEPTH:
        return {"strange": "nested too deeply"}
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= MAX_INT_BITS else {"strange": "very large int"}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, Tensor):
        if value.dtype not in DTYPES:
            return {"strange": f"tensor of {value.dtype}"}
        name = str(len(tensors))
        tensors[name] = value.detach().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, list):
        return [_tagged(item, tensors, depth + 1) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_tagged(item, tensors, depth + 1) for item in value]}
    if isinstance(value, dict):
        return {"dict": {str(key): _tagged(item, tensors, depth + 1) for key, item in value.items()}}
    if isinstance(value, Raised):
        return {"raised": [[str(kind) for kind in value.kinds], str(value.message)[:2000], str(value.line)[:500]]}
    if isinstance(value, Strange):
        return {"strange": str(value.type_name)[:200]}
    return {"strange": type(value).__name__}


def _untagged(value: Any, tensors: dict[str, Tensor], depth: int) -> Any:
    """Back from ``_tagged``, believing nothing."""
    if depth > MAX_DEPTH + 1:  # one more than ``_tagged`` goes: there it says that it stopped
        raise WireError("nested too deeply")
    if isinstance(value, list):
        return [_untagged(item, tensors, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise WireError("expected one tag")
    ((tag, content),) = value.items()
    if tag == "dict" and isinstance(content, dict):
        return {key: _untagged(item, tensors, depth + 1) for key, item in content.items()}
    if tag == "tuple" and isinstance(content, list):
        return tuple(_untagged(item, tensors, depth + 1) for item in content)
    if tag == "float" and content in ("inf", "-inf", "nan"):
        return float(content)
    if tag == "tensor" and content in tensors:
        return tensors[content]
    if tag == "strange" and isinstance(content, str):
        return Strange(content[:200])
    if tag == "raised" and isinstance(content, list) and len(content) == 3:
        kinds, message, line = content
        if isinstance(kinds, list) and kinds and all(isinstance(text, str) for text in (*kinds, message, line)):
            return Raised(tuple(kinds), message[:2000], line[:500])
    raise WireError(f"unknown tag {str(tag)[:40]!r}")
