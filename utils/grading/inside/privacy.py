"""Keeping a learner's code from looking at what surrounds it in its process, and from leaving things behind.

An answer is tried by code in the same process, so it could climb the stack of calls, or search the garbage collector's
lists, for the list that its result is put into. An audit hook, which nobody can take away again, refuses such looks
when a learner's code asks for them. ``ctypes``, which reads any memory, is refused as well: no answer needs it.

Source of the events' names: Python's documentation, "Audit events table".
"""

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import torch

LOOKS = {
    "sys._getframe", "sys._current_frames", "sys._current_exceptions", "sys.settrace", "sys.setprofile",
    "gc.get_objects", "gc.get_referrers", "gc.get_referents", "sys.addaudithook", "code.__new__",
}  # fmt: skip
FRAMES = {"tb_frame", "gi_frame", "cr_frame", "ag_frame"}
LIBRARY = ("/torch/library.py", "/torch/_library/")  # they act on behalf of whoever calls them
PASSED_ON_BY = ("/inspect.py", "/traceback.py", "/logging/__init__.py")  # they look on behalf of whoever calls them
TRUSTED = (  # where code lies that no learner wrote; the sandbox can't write there
    "<frozen", "<attrs", "/course/", "/usr/", sys.prefix + "/", sys.base_prefix + "/",
    os.path.dirname(os.path.abspath(__file__)) + "/",
)  # fmt: skip
SIGNALS = [getattr(signal, name) for name in ("SIGALRM", "SIGVTALRM", "SIGPROF", "SIGUSR1", "SIGUSR2", "SIGCHLD")]


class PeekingError(ValueError):
    """A cell wanted to see what is none of its business. As ``ValueError`` it is what ``logging`` expects."""


def refuse_to_be_looked_at() -> None:
    """From now on, for good."""
    sys.addaudithook(_hook())


def _hook() -> Callable[[str, tuple[Any, ...]], None]:
    asking: set[int] = set()  # threads that are in the hook: looking for the caller is such an event, too
    get_frame, get_ident, looks, frames = sys._getframe, threading.get_ident, frozenset(LOOKS), frozenset(FRAMES)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        is_disguise = event == "compile" and isinstance(arguments[1], str) and not is_a_learners(arguments[1])
        is_frame = event == "object.__getattr__" and arguments[1] in frames
        if not (is_disguise or is_frame or event in looks or event.startswith("ctypes.")):
            return
        thread = get_ident()
        if thread in asking:
            return
        asking.add(thread)
        try:
            caller = get_frame(1)
            while caller is not None and caller.f_code.co_filename.endswith(PASSED_ON_BY):
                caller = caller.f_back
            is_learner = caller is not None and is_a_learners(caller.f_code.co_filename)
        finally:
            asking.discard(thread)
        if is_learner:
            raise PeekingError("while a notebook is marked, its code can't look at what runs it")

    return hook


def lock_operations() -> None:
    """From now on, no learner's code gives PyTorch's operations other kernels; PyTorch itself may, and does."""
    make, get_frame = torch._C._dispatch_library, sys._getframe

    def make_for_pytorch(*arguments: Any, **options: Any) -> Any:
        caller = get_frame(1)
        while caller is not None and any(part in caller.f_code.co_filename for part in LIBRARY):
            caller = caller.f_back
        if caller is None or is_a_learners(caller.f_code.co_filename):
            raise PeekingError("while a notebook is marked, PyTorch's operations stay as they are")
        return make(*arguments, **options)

    torch._C._dispatch_library = make_for_pytorch


def is_a_learners(filename: str) -> bool:
    """Whether code comes from a cell, or from anything that a cell made.

    Example:
        >>> is_a_learners("<cell 3>"), is_a_learners("<frozen os>"), is_a_learners(os.__file__)
        (True, False, False)
    """
    return not filename.startswith(TRUSTED)


def clear_away() -> list[str]:
    """Take back what would run code by itself while an exercise is tried; the names of what there was."""
    found = []
    if sys.gettrace() is not None or sys.getprofile() is not None:
        found.append("sys.settrace")
        sys.settrace(None)
        sys.setprofile(None)
    threading.settrace(None)
    threading.setprofile(None)
    if gc.callbacks:
        found.append("gc.callbacks")
        gc.callbacks.clear()
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(timer, 0)
    for number in SIGNALS:
        if callable(signal.getsignal(number)):
            found.append(f"signal.{signal.Signals(number).name}")
            signal.signal(number, signal.SIG_DFL)
    return found
