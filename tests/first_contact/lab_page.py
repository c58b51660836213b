"""JupyterLab as a learner meets it: a copy of the course, `make lab`, and a page with a notebook in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import BrowserContext, Error, Locator, Page

from utils.release import ROOT

START_SECONDS = 60
PAGE_SECONDS = 40  # for a page, a menu, a picture: what takes longer on a busy machine is broken
VIEWPORT = {"width": 1280, "height": 900}
# Everything that asks or tells the learner something over the page, however briefly it is there.
WATCH_POPUPS = """() => {
  window.popups = [];
  const seen = new WeakSet();
  new MutationObserver(() => {
    for (const box of document.querySelectorAll(".jp-Dialog, .Toastify__toast"))
      if (!seen.has(box)) { seen.add(box); window.popups.push(box.textContent); }
  }).observe(document, {childList: true, subtree: true});
}"""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class LabServer:
    """A running `make lab`."""

    course: Path
    address: str  # what its log tells a learner to open
    home: Path

    def request(self, method: str, path: str) -> str:
        """Ask Jupyter's own interface, /api/…"""
        parts = urlsplit(self.address)
        token = parse_qs(parts.query)["token"][0]
        request = urllib.request.Request(
            f"{parts.scheme}://{parts.netloc}/api/{path}", method=method, headers={"Authorization": f"token {token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read().decode()

    def end_kernels(self) -> None:
        """Shut down every kernel. They have process groups of their own, so ending the server hard would leave them."""
        for session in json.loads(self.request("GET", "sessions")):
            self.request("DELETE", f"sessions/{session['id']}")

    def fresh(self, name: str) -> Path:
        """The notebook as the course has it, and nothing that an earlier test has left: no kernel, tab or theme."""
        self.end_kernels()
        shutil.rmtree(self.home / ".jupyter" / "lab", ignore_errors=True)
        path = self.course / "notebooks" / name
        shutil.copyfile(ROOT / "notebooks" / name, path)
        return path


@contextmanager
def make_lab(course: Path, home: Path, port: int | None = None) -> Iterator[LabServer]:
    """`make lab` in ``course``, as somebody whose home is empty; ended with all its kernels afterwards."""
    home.mkdir(exist_ok=True)
    (course / ".venv").symlink_to(sys.prefix, target_is_directory=True)
    port = port or free_port()
    # what pytest, coverage or another Jupyter has set for this process is not in a learner's shell
    ours = ("JUPYTER", "JPY_", "IPYTHON", "MPL", "PYTEST", "COV_", "XDG_", "MAKE", "MFLAGS")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment |= {"HOME": str(home), "OMP_NUM_THREADS": "1"}
    log = home / "lab.log"
    # -o: the environment is there, whatever the dates of the copied files say
    command = ["make", "-o", ".venv/.lab", "lab", f"PORT={port}", "LAB_ARGS=--no-browser"]
    with log.open("wb") as out:
        server = subprocess.Popen(
            command, cwd=course, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        lab = LabServer(course, wait_for_address(server, log), home)
        yield lab
        lab.end_kernels()
    finally:
        stop(server)


def wait_for_address(server: subprocess.Popen[bytes], log: Path) -> str:
    """The address that the server's log tells the learner to open, as soon as it stands there."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        said = log.read_text(errors="replace")
        if found := re.search(r"http://(?:localhost|127\.0\.0\.1):\d+/lab\S*", said):
            return found.group()
        if server.poll() is not None:
            raise AssertionError(f"`make lab` ended with {server.returncode}:\n{said[-3000:]}")
        time.sleep(0.1)
    raise AssertionError(f"`make lab` named no address within {START_SECONDS} s:\n{log.read_text()[-3000:]}")


def stop(server: subprocess.Popen[bytes]) -> None:
    """End `make` and the server, and then whatever is left of their process group."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, signal_number)
            server.wait(15)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


class NotebookPage:
    """A notebook that is open in JupyterLab, and what a learner does with it."""

    def __init__(self, page: Page, server: LabServer, path: Path) -> None:
        self.page, self.server, self.path = page, server, path
        self.stored = json.loads(path.read_text())["cells"]

    # what there is -----------------------------------------------------------------------------------

    @property
    def panel(self) -> Locator:
        """The notebook's own part of the window."""
        return self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")

    def index(self, start: str) -> int:
        """The position of the one cell whose source starts like this."""
        found = [i for i, cell in enumerate(self.stored) if "".join(cell["source"]).startswith(start)]
        assert len(found) == 1, f"{len(found)} cells start with {start!r}"
        return found[0]

    def cell(self, start: str) -> Locator:
        """The one cell whose source starts like this (when the notebook was opened)."""
        return self.panel.locator(".jp-Cell").nth(self.index(start))

    def popups(self) -> list[str]:
        """The text of every dialog and notification since the page was loaded."""
        return self.page.evaluate("window.popups")

    def prompts(self) -> list[str]:
        """`[1]:`, `[*]:` or `[ ]:` of every code cell."""
        return self.panel.locator(".jp-CodeCell .jp-InputPrompt").evaluate_all("all => all.map(p => p.textContent)")

    # what a learner does -----------------------------------------------------------------------------

    def menu(self, *labels: str) -> None:
        """Choose from the menu bar: the menu, submenus, the entry."""
        self.page.locator(".lm-MenuBar-item").get_by_text(labels[0], exact=True).click()
        for label in labels[1:]:
            entry = self.page.locator(".lm-Menu-item").get_by_text(label, exact=True)
            if label == labels[-1]:
                entry.click()
            else:
                entry.hover()

    def wait_until_rendered(self) -> None:
        """Wait until every cell is on the page and typeset (JupyterLab adds them bit by bit)."""
        has_math = [cell["cell_type"] == "markdown" and "$" in prose(cell) for cell in self.stored]
        self.page.wait_for_function(
            """hasMath => {
              const cells = [...document.querySelectorAll(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell")];
              return cells.length === hasMath.length && cells.every((cell, i) =>
                cell.querySelector(cell.matches(".jp-CodeCell") ? ".cm-content" : ".jp-RenderedMarkdown")
                && (!hasMath[i] || cell.querySelector("mjx-container")));
            }""",
            arg=has_math,
        )

    def wait_for_kernel(self) -> None:
        """Wait until the status bar says that the kernel is there (the circle at the top is empty before, too)."""
        self.page.wait_for_selector('#jp-main-statusbar :text("| Idle")')

    def wait_until_idle(self, seconds: float) -> None:
        """Wait until nothing runs and nothing waits to be run."""
        self.page.wait_for_function(
            """() => {
              const panel = document.querySelector(".jp-NotebookPanel:not(.lm-mod-hidden)");
              const prompts = [...panel.querySelectorAll(".jp-CodeCell .jp-InputPrompt")].map(p => p.textContent);
              return panel.querySelector(".jp-Notebook-ExecutionIndicator").dataset.status === "idle"
                && prompts.some(p => /\\d/.test(p)) && !prompts.includes("[*]:");
            }""",
            timeout=seconds * 1000,
        )

    def run_all(self, seconds: float) -> None:
        """Clear what is stored, so that all that is seen afterwards is new, and run every cell."""
        self.menu("Edit", "Clear Outputs of All Cells")
        self.page.wait_for_function("() => !document.querySelector('.jp-CodeCell .jp-OutputArea-output')")
        self.menu("Run", "Run All Cells")
        self.wait_until_idle(seconds)

    def press_to_run(self, cell: Locator) -> None:
        """Shift+Enter in a cell that has the cursor; wait until it has run."""
        # The new number may be the old one again, so what counts is the star that comes before it.
        cell.evaluate(
            """cell => {
              cell.started = false;
              new MutationObserver(() => {
                cell.started ||= cell.querySelector(".jp-InputPrompt").textContent === "[*]:";
              }).observe(cell, {childList: true, subtree: true, characterData: true});
            }"""
        )
        self.page.keyboard.press("Shift+Enter")
        self.page.wait_for_function("cell => cell.started", arg=cell.element_handle())
        self.wait_until_idle(30)

    def run_cell(self, start: str) -> Locator:
        """Click into the cell and run it; the place of its outputs."""
        cell = self.cell(start)
        cell.locator(".cm-line").first.click()
        self.press_to_run(cell)
        return cell.locator(".jp-Cell-outputArea")

    def run_all_above(self, start: str) -> None:
        """Click into the cell and run what stands before it."""
        self.cell(start).locator(".cm-line").first.click()
        self.menu("Run", "Run All Above Selected Cell")
        self.wait_until_idle(40)

    def errors(self) -> list[str]:
        """What is shown in red, anywhere in the notebook."""
        kinds = ("error", "stderr")
        return self.panel.locator(
            ", ".join(f'.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.{kind}"]' for kind in kinds)
        ).all_text_contents()

    def choose_theme(self, name: str) -> None:
        """Settings → Theme."""
        self.menu("Settings", "Theme", name)
        self.page.wait_for_selector(f'body[data-jp-theme-name="{name}"]', state="attached")

    def save(self) -> list[dict]:
        """Ctrl+S; the cells as they are on the disk then."""
        self.page.keyboard.press("Control+s")
        self.page.wait_for_function("() => !document.querySelector('.lm-TabBar-tab.jp-mod-dirty')")
        return json.loads(self.path.read_text())["cells"]


def prose(cell: dict) -> str:
    """The Markdown of a cell without code, where a dollar or a bar means itself."""
    return re.sub(r"```.*?```|`[^`]*`", "", "".join(cell["source"]), flags=re.DOTALL)


@contextmanager
def pictured(page: Page, screenshot: Path) -> Iterator[None]:
    """Whatever goes wrong inside is raised with a picture of the page."""
    try:
        yield
    except (AssertionError, Error) as error:
        page.screenshot(path=screenshot)
        raise AssertionError(f"{error}\nWhat the page looked like: {screenshot}") from error


def open_notebook(context: BrowserContext, server: LabServer, name: str, screenshot: Path) -> NotebookPage:
    """JupyterLab with one notebook, opened from the file browser. Other pages are closed: they would save, too."""
    for other in context.pages:
        other.close()
    path = server.fresh(name)
    page = context.new_page()
    page.set_default_timeout(PAGE_SECONDS * 1000)
    page.add_init_script(f"({WATCH_POPUPS})()")
    page.on("dialog", lambda dialog: dialog.accept())
    with pictured(page, screenshot):
        page.goto(server.address)
        page.locator(".jp-DirListing-item", has_text=name).dblclick()
        notebook = NotebookPage(page, server, path)
        notebook.wait_until_rendered()
        notebook.wait_for_kernel()
    return notebook
