"""JupyterLab in a real browser: what a learner sees and does, from `make lab` to a solved exercise."""

from __future__ import annotations

import base64
import html
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from course_copy import copied_course, copy_fetched_data
from lab_page import PAGE_SECONDS, VIEWPORT, LabServer, NotebookPage, make_lab, open_notebook, pictured, prose
from playwright.sync_api import Browser, BrowserContext, Locator, expect

from utils.checks import EXERCISES
from utils.release import ROOT

CHAPTER_1, CHAPTER_4, CHAPTER_7 = (
    "01_dot_product_attention.ipynb",
    "04_multi_head_attention.ipynb",
    "07_pretraining.ipynb",
)
ANSWER, CHECK = "# EXERCISE 1.1", 'check("1.1"'
THEMES = ("JupyterLab Dark", "JupyterLab Light")
REPORT = ".jp-RenderedHTML.jp-OutputArea-output"
# How many pixels of a picture are not of its commonest colour: an empty picture has none.
DRAWN_PIXELS = """image => {
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
  if (!canvas.width || !canvas.height) return 0;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const pixels = new Uint32Array(context.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
  const counts = new Map();
  for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) || 0) + 1);
  return pixels.length - Math.max(...counts.values());
}"""
CORNER = """image => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return [...context.getImageData(0, 0, 1, 1).data];
}"""
# Every piece of text in an element with its colour and the ground it stands on, as WCAG 2 computes contrast.
CONTRASTS = """root => {
  const rgba = text => { const n = text.match(/[\\d.]+/g).map(Number); return [n[0], n[1], n[2], n[3] ?? 1]; };
  const light = colour => colour.slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = rgba(getComputedStyle(e).backgroundColor);
      if (colour[3] === 1) return colour;
      if (colour[3] > 0) throw new Error("half-transparent ground: not expected here");
    }
    return [255, 255, 255, 1];
  };
  const found = [];
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    if (!text) continue;
    const element = walker.currentNode.parentElement;
    const [a, b] = [light(rgba(getComputedStyle(element).color)), light(ground(element))].sort((x, y) => y - x);
    found.push({text, ratio: (a + 0.05) / (b + 0.05)});
  }
  return found;
}"""


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    """`make lab` in a copy of the course, for somebody who has never used Jupyter before."""
    folder = tmp_path_factory.mktemp("lab")
    course = folder / "attention-course"
    course.mkdir()
    copy_fetched_data(course)
    with make_lab(copied_course(course), folder / "home") as server:
        yield server


@pytest.fixture(scope="session")
def window(browser: Browser) -> Iterator[BrowserContext]:
    """One browser for all tests, as a learner has: JupyterLab's scripts are fetched once."""
    expect.set_options(timeout=PAGE_SECONDS * 1000)
    context = browser.new_context(viewport=VIEWPORT)
    yield context
    context.close()


@pytest.fixture(scope="session")
def kept() -> list[NotebookPage]:
    """Pages that the next test may use."""
    return []


@pytest.fixture
def untouched(window: BrowserContext, lab: LabServer, kept: list[NotebookPage], tmp_path: Path) -> NotebookPage:
    """Chapter 1, just opened. Loading takes seconds, so tests that leave the notebook as it is share the page."""
    if not kept or kept[-1].page.is_closed():
        kept.append(open_notebook(window, lab, CHAPTER_1, tmp_path / "page.png"))
    return kept[-1]


@pytest.fixture
def chapter1(window: BrowserContext, lab: LabServer, tmp_path: Path) -> NotebookPage:
    """Chapter 1, just open_notebook, for one test."""
    return open_notebook(window, lab, CHAPTER_1, tmp_path / "page.png")


def outputs_of(cell: dict) -> list[dict]:
    """The stored outputs; none for text."""
    return cell.get("outputs", [])


def stored_report(cell: dict) -> str | None:
    """The HTML of a check cell's stored report."""
    found = [
        "".join(output["data"]["text/html"]) for output in outputs_of(cell) if "text/html" in output.get("data", {})
    ]
    return found[0] if found else None


def stored_pictures(cell: dict) -> list[tuple[int, int, str]]:
    """Width, height and alternative text of the stored pictures."""
    found = []
    for output in outputs_of(cell):
        if "image/png" in output.get("data", {}):
            data = base64.b64decode("".join(output["data"]["image/png"]))
            alt = output["metadata"].get("image/png", {}).get("alt", "")
            found.append((*struct.unpack(">II", data[16:24]), alt))
    return found


def assert_nothing_went_wrong(notebook: NotebookPage) -> None:
    """No error, no stderr, no dialog, and a number at every code cell."""
    assert notebook.errors() == []
    assert notebook.popups() == []
    code_cells = sum(cell["cell_type"] == "code" for cell in notebook.stored)
    assert notebook.prompts() == [f"[{n}]:" for n in range(1, code_cells + 1)]


def assert_outputs_are_shown(notebook: NotebookPage) -> None:
    """Every cell shows what is stored for it: texts, pictures with something on them, whole reports."""
    pictures = reports = 0
    # Reports are compared with what the kernel has just sent, which stands in the file once it is saved: the page
    # alone would not do, because a browser mends a tag that was left open.
    for i, (cell, saved) in enumerate(zip(notebook.stored, notebook.save(), strict=True)):
        if cell["cell_type"] != "code":
            continue
        shown = notebook.panel.locator(".jp-Cell").nth(i)
        text = "".join("".join(output["text"]) for output in outputs_of(cell) if output["output_type"] == "stream")
        streams = shown.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stdout"]')
        assert "".join(streams.all_text_contents()).split() == text.split(), f"cell {i}: text"
        images = shown.locator(".jp-OutputArea-output img")
        stored = stored_pictures(cell)
        assert images.count() == len(stored), f"cell {i}: pictures"
        for image, (width, height, alt) in zip(images.all(), stored, strict=True):
            pictures += 1
            assert image.evaluate("i => [i.naturalWidth, i.naturalHeight]") == [width, height], f"cell {i}: size"
            assert image.evaluate(DRAWN_PIXELS) > 0.005 * width * height, f"cell {i}: nothing is drawn"
            assert len(alt) > 20, f"cell {i}: no words for those who can't see the picture"
        report = stored_report(cell)
        if report is not None:
            reports += 1
            assert_report_is_whole(shown, stored_report(saved) or "")
    assert pictures == notebook.panel.locator(".jp-OutputArea-output img").count() > 0
    assert reports == notebook.panel.locator(REPORT).count() > 0


def assert_report_is_whole(cell: Locator, source: str, is_trusted: bool = True) -> None:
    """The report is on the page, as written: a browser would have mended an unclosed tag."""
    if not is_trusted:  # JupyterLab takes the role out of a notebook that was not run as a whole
        source = source.replace(' role="status"', "")
    report = cell.locator(REPORT)
    expect(report).to_have_count(1)
    assert html.unescape(report.inner_html()) == html.unescape(source)
    box = report.locator("xpath=./*")
    assert box.count() == 1
    assert box.evaluate("b => getComputedStyle(b).borderLeftStyle") == "solid"
    assert box.locator("li").count() >= 1


def assert_prose_is_rendered(notebook: NotebookPage) -> None:
    """Formulas, tables, links and folded hints are rendered, and no Markdown is left as it was typed."""
    for i, cell in enumerate(notebook.stored):
        if cell["cell_type"] != "markdown":
            continue
        shown, text = notebook.panel.locator(".jp-Cell").nth(i).locator(".jp-RenderedMarkdown"), prose(cell)
        # what is left of code: formulas are drawn as glyphs, so no dollar or backslash may remain
        left = shown.evaluate(
            """e => { const copy = e.cloneNode(true);
            copy.querySelectorAll("code, pre, mjx-container").forEach(c => c.remove()); return copy.textContent; }"""
        )
        assert not re.search(r"[$\\]|\*\*|\]\(|^\s*\|", left, re.MULTILINE), f"cell {i}: {left!r}"
        formulas = len(re.findall(r"\$\$.+?\$\$|\$[^$]+\$", text, re.DOTALL))
        assert shown.locator("mjx-container").count() == formulas, f"cell {i}: formulas"
        assert shown.locator("mjx-merror, [data-mml-node=merror]").count() == 0, f"cell {i}: a broken formula"
        tables = len(re.findall(r"^\|[| :]*-[-| :]*\|\s*$", text, re.MULTILINE))
        assert shown.locator("table").count() == tables, f"cell {i}: tables"
        links = len(re.findall(r"(?<!!)\[(?:!\[[^\]]*\]\([^)]*\)|[^\]])*\]\([^)]+\)", "".join(cell["source"])))
        assert shown.locator("a[href]:not(.jp-InternalAnchorLink)").count() == links, f"cell {i}: links"
        assert shown.locator("details > summary").count() == text.count("<details>"), f"cell {i}: hints"


def assert_reports_are_open(notebook: NotebookPage, chapter: str) -> None:
    """One report per exercise with a check, and each says that nothing was tried."""
    reports = notebook.panel.locator(REPORT)
    assert reports.count() == sum(exercise_id.startswith(chapter) for exercise_id in EXERCISES)
    for report in reports.all():
        expect(report).to_contain_text("Not attempted yet.")


def assert_everything_is_readable(notebook: NotebookPage, theme: str) -> None:
    """Reports stand out from their ground as WCAG 2 asks; figures bring a white ground of their own."""
    for report in notebook.panel.locator(REPORT).all():
        pieces = report.evaluate(CONTRASTS)
        assert len(pieces) > 5
        for piece in pieces:
            # a symbol says nothing that the words don't: it is a graphical object, for which 3 is enough
            least = 3.0 if piece["text"] in "✓✗○" else 4.5
            assert piece["ratio"] >= least, f"{theme}: {piece}"
    for image in notebook.panel.locator(".jp-OutputArea-output img").all():
        assert image.evaluate(CORNER) == [255, 255, 255, 255], f"{theme}: a figure without ground of its own"


def assert_all_of_it_runs(notebook: NotebookPage, chapter: str, seconds: float) -> None:
    """Run All, and then all is as it should be on the page of an unsolved chapter."""
    notebook.run_all(seconds)
    assert_nothing_went_wrong(notebook)
    assert_outputs_are_shown(notebook)
    assert_prose_is_rendered(notebook)
    assert_reports_are_open(notebook, chapter)


def test_make_lab_opens_the_chapters_and_asks_nothing(untouched: NotebookPage, tmp_path: Path) -> None:
    with pictured(untouched.page, tmp_path / "page.png"):
        names = untouched.page.locator(".jp-DirListing-itemName").all_text_contents()
        assert names == sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
        assert names[0] == CHAPTER_1
        expect(untouched.panel.locator(".jp-Toolbar-kernelName")).to_have_text("Python 3 (ipykernel)")
        assert untouched.popups() == []
        menus = untouched.page.locator(".lm-MenuBar-itemLabel").all_text_contents()
        assert menus == ["File", "Edit", "View", "Run", "Kernel", "Tabs", "Settings", "Help"], "nothing of nbgrader's"
        wide = "panel => [...panel.querySelectorAll('.cm-scroller')].some(cell => cell.scrollWidth > cell.clientWidth)"
        assert not untouched.panel.evaluate(wide), "a line of code runs out of its cell"


def test_make_lab_takes_another_port_where_its_own_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with make_lab(copied_course(tmp_path / "course"), tmp_path / "home", taken) as lab:
            assert urlsplit(lab.address).port not in (None, taken)
            assert '"started"' in lab.request("GET", "status"), "the address that it prints is its own"


def test_stored_reports_are_readable_before_anything_is_run(untouched: NotebookPage, tmp_path: Path) -> None:
    with pictured(untouched.page, tmp_path / "page.png"):
        # The notebook is not trusted yet, and JupyterLab takes out of its HTML what it deems dangerous.
        reports = untouched.panel.locator(REPORT)
        expect(reports).to_have_count(sum(stored_report(cell) is not None for cell in untouched.stored))
        for report in reports.all():
            expect(report).to_contain_text("Not attempted yet.")
            assert report.locator("xpath=./div").evaluate("b => getComputedStyle(b).borderLeftStyle") == "solid"


def test_hints_open_and_close(untouched: NotebookPage, tmp_path: Path) -> None:
    with pictured(untouched.page, tmp_path / "page.png"):
        hints = untouched.panel.locator("details")
        first, second = hints.nth(0), hints.nth(1)
        for hint, inside in ((first, "p code"), (second, "pre code")):
            content = hint.locator(inside).first
            expect(content).not_to_be_visible()
            hint.locator("summary").click()
            expect(content).to_be_visible()
            assert "`" not in hint.text_content()
        first.locator("summary").click()
        expect(first.locator("p code").first).not_to_be_visible()
        expect(second.locator("pre code").first).to_be_visible()


def test_links_open_the_next_chapter_and_the_code(untouched: NotebookPage, tmp_path: Path) -> None:
    with pictured(untouched.page, tmp_path / "page.png"):
        tabs = untouched.page.locator(".lm-DockPanel-tabBar .lm-TabBar-tab")
        for link, opens in (("chapter 2", "02_self_attention.ipynb"), ("utils/attention.py", "attention.py")):
            untouched.panel.locator(".jp-RenderedMarkdown a", has_text=link).last.click()
            tab = tabs.filter(has_text=re.compile(f"^{opens}"))
            expect(tab).to_have_count(1)
            tab.locator(".lm-TabBar-tabCloseIcon").click()
            expect(tab).to_have_count(0)
        assert untouched.popups() == []


def test_chapter_1_runs_from_the_menu_and_is_readable_in_both_themes(chapter1: NotebookPage, tmp_path: Path) -> None:
    with pictured(chapter1.page, tmp_path / "page.png"):
        assert_all_of_it_runs(chapter1, "1.", seconds=40)
        for theme in THEMES:
            chapter1.choose_theme(theme)
            assert_everything_is_readable(chapter1, theme)


def test_an_exercise_is_solved_by_typing(chapter1: NotebookPage, tmp_path: Path) -> None:
    page, keyboard = chapter1.page, chapter1.page.keyboard
    answer, check_cell = chapter1.cell(ANSWER), chapter1.cell(CHECK)
    report = check_cell.locator(REPORT)
    full = f"{EXERCISES['1.1'].points} of {EXERCISES['1.1'].points} points"
    with pictured(page, tmp_path / "page.png"):
        chapter1.run_all_above(ANSWER)
        chapter1.run_cell(ANSWER)
        expect(chapter1.run_cell(CHECK)).to_contain_text("Not attempted yet.")

        # The stub's two lines give way to a loop. JupyterLab indents new lines and closes brackets by itself.
        answer.locator(".cm-line", has_text="# YOUR CODE HERE").click()
        for key in ("Home", "Shift+ArrowDown", "Shift+End"):
            keyboard.press(key)
        keyboard.type("total = 0.0\nfor q, k in zip(query, key):\ntotal = total + q * k\n")
        keyboard.press("Backspace")  # back out of the loop
        keyboard.type("return total")
        chapter1.press_to_run(answer)
        chapter1.press_to_run(check_cell)  # the cursor has moved on to it
        expect(report).to_contain_text(full)
        expect(report).not_to_contain_text("Not attempted yet.")
        for theme in THEMES:
            chapter1.choose_theme(theme)
            assert_everything_is_readable(chapter1, theme)

        mistake = next(m for m in EXERCISES["1.1"].misconceptions if m.name == "mean")
        answer.locator(".cm-line").first.click()
        keyboard.press("Control+a")
        keyboard.type("# EXERCISE 1.1\ndef dot_product_score(query, key):\nreturn (query * key).mean()")
        chapter1.press_to_run(answer)
        chapter1.press_to_run(check_cell)
        expect(report).to_contain_text(mistake.sentence.replace("`", ""))
        expect(report).not_to_contain_text(full)
        assert_everything_is_readable(chapter1, "JupyterLab Light")

        saved = chapter1.save()
        typed = "".join(saved[chapter1.index(ANSWER)]["source"])
        assert typed == "# EXERCISE 1.1\ndef dot_product_score(query, key):\n    return (query * key).mean()"
        source = stored_report(saved[chapter1.index(CHECK)])
        assert mistake.sentence in html.unescape(re.sub(r"</?code>", "`", source))
        assert_report_is_whole(check_cell, source)

        page.reload()
        chapter1.wait_until_rendered()
        expect(answer.locator(".cm-content")).to_contain_text("return (query * key).mean()")
        assert_report_is_whole(check_cell, source, is_trusted=False)
        assert chapter1.popups() == []


def test_cells_out_of_order_say_what_to_do(chapter1: NotebookPage, tmp_path: Path) -> None:
    what_to_do = "Run → Run All Above Selected Cell"
    with pictured(chapter1.page, tmp_path / "page.png"):
        # A check, an answer and a later cell before anything else, even before the setup
        for start, name in ((CHECK, "check"), ("# EXERCISE 1.2", "BaseNormalizer"), ("shares = {}", "torch")):
            shown = chapter1.run_cell(start)
            expect(shown).to_contain_text(f"NameError: name '{name}' is not defined")
            expect(shown).to_contain_text(what_to_do)
        # ... which is what the learner now does
        chapter1.run_all_above(CHECK)
        expect(chapter1.run_cell(CHECK)).to_contain_text("Not attempted yet.")
        assert chapter1.popups() == []

        chapter1.menu("Kernel", "Restart Kernel…")
        chapter1.page.locator(".jp-Dialog").get_by_role("button", name="Confirm Kernel Restart").click()
        expect(chapter1.page.locator(".jp-Dialog")).to_have_count(0)
        chapter1.wait_for_kernel()
        shown = chapter1.run_cell(CHECK)
        expect(shown).to_contain_text("NameError: name 'check' is not defined")
        expect(shown).to_contain_text(what_to_do)
        chapter1.run_all_above(CHECK)
        expect(chapter1.run_cell(CHECK)).to_contain_text("Not attempted yet.")


def test_chapter_4_runs_from_the_menu(window: BrowserContext, lab: LabServer, tmp_path: Path) -> None:
    notebook = open_notebook(window, lab, CHAPTER_4, tmp_path / "page.png")
    with pictured(notebook.page, tmp_path / "page.png"):
        assert_all_of_it_runs(notebook, "4.", seconds=60)


def test_chapter_7_starts(window: BrowserContext, lab: LabServer, tmp_path: Path) -> None:
    notebook = open_notebook(window, lab, CHAPTER_7, tmp_path / "page.png")
    with pictured(notebook.page, tmp_path / "page.png"):
        assert_prose_is_rendered(notebook)
        code = [cell for cell in notebook.stored if cell["cell_type"] == "code"]
        notebook.run_all_above("".join(code[4]["source"]))
        assert notebook.errors() == []
        assert notebook.popups() == []
