"""The book: all chapters as pages that need no internet and no server, read by a parser and by a browser."""

from __future__ import annotations

import doctest
import functools
import http.server
import importlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urldefrag, urlsplit

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup, Tag
from filelock import FileLock
from nbformat import NotebookNode
from playwright.sync_api import Browser, Page

from utils.release import ROOT, repository

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ADDRESS = f"https://github.com/{repository()}"
CHAPTER_PAGES = [f"notebooks/{path.stem}.html" for path in NOTEBOOKS]
EXPLORER = "explorer/index.html"
OTHER_PAGES = ["index.html", "prerequisites.html", "glossary.html", "instructors.html", "marking.html"]
SIZES = {"phone": {"width": 390, "height": 844}, "desktop": {"width": 1280, "height": 800}}
# One word of each chapter, as a reader would look for it.
WORDS = dict(
    zip(
        CHAPTER_PAGES,
        ["overflows", "saturation", "dropout", "cross-attention", "tokenizer", "GELU", "perplexity", "profile"],
        strict=True,
    )
)


@dataclass
class Book:
    """The built pages: their folder, what the build said, and each page as a tree."""

    html: Path
    log: str
    trees: dict[str, BeautifulSoup] = field(default_factory=dict)
    ids: dict[str, set[str]] = field(default_factory=dict)

    def tree(self, page: str) -> BeautifulSoup:
        """A page, parsed once."""
        if page not in self.trees:
            self.trees[page] = BeautifulSoup((self.html / page).read_text(encoding="utf-8"), "html.parser")
        return self.trees[page]

    def article(self, page: str) -> Tag:
        """A page without what surrounds it."""
        return self.tree(page).find("article")

    def anchors(self, page: str) -> set[str]:
        """What a link can lead to within a page."""
        if page not in self.ids:
            self.ids[page] = {tag["id"] for tag in self.tree(page).select("[id]")}
        return self.ids[page]

    def pages(self) -> list[str]:
        """Every page, the explorer's included."""
        found = [path.relative_to(self.html) for path in self.html.rglob("*.html")]
        return sorted(path.as_posix() for path in found if path.parts[0] != "_static")


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory) -> Book:
    """The book, built once, however many processes test it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # the folder of all processes
    out, log = folder / "book", folder / "book.log"
    with FileLock(folder / "book.lock"):
        if not log.exists():
            command = [sys.executable, str(ROOT / "assets" / "book" / "build.py"), "--out", str(out)]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            log.write_text(f"{done.returncode}\n{done.stdout}{done.stderr}", encoding="utf-8")
    code, _, said = log.read_text(encoding="utf-8").partition("\n")
    if code != "0":
        pytest.fail(f"the book was not built:\n{said}", pytrace=False)
    return Book(out / "html", said)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports one of the book's own modules."""
    monkeypatch.syspath_prepend(ROOT / "assets" / "book")
    return importlib.import_module


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def chapter(request: pytest.FixtureRequest) -> tuple[str, NotebookNode]:
    """Every chapter in turn: its page and its notebook."""
    return f"notebooks/{request.param.stem}.html", nbformat.read(request.param, as_version=4)


def markdown_of(notebook: NotebookNode) -> str:
    """All texts of a notebook."""
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def local_target(page: str, link: str) -> tuple[str, str] | None:
    """The file and the anchor that a link leads to, relative to the book; None if it leaves the book."""
    if urlsplit(link).scheme or link.startswith("//"):
        return None
    path, anchor = urldefrag(link)
    path = unquote(urlsplit(path).path)
    return (os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page), unquote(anchor)


# What was built


def test_build_warns_of_nothing_and_says_where_the_book_is(book: Book):
    assert "WARNING" not in book.log and "ERROR" not in book.log
    assert book.log.strip() == f"The book: {book.html / 'index.html'}"


def test_all_pages_are_there(book: Book):
    assert {*CHAPTER_PAGES, *OTHER_PAGES, EXPLORER, "search.html"} <= set(book.pages())


def test_every_link_inside_the_book_leads_somewhere(book: Book):
    broken = []
    for page in book.pages():
        for tag in book.tree(page).select("[href], [src]"):
            link = tag.get("href") or tag.get("src") or ""
            target = local_target(page, link)
            if target is None:
                continue
            path, anchor = target
            found = (book.html / path).is_file()
            if found and anchor and path.endswith(".html"):
                found = anchor in book.anchors(path)
            if not found and link != "#":
                broken.append(f"{page}: {link}")
    assert not broken


def test_links_into_the_repository_name_files_that_exist(book: Book):
    links = {tag["href"] for page in book.pages() for tag in book.tree(page).select(f'a[href^="{ADDRESS}/"]')}
    paths = [found[1] for link in links if (found := re.match(r"[^#]*/(?:blob|tree)/main/([^#]+)", link))]
    assert len(paths) > 20
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_nothing_is_loaded_from_elsewhere(book: Book):
    loaded = []
    for page in book.pages():
        for tag in book.tree(page).select("script[src], link[href], img, source, iframe, video, object, embed"):
            if tag.name == "link" and set(tag.get("rel", [])) <= {"next", "prev", "search", "index", "author"}:
                continue
            link = tag.get("src") or tag.get("href") or tag.get("data") or ""
            if urlsplit(link).scheme not in ("", "data") or link.startswith("//"):
                loaded.append(f"{page}: {link}")
    for path in book.html.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        loaded += [
            f"{path.name}: {link}" for link in re.findall(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^)\"']+)", text)
        ]
    assert not loaded


def test_every_picture_says_what_it_shows(book: Book):
    silent = []
    for page in book.pages():
        for tag in book.tree(page).select("img, svg"):
            said = tag.get("alt") or tag.get("aria-label") or tag.get("aria-labelledby") or tag.find("title")
            is_name = bool(re.search(r"\.(png|svg)$", str(said)))  # what Sphinx takes where it is told nothing
            if (not said or is_name) and tag.get("aria-hidden") != "true":
                silent.append(f"{page}: {str(tag)[:120]}")
    assert not silent


# Chapters


def test_chapter_shows_its_figures_with_their_texts(book: Book, chapter: tuple[str, NotebookNode]):
    page, notebook = chapter
    stored = [
        output.metadata["image/png"]["alt"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert stored and [img["alt"] for img in book.article(page).select(".cell_output img")] == stored


def test_chapter_shows_every_cell_and_every_check_report(book: Book, chapter: tuple[str, NotebookNode]):
    page, notebook = chapter
    article = book.article(page)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(article.select(".cell_input")) == len(code)
    reports = [o.data["text/html"] for cell in code for o in cell.outputs if "text/html" in o.get("data", {})]
    shown = [tag.get_text() for tag in article.select('.cell_output [role="status"]')]
    assert shown == [BeautifulSoup(report, "html.parser").get_text() for report in reports]
    assert all("Not attempted yet" in text for text in shown)
    printed = [o.text.strip("\n") for cell in code for o in cell.outputs if o.output_type == "stream"]
    streams = [tag.get_text().strip("\n") for tag in article.select(".cell_output .stream")]
    assert streams == printed


def test_chapter_holds_all_its_exercises(book: Book, chapter: tuple[str, NotebookNode]):
    page, notebook = chapter
    written = re.findall(r"^### (Exercise \d+\.\d+) ·", markdown_of(notebook), re.M)
    shown = [heading.get_text() for heading in book.article(page).find_all("h3")]
    assert len(written) >= 5 and [text.partition(" ·")[0] for text in shown if text.startswith("Exercise")] == written


def test_chapter_keeps_its_folded_hints_and_answers(book: Book, chapter: tuple[str, NotebookNode]):
    page, notebook = chapter
    folds = book.article(page).select("details:not(.hide)")
    written = re.findall(r"<details><summary>(.*?)</summary>", markdown_of(notebook))
    assert [fold.summary.get_text() for fold in folds] == written
    for fold in folds:  # Markdown inside is rendered, and stays inside
        assert fold.find(["p", "ol", "ul", "pre"]) and "```" not in fold.get_text() and "`" not in fold.get_text()


def test_chapter_opens_in_colab_and_in_jupyterlab(book: Book, chapter: tuple[str, NotebookNode]):
    page, _ = chapter
    name = Path(page).stem
    links = {tag.get_text(): tag["href"] for tag in book.article(page).select(".open-links a")}
    where = ADDRESS.removeprefix("https://github.com/")
    assert links == {
        "Open in Colab": f"https://colab.research.google.com/github/{where}/blob/main/notebooks/{name}.ipynb",
        "Open in your JupyterLab": f"http://localhost:8888/lab/tree/notebooks/{name}.ipynb",
    }


def test_jupyterlab_link_names_the_port_of_make_lab(module: Callable[[str], ModuleType]):
    assert f"PORT   ?= {module('staging').PORT}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("number", range(len(CHAPTER_PAGES)))
def test_chapter_leads_to_its_neighbours(book: Book, number: int):
    order = ["prerequisites.html", *CHAPTER_PAGES, EXPLORER]
    page = order[number + 1]
    around = {
        side: book.tree(page).select_one(f".prev-next-area a.{side}-{where}")["href"]
        for side, where in (("left", "prev"), ("right", "next"))
    }
    assert [local_target(page, link)[0] for link in around.values()] == [order[number], order[number + 2]]


def test_chapter_has_a_table_of_its_sections(book: Book, chapter: tuple[str, NotebookNode]):
    page, notebook = chapter
    sections = re.findall(r"^## (\d+\.\d+)", markdown_of(notebook), re.M)
    entries = book.tree(page).select("#pst-page-navigation-heading-2 ~ nav a, .bd-toc nav a, nav.page-toc a")
    assert set(sections) <= {entry.get_text().strip().partition(" ")[0] for entry in entries}


def test_chapter_folds_its_setup_cell(book: Book, chapter: tuple[str, NotebookNode]):
    folded = book.article(chapter[0]).select("details.hide")
    assert len(folded) == 1 and "REPOSITORY" in folded[0].get_text() and not folded[0].has_attr("open")


# The other pages


def test_start_page_leads_to_every_chapter_and_to_the_explorer(book: Book):
    targets = {local_target("index.html", a["href"]) for a in book.article("index.html").select("a[href]")}
    for page in (*CHAPTER_PAGES, EXPLORER, "prerequisites.html", "glossary.html", "instructors.html"):
        assert (page, "") in targets
    assert len(book.article("index.html").find("img")["alt"]) > 40


def test_explorer_is_in_its_place_and_leads_back(book: Book):
    page = book.tree(EXPLORER)
    assert page.select('script[src$="explorer.js"]')
    assert set(CHAPTER_PAGES) & {local_target(EXPLORER, a["href"])[0] for a in page.select("a[href]")}


@pytest.mark.parametrize("page", [*OTHER_PAGES, CHAPTER_PAGES[3]])
def test_sidebar_leads_to_every_chapter_and_to_the_explorer(book: Book, page: str):
    targets = {local_target(page, a["href"]) for a in book.tree(page).select(".bd-sidebar-primary nav a")}
    assert {(wanted, "") for wanted in (*CHAPTER_PAGES, EXPLORER) if wanted != page} <= targets


def test_glossary_holds_every_symbol_of_the_chapters(book: Book):
    rows = []
    for row in book.article("glossary.html").find(id="symbols").select("tbody tr"):
        symbol, variable, _, _, links = row.find_all("td")
        rows.append(
            (
                re.sub(r"\s|\\ ", "", "".join(math.get_text() for math in symbol.select(".math"))),
                [code.get_text() for code in variable.find_all("code")],
                {local_target("glossary.html", link["href"])[0] for link in links.find_all("a")},
            )
        )
    tables = 0
    for path, page in zip(NOTEBOOKS, CHAPTER_PAGES, strict=True):
        lines = markdown_of(nbformat.read(path, as_version=4)).splitlines()
        start = lines.index("| symbol | variable | what it is | shape |")
        tables += 1
        for line in lines[start + 2 :]:
            if not line.startswith("|"):
                break
            symbol, variable = [cell.strip() for cell in line.split("|")][1:3]
            wanted = re.sub(r"\s|\\ ", "", symbol.strip("$"))
            names = re.findall(r"`([^`]+)`", variable)
            assert any(
                math.removeprefix(r"\(").removesuffix(r"\)") == wanted and code == names and page in pages
                for math, code, pages in rows
            ), f"{path.stem}: {line}"
    assert tables == 8


def test_glossary_explains_the_terms_with_a_chapter_each(book: Book):
    rows = book.article("glossary.html").find(id="terms").select("tbody tr")
    terms = {row.find("td").get_text().lower() for row in rows}
    assert {"query", "key", "value", "head", "causal mask", "logits", "perplexity", "softmax"} <= terms
    assert len(terms) == len(rows)
    for row in rows:
        sentence = row.find_all("td")[1].get_text().strip()
        assert sentence.endswith(".") and sentence.count(". ") == 0
        assert local_target("glossary.html", row.find("a")["href"])[0] in CHAPTER_PAGES


def test_prerequisites_give_the_times_of_the_notebooks(book: Book):
    text = book.article("prerequisites.html").get_text(" ", strip=True)
    for path in NOTEBOOKS:
        time = re.search(r"^\| Time \| (.*?) \|$", nbformat.read(path, as_version=4).cells[0].source, re.M)[1]
        assert time in text


def test_prerequisites_test_every_topic_and_say_where_to_refresh_it(book: Book):
    topics = book.article("prerequisites.html").find(id="what-you-need-to-know").find_all("section")
    assert len(topics) >= 6
    for topic in topics:
        assert len(topic.select("details")) == 1 and re.search(r"Refresh:.*\w", topic.get_text())
        assert topic.select('a[href^="https://"]')


def test_instructors_see_what_feedback_looks_like(book: Book):
    report = book.article("instructors.html").select_one('[role="status"]').get_text()
    assert "Exercise 1.3" in report and "3 of 5 points" in report
    example = book.tree("feedback_example.html").get_text()
    assert report in example and "Not attempted yet" in example


def test_guide_for_marking_is_the_one_of_the_repository(book: Book):
    guide = (ROOT / "utils" / "grading" / "README.md").read_text(encoding="utf-8")
    shown = [heading.get_text().rstrip("#") for heading in book.article("marking.html").find_all("h2")]
    assert shown == re.findall(r"^## (.+)$", guide, re.M)


# When something is wrong with the sources


def test_link_to_nothing_is_an_error(module: Callable[[str], ModuleType]):
    staging = module("staging")
    links = staging.Links(ROOT, ADDRESS, {})
    with pytest.raises(module("chapters").BookError, match="nothing_here"):
        links.mended("See [this](../utils/nothing_here.py).", "notebooks/x.ipynb", "notebooks/x.ipynb")
    assert links.mended("`[a](b)` and\n```\n[a](b)\n```", "README.md", "index.md") == "`[a](b)` and\n```\n[a](b)\n```"


def test_section_that_is_gone_is_an_error(module: Callable[[str], ModuleType]):
    with pytest.raises(module("chapters").BookError, match="'B'"):
        module("staging").section("# T\n\n## A\n\none\n", "B", "README.md")


def test_build_without_notebooks_says_so_and_fails(
    module: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    build = module("build")
    monkeypatch.setattr(build, "NOTEBOOKS", tmp_path / "empty")
    assert build.main(["--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == "The book was not built: no notebooks in empty/.\n"


def test_warning_of_sphinx_is_an_error(tmp_path: Path):
    (tmp_path / "index.md").write_text("# Title\n\n[nowhere](nowhere.md)\n", encoding="utf-8")
    (tmp_path / "_static").mkdir()
    code = (
        "import pathlib, sys; sys.path.insert(0, sys.argv[1]); import build; p = pathlib.Path(sys.argv[2])\n"
        "build.run_sphinx(p, p / 'html', p / 'doctrees')"
    )
    command = [sys.executable, "-c", code, str(ROOT / "assets" / "book"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "BookError: Sphinx found something wrong" in done.stderr


@pytest.mark.parametrize("name", ["chapters", "staging"])
def test_examples_of_the_book_s_modules_hold(module: Callable[[str], ModuleType], name: str):
    result = doctest.testmod(module(name))
    assert result.attempted > 0 and result.failed == 0


# In a browser


@dataclass
class Visit:
    """A page in a browser, and all that went wrong while it was shown."""

    page: Page
    troubles: list[str]


@pytest.fixture
def visit(browser: Browser, book: Book) -> Iterator[Callable[..., Visit]]:
    """Opens a page of the book as a file and waits until it is ready; without a network."""
    contexts = []

    def open_page(name: str, size: str = "desktop", scheme: str = "light", base: str = "") -> Visit:
        context = browser.new_context(viewport=SIZES[size], color_scheme=scheme, offline=not base)
        contexts.append(context)
        page, troubles = context.new_page(), []
        page.on("console", lambda said: troubles.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("requestfailed", lambda request: troubles.append(f"failed: {request.url}"))
        own = ("file:", "data:", "blob:", *filter(None, [base]))
        page.on("request", lambda r: None if r.url.startswith(own) else troubles.append(f"from elsewhere: {r.url}"))
        page.goto((base or book.html.as_uri()) + "/" + name)
        page.evaluate("window.MathJax?.startup?.promise")
        return Visit(page, troubles)

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def server(book: Book) -> Iterator[str]:
    """The book on a local web server; gives its address."""
    handler = functools.partial(QuietHandler, directory=str(book.html))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "name", [*OTHER_PAGES, *CHAPTER_PAGES, EXPLORER, "search.html?q=softmax", "feedback_example.html"]
)
def test_page_fits_shows_everything_and_has_no_trouble(visit: Callable[..., Visit], name: str, size: str):
    seen = visit(name, size)
    page = seen.page
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0, "the page scrolls sideways"
    pictures = page.evaluate("[...document.images].map(i => [i.src, i.complete && i.naturalWidth])")
    assert [source for source, width in pictures if not width] == []
    written, drawn, wrong = page.evaluate(
        "['.math', '.math mjx-container > svg', 'mjx-merror'].map(s => document.querySelectorAll(s).length)"
    )
    assert drawn == written and wrong == 0
    text = page.evaluate(
        """() => {const copy = (document.querySelector('article') ?? document.body).cloneNode(true);
        copy.querySelectorAll('pre, code, script, style').forEach(e => e.remove()); return copy.textContent}"""
    )
    assert not re.findall(r"\$|\\[a-zA-Z(\[]+", text)
    assert seen.troubles == []


def test_hint_opens_on_click(visit: Callable[..., Visit]):
    page = visit(CHAPTER_PAGES[0]).page
    fold = page.locator("details:not(.hide)").filter(has_text="Pseudocode").first
    assert not fold.locator("pre").is_visible()
    fold.locator("summary").click()
    assert fold.locator("pre").is_visible()


def test_setup_cell_opens_on_click(visit: Callable[..., Visit]):
    fold = visit(CHAPTER_PAGES[0]).page.locator("details.hide")
    assert not fold.locator(".cell_input").is_visible()
    fold.locator("summary").click()
    assert fold.locator(".cell_input").is_visible()


def test_code_can_be_copied_and_results_can_t(visit: Callable[..., Visit]):
    page = visit(CHAPTER_PAGES[3]).page
    assert page.locator(".cell_input .copybtn").count() == page.locator(".cell_input").count() > 10
    assert page.locator("details .copybtn").count() > 5
    assert page.locator(".cell_output .copybtn").count() == 0


def test_wide_figure_scrolls_inside_itself_on_a_phone(visit: Callable[..., Visit]):
    page = visit(CHAPTER_PAGES[3], "phone").page
    picture = page.locator(".cell_output img").first
    assert picture.bounding_box()["width"] > 600
    frame = picture.locator("xpath=ancestor::*[contains(@class, 'cell_output')]")
    assert frame.evaluate("e => e.scrollWidth > e.clientWidth && e.clientWidth < 390")


@pytest.mark.parametrize("name", CHAPTER_PAGES)
def test_search_finds_a_word_of_the_chapter(visit: Callable[..., Visit], name: str):
    seen = visit(f"search.html?q={WORDS[name]}")
    seen.page.wait_for_selector("#search-results li a", timeout=10_000)
    links = seen.page.locator("#search-results li a").evaluate_all("all => all.map(a => a.href)")
    assert any(urldefrag(link)[0].split("?")[0].endswith(name) for link in links)
    assert seen.troubles == []


def test_search_field_leads_to_results(visit: Callable[..., Visit]):
    seen = visit("index.html")
    seen.page.keyboard.press("Control+k")
    seen.page.keyboard.type("perplexity")
    seen.page.keyboard.press("Enter")
    seen.page.wait_for_selector("#search-results li a", timeout=10_000)
    assert "search.html" in seen.page.url and seen.troubles == []


def test_search_on_a_server_shows_a_piece_of_each_page(visit: Callable[..., Visit], server: str):
    seen = visit("search.html?q=perplexity", base=server)
    seen.page.wait_for_selector("#search-results li p.context", timeout=10_000)
    assert "perplexity" in seen.page.locator("#search-results li p.context").first.inner_text().lower()
    assert seen.troubles == []


BRIGHTNESS = """e => {const [r, g, b, a = 1] = getComputedStyle(e)[%r].match(/[\\d.]+/g).map(Number);
  return a == 0 ? null : (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255}"""


def test_dark_theme_follows_the_system_and_keeps_figures_and_reports_readable(visit: Callable[..., Visit]):
    page = visit(CHAPTER_PAGES[0], scheme="dark").page
    assert page.locator("html").get_attribute("data-theme") == "dark"
    assert page.locator("body").evaluate(BRIGHTNESS % "backgroundColor") < 0.2
    report = page.locator('.cell_output [role="status"]').first
    assert report.evaluate(BRIGHTNESS % "color") > 0.7
    behind = report.locator("xpath=ancestor::*[contains(@class, 'text_html')]")
    assert behind.count() == 0 or behind.evaluate(BRIGHTNESS % "backgroundColor") is None
    assert page.locator(".cell_output img").first.evaluate(BRIGHTNESS % "backgroundColor") > 0.99
    assert page.locator(".math use").first.evaluate(BRIGHTNESS % "fill") > 0.7


def test_theme_can_be_chosen(visit: Callable[..., Visit]):
    page = visit("index.html").page
    themes = set()
    for mode in (
        "dark",
        "light",
        "auto",
    ):  # a menu in newer versions of the theme, a button that goes round in older ones
        page.locator(".theme-switch-button:visible").first.click()
        if (entry := page.locator(f'.theme-change-button[data-mode="{mode}"]:visible')).count():
            entry.first.click()
        themes.add(page.locator("html").get_attribute("data-theme"))
    assert themes == {"light", "dark"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "name", ["index.html", "prerequisites.html", "glossary.html", "instructors.html", CHAPTER_PAGES[3]]
)
def test_page_is_accessible(visit: Callable[..., Visit], name: str, scheme: str):
    page = visit(name, scheme=scheme).page
    page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    page.wait_for_timeout(1000)  # what opens fades in
    found = Axe().run(
        page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "resultTypes": ["violations"]}
    )
    assert [
        (rule["id"], node["target"], node["html"][:160])
        for rule in found.response["violations"]
        for node in rule["nodes"][:3]
    ] == []
