"""What the setup cell does: in JupyterLab, in Colab, and where something is wrong."""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from utils import hints, preflight, startup
from utils.release import ROOT, SETUP_CELL
from utils.startup import LEARNER_PACKAGES, missing_packages, prepare, requirements

SETUP = SETUP_CELL.read_text(encoding="utf-8")
READY = "Ready. Device: CPU. Every chapter is sized for it.\n"
GPU_ADVICE = "Runtime → Change runtime type → T4 GPU"


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch):
    """No GPU, and `sys.path` and the loaded modules as they were afterwards."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path, modules = list(sys.path), dict(sys.modules)
    yield
    sys.path[:] = path
    sys.modules.clear()
    sys.modules.update(modules)


class Pip:
    """Stands in for `subprocess.run`: notes the commands, and "installs" what it is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, works: bool = True, stderr: str = "") -> None:
        self.commands: list[list[str]] = []
        self._missing: set[str] = set()
        self._works, self._stderr = works, stderr
        find_spec = startup.importlib.util.find_spec
        monkeypatch.setattr(
            startup.importlib.util, "find_spec", lambda name: None if name in self._missing else find_spec(name)
        )
        monkeypatch.setattr(startup.subprocess, "run", self._run)

    def remove(self, *packages: str) -> None:
        self._missing |= set(packages)

    def _run(self, command: list[str], **options: object) -> subprocess.CompletedProcess:
        self.commands.append(command)
        if self._works:
            self._missing -= {re.split(r"[=<>]", word)[0] for word in command}
        return subprocess.CompletedProcess(command, 0 if self._works else 1, "", self._stderr)


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Pip:
    return Pip(monkeypatch)


# Where all is there


@pytest.mark.parametrize("in_colab", [False, True])
def test_nothing_is_installed_and_the_device_is_named(in_colab: bool, pip: Pip, capsys: pytest.CaptureFixture):
    prepare(ROOT, in_colab)
    assert pip.commands == []
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(READY.rstrip("\n"))
    assert (GPU_ADVICE in out) == in_colab, "the way to a GPU is Colab's own"


def test_a_gpu_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    prepare(ROOT, in_colab=True)
    out = capsys.readouterr().out
    assert out.startswith("Ready. Device: GPU (Tesla T4).")
    assert GPU_ADVICE not in out


def test_running_it_twice_changes_nothing(capsys: pytest.CaptureFixture):
    prepare(ROOT)
    before = list(sys.path), set(sys.modules), torch.get_rng_state().tolist()
    prepare(ROOT)
    assert (list(sys.path), set(sys.modules), torch.get_rng_state().tolist()) == before
    assert capsys.readouterr().out == 2 * READY


# Another Python, another PyTorch


@pytest.mark.parametrize("in_colab", [False, True])
def test_old_python_is_refused_with_both_versions(in_colab: bool, pip: Pip, monkeypatch: pytest.MonkeyPatch):
    pip.remove("tiktoken")
    monkeypatch.setattr(sys, "version_info", (3, 9, 18, "final", 0))
    monkeypatch.setattr(sys, "version", "3.9.18 (main, Aug 24 2023)")
    with pytest.raises(RuntimeError, match=r"needs Python 3\.10 or newer; this kernel runs 3\.9\.18"):
        prepare(ROOT, in_colab)
    assert pip.commands == []


def test_oldest_allowed_python_is_accepted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(sys, "version_info", (3, 10, 0, "final", 0))
    prepare(ROOT)
    assert capsys.readouterr().out == READY


def test_another_pytorch_is_named_and_used(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(startup, "_version", lambda package: "2.9.1+cu128")
    prepare(ROOT)
    note, ready = capsys.readouterr().out.splitlines(keepends=True)
    assert "PyTorch 2.9.1+cu128" in note
    assert requirements(ROOT)["torch"].removeprefix("torch==") in note
    assert ready == READY


@pytest.mark.parametrize("version", ["2.4.1", "1.13.1+cu117"])
def test_a_pytorch_that_is_too_old_is_refused(version: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(startup, "_version", lambda package: version)
    with pytest.raises(RuntimeError, match=re.escape(f"has PyTorch {version}; the course needs 2.5 or newer")):
        prepare(ROOT)


# What is missing


def test_all_that_the_chapters_import_is_looked_for():
    assert missing_packages(("torch", "no_such_module")) == ["no_such_module"]
    assert set(LEARNER_PACKAGES) <= set(requirements(ROOT))


def test_outside_colab_nothing_is_installed_and_the_kernel_and_the_command_are_named(pip: Pip):
    pip.remove("tiktoken", "tqdm")
    with pytest.raises(RuntimeError) as caught:
        prepare(ROOT)
    assert pip.commands == []
    message = str(caught.value)
    assert message.startswith("Missing here: tiktoken, tqdm.")
    assert f"{sys.executable} -m pip install -r requirements.txt" in message
    assert "Change Kernel" in message


@pytest.mark.parametrize("missing", [["tiktoken"], ["tqdm"], ["tiktoken", "tqdm"]], ids="+".join)
def test_in_colab_exactly_the_missing_packages_are_installed(missing: list[str], pip: Pip, capsys):
    pip.remove(*missing)
    prepare(ROOT, in_colab=True)
    (command,) = pip.commands
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    asked = [word for word in command[4:] if not word.startswith("-")]
    assert asked[: len(missing)] == [requirements(ROOT)[name] for name in missing]
    assert not {"--upgrade", "-U", "--force-reinstall", "-r", "--requirement"} & set(command)
    assert capsys.readouterr().out.startswith(f"Installing what is missing here: {', '.join(missing)} …\nReady.")


def test_in_colab_torch_and_numpy_stay_as_they_are(pip: Pip, monkeypatch: pytest.MonkeyPatch):
    """pip is told their versions, so that no other package can bring others."""
    monkeypatch.setattr(startup, "_version", lambda package: {"torch": "2.9.1+cu128", "numpy": "2.0.2"}[package])
    pip.remove("tiktoken")
    prepare(ROOT, in_colab=True)
    (command,) = pip.commands
    assert {word for word in command if "torch" in word or "numpy" in word} == {"torch==2.9.1+cu128", "numpy==2.0.2"}


def test_in_colab_a_fresh_package_is_found_by_the_running_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Python remembers what lies in a folder, and its clock may be too coarse to show that pip wrote there."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(startup, "missing_packages", lambda names=("arrives_later",): missing_packages(names))
    monkeypatch.setattr(startup, "requirements", lambda course: {"arrives_later": "arrives-later", "torch": "torch==2"})
    assert startup.missing_packages() == ["arrives_later"]
    last_change = tmp_path.stat().st_mtime_ns

    def install(command: list[str], **options: object) -> subprocess.CompletedProcess:
        (tmp_path / "arrives_later.py").write_text("")
        os.utime(tmp_path, ns=(last_change, last_change))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(startup.subprocess, "run", install)
    prepare(ROOT, in_colab=True)


def test_in_colab_a_failed_installation_is_explained(monkeypatch: pytest.MonkeyPatch):
    pip = Pip(monkeypatch, works=False, stderr="WARNING: retrying\nERROR: No matching distribution\n")
    pip.remove("tiktoken")
    with pytest.raises(RuntimeError) as caught:
        prepare(ROOT, in_colab=True)
    assert "tiktoken" in str(caught.value)
    assert "ERROR: No matching distribution" in str(caught.value)
    assert "retrying" not in str(caught.value)


# Another package of the same name


def another_utils(folder: Path) -> None:
    (folder / "utils").mkdir()
    (folder / "utils" / "__init__.py").write_text("WHOSE = 'another'\n")
    (folder / "utils" / "attention.py").write_text("WHOSE = 'another'\n")


def test_utils_is_the_courses_even_where_another_comes_first_on_the_path(tmp_path: Path):
    another_utils(tmp_path)
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}]\n{SETUP}\nfrom utils import bigram; print(bigram.__file__)"
    out = run_python(code, ROOT / "notebooks")
    assert out == f"{READY}{ROOT / 'utils' / 'bigram.py'}\n"


def test_utils_is_the_courses_even_where_another_was_imported_before(tmp_path: Path):
    another_utils(tmp_path)
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}]\nimport utils.attention\n{SETUP}\n"
        "from utils import attention; print(attention.__file__)"
    )
    note, ready, file = run_python(code, ROOT / "notebooks").splitlines()
    assert note.startswith("Note: another package named utils was loaded")
    assert str(tmp_path / "utils" / "__init__.py") in note
    assert (ready + "\n", file) == (READY, str(ROOT / "utils" / "attention.py"))


def test_a_file_named_utils_beside_the_notebook_does_no_harm(tmp_path: Path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / "utils.py").write_text("raise SystemExit('the wrong one')\n")
    (tmp_path / "utils").symlink_to(ROOT / "utils")
    (tmp_path / "requirements.txt").symlink_to(ROOT / "requirements.txt")
    assert run_python(f"{SETUP}\nfrom utils import attention", folder) == READY


# Where the course lies


def run_python(code: str, folder: Path, python: str = sys.executable) -> str:
    """What a fresh Python prints that runs ``code`` in ``folder``; an error's last line if it fails."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([python, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    return done.stdout + done.stderr.strip().rpartition("\n")[2]


@pytest.mark.parametrize("place", [".", "notebooks", "utils/checks/probes"])
def test_the_course_is_found_from_any_of_its_folders(place: str):
    assert run_python(f"{SETUP}\nimport utils.attention", ROOT / place) == READY


def test_the_course_is_found_from_elsewhere_by_the_environment_that_it_holds(tmp_path: Path):
    (tmp_path / "course" / "utils").mkdir(parents=True)
    (tmp_path / "course" / "utils" / "startup.py").write_text("def prepare(*given): print('found', *given)\n")
    (tmp_path / "elsewhere").mkdir()
    code = f"import sys; sys.prefix = {str(tmp_path / 'course' / '.venv')!r}\n{SETUP}"
    assert run_python(code, tmp_path / "elsewhere") == f"found {tmp_path / 'course'} False\n"


def test_a_kernel_without_the_packages_gets_a_sentence_and_no_traceback_of_ours(tmp_path: Path):
    """A fresh environment has none of them: the setup cell must not import them before it has looked."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    said = run_python(SETUP, ROOT / "notebooks", str(tmp_path / "bare" / "bin" / "python"))
    assert said.startswith(f"RuntimeError: Missing here: {', '.join(LEARNER_PACKAGES)}. This kernel runs {tmp_path}")


@pytest.mark.parametrize("file", [SETUP_CELL, Path(startup.__file__), Path(preflight.__file__)], ids=lambda f: f.stem)
def test_old_pythons_can_read_what_refuses_them(file: Path):
    """A SyntaxError would hide the sentence that asks for a newer one."""
    ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 7))


# Cells out of order


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> InteractiveShell:
    """An IPython shell, as the kernel of a notebook has one, after the setup cell."""
    shell = InteractiveShell()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    runpy.run_path(startup.__file__)["prepare"](ROOT)
    return shell


def test_a_name_that_no_cell_has_defined_yet_brings_a_hint(shell: InteractiveShell, capsys: pytest.CaptureFixture):
    capsys.readouterr()
    result = shell.run_cell("attn_weights.sum()")
    assert isinstance(result.error_in_exec, NameError), "the error itself stays"
    out = capsys.readouterr().out
    assert "name 'attn_weights' is not defined" in out
    assert "Hint: nothing is called `attn_weights` here yet." in out
    assert "Run All Above Selected Cell" in out


def test_make_lab_gives_the_hint_even_before_the_setup_cell(tmp_path: Path):
    """A real kernel, started as `make lab` does it; nothing of the hint stays in the notebook's namespace."""
    show_names = "print(sorted(name for name in globals() if name[0] != '_'))"
    notebook = new_notebook(cells=[new_code_cell(show_names), new_code_cell("check(1)")])
    client = NotebookClient(notebook, allow_errors=True, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=os.environ | {"PYTHONSTARTUP": hints.__file__})
    names, (error, hint) = notebook.cells[0].outputs[0].text, notebook.cells[1].outputs
    assert names == "['In', 'Out', 'exit', 'get_ipython', 'open', 'quit']\n"
    assert error.ename == "NameError"
    assert hint.text.startswith("Hint: nothing is called `check` here yet.")
    assert 'PYTHONSTARTUP="$(CURDIR)/utils/hints.py"' in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("cell", ["1 / 0", "def f():\n    x += 1\nf()", "import no_such_module"])
def test_other_errors_are_left_alone(cell: str, shell: InteractiveShell, capsys: pytest.CaptureFixture):
    capsys.readouterr()
    assert not shell.run_cell(cell).success
    assert "Hint:" not in capsys.readouterr().out
