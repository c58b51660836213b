"""A process that runs learners' code where it can reach nothing: bubblewrap around ``inside/worker.py``.

What the sandbox has: Python, the installed packages and the files in ``inside/``, all read-only; a small ``/tmp``; no
network; processes of its own only; nothing of the environment. What comes out of it is bytes, which ``wire`` reads.
"""

import contextlib
import functools
import json
import os
import queue
import secrets
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from utils.grading.hiding import shared_texts
from utils.grading.inside.worker import BrokenStreamError, Stream, send
from utils.release import ROOT

INSIDE = Path(__file__).resolve().parent / "inside"
WORKER_FOLDER = "/marker"
START_SECONDS = 60.0
MAX_MEMORY = 4 * 2**30  # of all processes in one sandbox together
MAX_PROCESSES = 48
DISK = 128 * 2**20
FIRST_UID = 200_000  # beyond what systems give to people and services
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "MPLBACKEND": "Agg",
}
INSTALL = (
    "bubblewrap is what keeps learners' code away from your files. Install it (Debian, Ubuntu: sudo apt install "
    "bubblewrap; Fedora: sudo dnf install bubblewrap; macOS: run this in a Linux container), "
    "or add --no-sandbox to run their code unprotected, with all that you may read, write and send."
)
BLOCKED = (
    "bubblewrap is installed, but may not make a sandbox here. On Ubuntu 23.10 and newer AppArmor blocks user "
    "namespaces: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0 allows them until the next start. In a "
    "container, start it with --privileged or --security-opt seccomp=unconfined. Or add --no-sandbox to run learners' "
    "code unprotected."
)


NO_WINDOWS = "Marking needs Linux or macOS, and protects your files on Linux only. On Windows, run it in WSL."


class SandboxUnavailableError(RuntimeError):
    """No sandbox can be made here; the text says why and what helps."""


class SandboxDiedError(RuntimeError):
    """The sandbox ended, or said something that makes no sense, and has been taken down."""


@dataclass(frozen=True)
class Kind:
    """How to make a sandbox.

    Attributes:
        is_contained: with bubblewrap; otherwise as a plain process.
        as_root: made by root without a user namespace, the worker then becomes an unused user.
    """

    is_contained: bool = True
    as_root: bool = False


UNPROTECTED = Kind(is_contained=False)


class Sandbox:
    """One sandbox with its worker, started when it is first needed and again after it has died.

    Args:
        kind: from ``pick_kind``.
        hidden: folders that must not be seen inside, besides the course.

    Example:
        >>> with Sandbox(UNPROTECTED) as sandbox:
        ...     status, reply = sandbox.ask("exercise", {}, b"", seconds=5)
        >>> status  # no notebook has been loaded
        'dead'
    """

    def __init__(self, kind: Kind, hidden: tuple[Path, ...] = ()):
        self.kind, self.hidden = kind, hidden
        self.facts: dict[str, Any] = {}
        self._process: subprocess.Popen | None = None
        self._messages: queue.Queue[Any] = queue.Queue()

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def ask(self, kind: str, facts: dict[str, Any], body: bytes, seconds: float) -> tuple[str, bytes]:
        """Send a request to the keeper and wait.

        Args:
            kind: "read", "chapter" or "exercise"; see ``inside/worker.py``.
            facts: further keys of the header.
            seconds: of the processor's time that the work may take. The keeper ends it when that is used up, or when
                more has passed on the clock.

        Returns:
            ("done", reply), ("late", b"") or ("dead", b"").

        Raises:
            SandboxUnavailableError: it does not start any more, which is nobody's answer's fault.
        """
        if self._process is None:
            try:
                self._start()
            except (SandboxDiedError, OSError) as error:
                self.close()
                raise SandboxUnavailableError(f"the sandbox does not start any more ({error})") from error
        on_the_clock = 1.5 * seconds + 3
        nonce = secrets.token_hex(8)  # no reply can be written before its request is known
        header = facts | {"kind": kind, "nonce": nonce, "seconds": on_the_clock, "cpu_seconds": int(seconds)}
        try:
            send(self._process.stdin.fileno(), header, body, time.monotonic() + on_the_clock)
            found, reply = self._receive(on_the_clock + 10)
        except (SandboxDiedError, OSError):
            self.close()
            return "dead", b""
        if found.get("nonce") != nonce or found.get("status") not in ("done", "late", "dead"):
            self.close()
            return "dead", b""
        return found["status"], reply

    def close(self) -> None:
        """End the worker and everything in the sandbox."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(psutil.Error):
            family = psutil.Process(process.pid).children(recursive=True)
            for member in family:
                with contextlib.suppress(psutil.Error):
                    member.kill()
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()

    def _start(self) -> None:
        uid = FIRST_UID + secrets.randbelow(1_000_000) if self.kind.as_root else 0  # its own, so limits are, too
        settings = {
            "is_contained": self.kind.is_contained,
            "uid": uid,
            "max_processes": MAX_PROCESSES,
            "hidden": [str(path) for path in (*hidden_folders(), *self.hidden)],
        }
        command, environment = [sys.executable, "-I", str(INSIDE / "worker.py")], ENVIRONMENT
        if self.kind.is_contained:
            command = [*bubblewrap(self.kind, self.hidden), sys.executable, "-I", f"{WORKER_FOLDER}/worker.py"]
        else:
            environment = ENVIRONMENT | {"HOME": os.environ.get("HOME", "/tmp"), "PATH": os.environ.get("PATH", "")}
        self._messages = queue.Queue()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,  # bubblewrap's own process shows what it is given under /proc
            start_new_session=True,  # Ctrl-C is for the grader, which then takes the sandbox down
        )
        sources = json.dumps(shared_texts()).encode("ascii")
        send(self._process.stdin.fileno(), settings, sources, time.monotonic() + START_SECONDS)
        threading.Thread(target=self._listen, args=(self._process, self._messages), daemon=True).start()
        self.facts, _ = self._receive(START_SECONDS)
        if self.facts.get("status") != "ready":
            raise SandboxDiedError("the worker did not start")

    @staticmethod
    def _listen(process: subprocess.Popen, messages: "queue.Queue[Any]") -> None:
        """Collect what the worker says; None at the end. Reading in a thread works on every system."""
        stream = Stream(process.stdout.fileno())
        with contextlib.suppress(BrokenStreamError, EOFError, OSError, ValueError):
            while True:
                messages.put(stream.receive())
        messages.put(None)

    def _receive(self, seconds: float) -> tuple[dict[str, Any], bytes]:
        """The next message, while watching how much memory the sandbox takes."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                message = self._messages.get(timeout=0.5)
            except queue.Empty:
                if memory_of(self._process.pid) > MAX_MEMORY:
                    raise SandboxDiedError("it took too much memory") from None
                continue
            if message is None:
                break
            return message
        raise SandboxDiedError("it ended or said nothing in time")


def memory_of(pid: int) -> int:
    """Bytes of memory that a process and its descendants hold, without the files that all share."""
    total = 0
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(OSError, ValueError):
                facts = dict(
                    line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
                )
                total += sum(int(facts.get(name, "0").split()[0]) for name in ("RssAnon", "RssShmem")) * 1024
    return total


def hidden_folders() -> tuple[Path, ...]:
    """What of the course nobody may see inside: all of it but the installed packages."""
    return (ROOT / "utils", ROOT / "solutions", ROOT / "tests")


@functools.cache
def bubblewrap_options() -> str:
    """What this bubblewrap knows."""
    return subprocess.run([shutil.which("bwrap"), "--help"], capture_output=True, text=True).stdout


def bubblewrap(kind: Kind, hidden: tuple[Path, ...] = ()) -> list[str]:
    """The command that makes the sandbox, up to the program to run in it."""
    command = [
        shutil.which("bwrap") or "bwrap",
        "--unshare-ipc",
        "--unshare-pid",
        "--unshare-net",
        "--unshare-uts",
        "--unshare-cgroup-try",
    ]
    if kind.as_root:
        command += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        command += ["--unshare-user", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL"]
        if "--disable-userns" in bubblewrap_options():
            command.append("--disable-userns")
    # as process 1 the worker can't be stopped or killed from inside, and bubblewrap's own process is out of sight
    command += ["--as-pid-1", "--die-with-parent", "--new-session", "--hostname", "marker", "--clearenv"]
    for name, value in ENVIRONMENT.items():
        command += ["--setenv", name, value]
    if "--size" in bubblewrap_options():
        command += ["--size", str(DISK), "--perms", "1777"]
    command += ["--tmpfs", "/tmp"]  # first: what is shown may lie in it
    shown = shown_folders()
    masked = [path for path in (ROOT, *hidden) if any(path.is_relative_to(folder) for folder in shown)]
    if "--perms" in bubblewrap_options():  # else a folder above is as closed as, say, /root is outside
        parents = {parent for path in (*shown, *masked) for parent in path.parents}
        for parent in sorted(parents - {Path("/"), Path("/tmp")}):
            command += ["--perms", "0755", "--dir", str(parent)]
    for path in shown:
        command += ["--ro-bind", str(path), str(path)]
    for link in ("/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        if os.path.islink(link):
            command += ["--symlink", os.readlink(link), link]
        elif os.path.isdir(link):
            command += ["--ro-bind", link, link]
    for path in masked:  # a course kept in a folder that is shown, such as /usr/local/src
        command += ["--tmpfs", str(path)]
    for path in shown:
        if any(path.is_relative_to(folder) for folder in masked):
            command += ["--ro-bind", str(path), str(path)]
    command += ["--ro-bind", str(INSIDE), WORKER_FOLDER, "--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    return [*command, "--remount-ro", "/", "--chdir", "/tmp", "--"]


def shown_folders() -> list[Path]:
    """What the sandbox sees of this machine: the system's libraries, Python and its packages."""
    python = {sys.prefix, sys.base_prefix, sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    found = [Path(path).absolute() for path in ("/usr", *python)]
    found += [Path(path) for path in ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime")]
    found = [path for path in dict.fromkeys(found) if path.exists()]
    return sorted(path for path in found if not any(path != other and path.is_relative_to(other) for other in found))


@functools.cache
def pick_kind() -> Kind:
    """A kind of sandbox that holds on this machine: made, entered, and tried from inside.

    Raises:
        SandboxUnavailableError: there is none.
    """
    if sys.platform == "win32":
        raise SandboxUnavailableError(NO_WINDOWS)
    if sys.platform != "linux" or not shutil.which("bwrap"):
        raise SandboxUnavailableError(INSTALL)
    kinds = [Kind(as_root=True), Kind()] if os.geteuid() == 0 else [Kind()]
    reasons = []
    for kind in kinds:
        if not (reason := why_it_leaks(kind)):
            return kind
        reasons.append(reason)
    raise SandboxUnavailableError(f"{BLOCKED} (What was tried: {'; '.join(reasons)})")


def unprotected() -> Kind:
    """Plain processes, for ``--no-sandbox``.

    Raises:
        SandboxUnavailableError: not even that is possible here.

    Example:
        >>> unprotected().is_contained
        False
    """
    if sys.platform == "win32":
        raise SandboxUnavailableError(NO_WINDOWS)
    return UNPROTECTED


def why_it_leaks(kind: Kind, make: Callable[[Kind], Sandbox] = Sandbox) -> str:
    """Try a kind of sandbox out; what is wrong with it, empty if nothing."""
    with make(kind) as sandbox:
        try:
            sandbox._start()
        except (SandboxDiedError, OSError) as error:
            return f"it does not start: {error}"
        facts = sandbox.facts
    if facts["visible"]:
        return f"inside one sees {', '.join(map(str, facts['visible']))}"
    if facts["writable"]:
        return f"inside one can write to {', '.join(map(str, facts['writable']))}"
    if facts["network"] != "none":
        return f"inside there is a network ({facts['network']})"
    if facts["uid"] == 0:
        return "inside one is root"
    return ""
