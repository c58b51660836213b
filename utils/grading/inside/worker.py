"""The process in the sandbox: runs notebooks and tries their answers, one exercise per child process.

Three generations, so that nothing one exercise does reaches another:

- the *keeper* has PyTorch loaded, talks to the trusted process and never runs a learner's code;
- a *chapter* process, its child, runs the cells of one notebook;
- an *exercise* process, a child of that, tries one answer on the cases it is given and ends.

Messages on both pipes: a length, a JSON header of the same kind, then the body, which the keeper only passes on.
"""

import ast
import builtins
import contextlib
import ctypes
import gc
import importlib
import io
import json
import linecache
import os
import random
import select
import selectors
import shutil
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

try:
    import resource
except ImportError:  # Windows, where ``sandbox`` refuses before anything here is called
    resource = None

LENGTH = struct.Struct(">Q")
MAX_BYTES = 16 * 2**20
GIB = 2**30
MEMORY = 3 * GIB  # beyond what the keeper has mapped; per process
PR_SET_DUMPABLE = 4


class BrokenStreamError(Exception):
    """What came through a pipe is no message."""


# Messages ---------------------------------------------------------------------------------------------


def send(pipe: int, header: dict[str, Any], body: bytes = b"", deadline: float | None = None) -> None:
    """Write one message.

    Raises:
        TimeoutError: the deadline passed; nobody reads at the other end.
    """
    text = json.dumps(header).encode("ascii")
    message = memoryview(LENGTH.pack(len(text)) + text + LENGTH.pack(len(body)) + body)
    os.set_blocking(pipe, False)
    while message:
        with contextlib.suppress(BlockingIOError):
            message = message[os.write(pipe, message) :]
            continue
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([], [pipe], [], left)[1]:
            raise TimeoutError("nobody reads")


class Stream:
    """The messages of a pipe, each to be had until a deadline."""

    def __init__(self, pipe: int):
        self.pipe, self._received = pipe, bytearray()
        self._selector = selectors.DefaultSelector()
        self._selector.register(pipe, selectors.EVENT_READ)

    def receive(self, deadline: float | None = None) -> tuple[dict[str, Any], bytes]:
        """The next message.

        Raises:
            BrokenStreamError: the pipe ended within a message, or it was no message.
            EOFError: the pipe ended before a message began.
            TimeoutError: the deadline passed.
        """
        at_rest = not self._received
        header = self._take(self._length(deadline, at_rest), deadline)
        body = self._take(self._length(deadline, False), deadline)
        try:
            found = json.loads(header.decode("ascii"))
        except (ValueError, RecursionError) as error:
            raise BrokenStreamError("no header") from error
        if not isinstance(found, dict):
            raise BrokenStreamError("no header")
        return found, body

    def _length(self, deadline: float | None, may_end: bool) -> int:
        try:
            (length,) = LENGTH.unpack(self._take(LENGTH.size, deadline))
        except EOFError:
            if may_end:
                raise
            raise BrokenStreamError("the pipe ended") from None
        if length > MAX_BYTES:
            raise BrokenStreamError(f"a message of {length} bytes")
        return length

    def _take(self, count: int, deadline: float | None) -> bytes:
        while len(self._received) < count:
            left = None if deadline is None else deadline - time.monotonic()
            if (left is not None and left <= 0) or not self._selector.select(left):
                raise TimeoutError("no message in time")
            piece = os.read(self.pipe, 2**20)
            if not piece:
                raise EOFError
            self._received += piece
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken


# The keeper -------------------------------------------------------------------------------------------


class Keeper:
    """Starts chapter processes, passes messages on, and ends whatever takes too long."""

    def __init__(self, ours: dict[str, Any], orders: Stream, answers: int, is_contained: bool):
        self.ours, self.orders, self.answers, self.is_contained = ours, orders, answers, is_contained
        self.fixtures = set(os.listdir("/tmp")) if is_contained else set()  # where Python may lie
        self.chapter: int | None = None
        self.requests = self.replies = -1
        self.stream: Stream | None = None

    def serve(self) -> None:
        """Until the trusted process closes its end."""
        while True:
            try:
                header, body = self.orders.receive()
            except EOFError:
                self.end_chapter()
                return
            if header["kind"] in ("read", "chapter"):
                self.end_chapter()
                self.start_child(header["kind"])
            status, reply = self.ask(header, body)
            if header["kind"] == "read":
                self.end_chapter()
            send(self.answers, {"nonce": header["nonce"], "status": status}, reply)

    def start_child(self, kind: str) -> None:
        """A new process for one notebook: to read it, or to run it."""
        requests, self.requests = os.pipe()
        self.replies, replies = os.pipe()
        self.stream = Stream(self.replies)
        self.chapter = os.fork()
        if self.chapter == 0:
            for pipe in (self.requests, self.replies, self.answers, self.orders.pipe):
                os.close(pipe)
            run_and_exit(lambda: (read if kind == "read" else serve_chapter)(self.ours, Stream(requests), replies))
        os.close(requests)
        os.close(replies)

    def ask(self, header: dict[str, Any], body: bytes) -> tuple[str, bytes]:
        """Pass a request on and wait for the answer; ("dead", b"") when there is none."""
        if self.chapter is None or self.stream is None:
            return "dead", b""
        deadline = time.monotonic() + header["seconds"]
        reply = None
        try:
            send(self.requests, header, body, deadline)
            while True:
                found, content = self.stream.receive(deadline)
                if found.get("nonce") != header["nonce"]:
                    continue
                if found.get("status") == "ended":
                    break
                reply = content if reply is None else reply
        except TimeoutError:
            self.end_chapter()
            return "late", b""
        except (BrokenStreamError, EOFError, OSError):
            time.sleep(0.02)  # a pipe may end a moment before its process does
            return self.end_chapter(), b""
        if not self.end_others(keep={self.chapter}):
            self.end_chapter()
        self.empty_disk()
        if reply is None:
            return reason_of(found.get("exit")), b""
        return "done", reply

    def end_chapter(self) -> str:
        """End the chapter's process and all that it left behind; what it had died of, if it had."""
        if self.chapter is None:
            return "dead"
        died, status = os.waitpid(self.chapter, os.WNOHANG)
        for pipe in (self.requests, self.replies):
            os.close(pipe)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.chapter, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.chapter, signal.SIGKILL)
        if not died:
            os.waitpid(self.chapter, 0)
        self.chapter, self.stream = None, None
        self.end_others(keep=set())
        self.empty_disk()
        return reason_of(status if died else 0)

    def empty_disk(self) -> None:
        """In the sandbox, remove what was written: no exercise leaves word for another."""
        if self.is_contained:
            for entry in os.scandir("/tmp"):
                if entry.name in self.fixtures:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)

    def end_others(self, keep: set[int]) -> bool:
        """In the sandbox, kill every process but the keeper and ``keep``; whether that worked."""
        if not self.is_contained:
            return True
        for _ in range(100):
            others = [int(name) for name in os.listdir("/proc") if name.isdigit()]
            others = [pid for pid in others if pid not in keep | {1}]
            for pid in others:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):  # orphans are handed to process 1, which this is
                    os.waitpid(pid, os.WNOHANG)
            if not others:
                return True
            time.sleep(0.01)
        return False


def reason_of(status: Any) -> str:
    """Why a process gave no answer: "late" if its time was up, else "dead"."""
    killed_by = status & 0x7F if isinstance(status, int) else 0
    return "late" if killed_by == signal.SIGXCPU else "dead"


def run_and_exit(task: Callable[[], None]) -> None:
    """The whole life of a child process: nothing of its parent's stack is returned to, whatever happens."""
    leave = os._exit
    try:
        task()
    finally:
        leave(0)


# A notebook -------------------------------------------------------------------------------------------


def import_ours(sources: dict[str, str]) -> dict[str, Any]:
    """The modules beside this one by name, after making the course's importable from texts; "finder" does that.

    What every notebook needs is imported here, once for all of them.
    """
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    course = importlib.import_module("course")
    finder = course.CourseFinder(sources)
    sys.meta_path.insert(0, finder)
    names = ("wire", "privacy", "integrity", "disarm", "uncompiled", "undrawn", "reading")
    ours = {name: importlib.import_module(name) for name in names} | {"course": course, "finder": finder}
    sys.path.pop(0)
    for name in sources:
        importlib.import_module(name)
    return ours


def read(ours: dict[str, Any], orders: Stream, replies: int) -> None:
    """The life of a process that reads one notebook and runs nothing of it."""
    header, body = orders.receive()
    limit_process(header["cpu_seconds"])
    found = ours["reading"].read_notebook(json.loads(body))
    send(replies, {"nonce": header["nonce"], "status": "done"}, json.dumps(found).encode("ascii"))
    send(replies, {"nonce": header["nonce"], "status": "ended"})


def serve_chapter(ours: dict[str, Any], orders: Stream, replies: int) -> None:
    """The life of a process that runs one notebook and then has its answers tried, until the keeper ends it."""
    # bound now: the learner's code may put others in their place
    fork, wait, reply, leave = os.fork, os.waitpid, send, os._exit
    os.setsid()
    header, body = orders.receive()
    limit_process(header["cpu_seconds"], for_children=60)
    set_dumpable(1)  # a child starts as closed as the keeper; /proc/self must be its own again
    chapter = Chapter(ours, header, json.loads(body), replies)
    reply(replies, {"nonce": header["nonce"], "status": "ended"})
    while True:
        header, body = orders.receive()
        chapter.reveal(header["reveal"])
        child = fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                chapter.try_answer(header, body)
            leave(0)
        _, status = wait(child, 0)
        reply(replies, {"nonce": header["nonce"], "status": "ended", "exit": status})


class Chapter:
    """A notebook whose cells have run, in a process of its own."""

    def __init__(self, ours: dict[str, Any], header: dict[str, Any], order: dict[str, Any], replies: int):
        """Import the course, then run the cells; what they raise or print is nobody's business."""
        self.ours, self.replies, self.found, self.forbid = ours, replies, dict[str, list[Any]](), order["forbid"]
        self.ours["finder"].sources |= order["sources"]
        self.ours["uncompiled"].leave_compiler_out()
        self.ours["undrawn"].draw_nothing()
        self.ours["disarm"].disarm(self.forbid)
        self.ours["privacy"].lock_operations()
        found = importlib.import_module(order["probes"]).PROBES
        self.observe = {(e, part): probe.observe for e, parts in found.items() for part, probe in parts.items()}
        observe = importlib.import_module("utils.checks.probes.observe")
        self.probe, self.trials = observe.Probe, observe.trials
        self.watch = importlib.import_module("utils.checks.forbidden").Watch
        sources = self.ours["finder"].sources
        probes = [text for name, text in sources.items() if name.startswith("utils.checks.probes.")]
        self.restore = self.ours["integrity"].Guard(probes).restore
        for name in (*self.ours, "worker"):  # nothing of ours can be imported by a cell
            sys.modules.pop(name, None)
        namespace = self.ours["course"].new_main_module().__dict__
        namespace["get_ipython"] = builtins.get_ipython = NoShell
        self.ours["privacy"].refuse_to_be_looked_at()
        for number, source in enumerate(order["course"]):
            run_cell(source, f"<course {number}>", namespace)
        for number, source, places in order["cells"]:
            run_cell(source, f"<cell {number}>", namespace, places)
            for exercise, names in order["capture"].get(str(number), {}).items():
                self.found[exercise] = [namespace.get(name) for name in names]
        gc.freeze()
        text = json.dumps({"tampered": self.put_right()[:20]}).encode("ascii")
        send(self.replies, {"nonce": header["nonce"], "status": "done"}, text)

    def put_right(self) -> list[str]:
        """Undo what the learner's code has done to what tries its answers; the names of what that was."""
        return [*self.restore(), *self.ours["privacy"].clear_away()]

    def reveal(self, definitions: list[list[str]]) -> None:
        """Fill in the references that may be used from now on; see ``course.reveal``."""
        for definition in definitions:
            self.ours["course"].reveal(*definition)

    def try_answer(self, header: dict[str, Any], body: bytes) -> None:
        """In a child: try one exercise's answer on the cases in the body, and send what was seen."""
        limit_process(header["cpu_seconds"])
        pack = self.ours["wire"].pack
        order = self.ours["wire"].unpack(body)
        answers = self.found[order["exercise"]]
        kinds = [kind_of(answer) for answer in answers]
        answer = tuple(answers) if len(answers) > 1 else answers[0]
        if self.forbid:  # no thread or process of its own, where PyTorch is whole or nobody watches
            resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        seed_everything(order["seed"])
        watch = self.watch(self.forbid)
        seen: dict[str, list[Any]] = {}
        can_be_called = all(kind in ("class", "function") for kind, _ in kinds)
        for part, cases in order["cases"].items() if can_be_called else ():
            probe = self.probe(list, self.observe[order["exercise"], part])  # the cases are there already
            with watch if self.forbid else contextlib.nullcontext():
                seen[part] = list(self.trials(probe, answer, cases))
        reply = {"seen": seen, "used": sorted(watch.used), "kinds": kinds, "tampered": self.put_right()[:20]}
        send(self.replies, {"nonce": header["nonce"], "status": "done"}, pack(reply))


def run_cell(source: str, filename: str, namespace: dict[str, Any], places: list[int] | None = None) -> None:
    """Run a cell's statements, or those at some places, one after the other; one that raises stops no other."""
    streams = sys.stdin, sys.stdout, sys.stderr
    sys.stdin, sys.stdout, sys.stderr = io.StringIO(), io.StringIO(), io.StringIO()
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)  # for tracebacks
    for place, statement in enumerate(ast.parse(source).body):
        if places is None or place in places:
            with contextlib.suppress(BaseException):  # SystemExit and KeyboardInterrupt of the cell included
                exec(compile(ast.Module([statement], []), filename, "exec"), namespace)
    sys.stdin, sys.stdout, sys.stderr = streams


def seed_everything(seed: int) -> None:
    """The same random numbers, and PyTorch's own settings, for every answer."""
    import numpy
    import torch

    torch.set_default_dtype(torch.float32)
    torch.manual_seed(seed)
    random.seed(seed)
    numpy.random.seed(seed)


def kind_of(answer: Any) -> tuple[str, str]:
    """Whether an answer is a class, a function or neither, and the name of its type."""
    if isinstance(answer, type):
        return "class", "class"
    name = type(answer).__name__[:60]
    return ("function" if callable(answer) else "object"), name


class NoShell:
    """What stands for IPython's shell: magics do nothing, and ``%%time`` runs what it times."""

    def run_line_magic(self, name: str, line: str, *_: Any) -> None:
        """Nothing."""

    def run_cell_magic(self, name: str, line: str, cell: str) -> None:
        """Run the cell where a magic only measures or captures it."""
        if name in ("time", "timeit", "capture", "prun"):
            exec(compile(cell, f"<%%{name}>", "exec"), sys.modules["__main__"].__dict__)

    def system(self, command: str) -> None:
        """Nothing."""

    def getoutput(self, command: str) -> list[str]:
        """Nothing was printed."""
        return []


# Limits -----------------------------------------------------------------------------------------------


def limit_process(cpu_seconds: int, for_children: int = 0) -> None:
    """So much more time of the processor for this process; ``for_children`` more is left for its children to take."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + cpu_seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1 + for_children))


def limit_everything(max_processes: int) -> None:
    """What holds for every process in the sandbox. Hard limits, so nobody raises them again."""
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    limits = {
        resource.RLIMIT_AS: mapped + MEMORY,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 64 * 2**20,
        resource.RLIMIT_NOFILE: 256,
    }
    if max_processes:
        limits[resource.RLIMIT_NPROC] = max_processes
    for kind, most in limits.items():
        resource.setrlimit(kind, (most, most))


def set_dumpable(value: int) -> None:
    """Whether other processes of this user may look into this one's memory. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, value, 0, 0, 0)


def become(uid: int) -> None:
    """Give root up for an unused user."""
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


# Seen from inside -------------------------------------------------------------------------------------


def what_can_be_reached(paths: Iterable[str]) -> dict[str, Any]:
    """For the self-test: which of these paths exist here, whether anything can be written, whether there is a
    network."""
    import socket

    writable = [folder for folder in ("/", "/usr", "/dev", "/etc", sys.prefix) if can_write(folder)]
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=0.2).close()
        network = "connected"
    except OSError as error:
        network = "none" if error.errno in (101, 113) else f"errno {error.errno}"
    return {
        "visible": [path for path in paths if os.path.lexists(path)],
        "writable": writable,
        "network": network,
        "uid": os.getuid(),
        "environment": sorted(os.environ),
    }


def can_write(folder: str) -> bool:
    """Whether a file can be made in a folder."""
    path = os.path.join(folder, f".try{os.getpid()}")
    try:
        with open(path, "x"):
            pass
    except OSError:
        return False
    os.unlink(path)
    return True


def main() -> None:
    """Start as the keeper. The first message says how the trusted process wants it: a command line could be read."""
    orders, answers = Stream(os.dup(0)), os.dup(1)
    settings, sources = orders.receive()
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    if settings["uid"]:
        become(settings["uid"])
    if settings["is_contained"]:
        set_dumpable(0)
    import numpy.random  # noqa: F401
    import safetensors.torch  # noqa: F401
    import torch
    import torch.utils._python_dispatch

    torch.set_num_threads(1)
    ours = import_ours(json.loads(sources))
    gc.freeze()  # else every child's first collection copies what it shares with this process
    if settings["is_contained"]:
        limit_everything(settings["max_processes"])
    send(answers, {"status": "ready"} | what_can_be_reached(settings["hidden"]))
    sys.modules["worker"] = sys.modules["__main__"]  # a notebook's cells get a __main__ of their own
    Keeper(ours, orders, answers, settings["is_contained"]).serve()


if __name__ == "__main__":
    main()
