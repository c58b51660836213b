"""Builds the book: the course as a website that needs no internet and no server.

    python assets/book/build.py                  into build/book/html
    python assets/book/build.py --out FOLDER     into FOLDER/html

The notebooks, parts of README.md and the guide for instructors are staged with mended links, then Sphinx makes pages
of them. The outputs are those stored in the notebooks. A warning is an error.
"""

import argparse
import importlib.util
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]

import nbformat  # noqa: E402  (the repository and this folder are found first)
from chapters import BookError, Chapter, read_chapters, symbols_table, times_table  # noqa: E402
from feedback import EXAMPLE_PAGE, example_page, report_of_a_mistake  # noqa: E402
from staging import Links, section, staged_notebook  # noqa: E402

from utils.release import NOTEBOOKS, repository  # noqa: E402

README, GUIDE, PICTURE = "README.md", "utils/grading/README.md", "assets/attention.svg"
EXPLORER = HERE / "explorer" / "export.py"
MATHJAX = "tex-svg-full.js"
FONT_PRELOAD = re.compile(r'<link rel="preload" as="font"[^>]*>')
PLACEHOLDER = re.compile(r"^<!-- (?P<what>[A-Z]+)(?:: (?P<which>.+))? -->$", re.M)


def put_together(source: Path) -> list[Chapter]:
    """Write all of Sphinx's sources into a folder; returns the chapters.

    Raises:
        BookError: something that the book is made of is missing or has another form than expected.
    """
    chapters = read_chapters(NOTEBOOKS)
    pages = {f"notebooks/{chapter.path.name}": chapter.page for chapter in chapters}
    pages |= {GUIDE: "marking.md", PICTURE: PICTURE, "notebooks": "index.md"}
    links = Links(ROOT, f"https://github.com/{repository()}", pages)

    for chapter in chapters:
        write(source / chapter.page, nbformat.writes(staged_notebook(chapter, links)))
    for page in sorted((HERE / "pages").rglob("*.md")):
        name = page.relative_to(HERE / "pages").as_posix()
        write(source / name, filled(page.read_text(encoding="utf-8"), name, chapters, links))
    write(source / "marking.md", links.mended((ROOT / GUIDE).read_text(encoding="utf-8"), GUIDE, "marking.md"))
    write(source / PICTURE, (ROOT / PICTURE).read_text(encoding="utf-8"))

    shutil.copytree(HERE / "static", source / "_static")
    (source / "_static" / "mathjax").mkdir()
    shutil.copy(mathjax(), source / "_static" / "mathjax")
    return chapters


def filled(text: str, name: str, chapters: list[Chapter], links: Links) -> str:
    """A page with each placeholder, ``<!-- README: Start -->``, replaced by what it stands for.

    Raises:
        BookError: there is no such placeholder, or no such section in README.md.
    """
    readme = (ROOT / README).read_text(encoding="utf-8")
    makers: dict[str, Callable[[str], str]] = {
        "README": lambda which: links.mended(section(readme, which, README), README, name),
        "CHAPTERS": lambda _: "\n".join(chapter.page for chapter in chapters),
        "TIMES": lambda _: links.mended(times_table(chapters), f"notebooks/{name}", name),
        "SYMBOLS": lambda _: links.mended(symbols_table(chapters), f"notebooks/{name}", name),
        "REPORT": lambda _: report_of_a_mistake()._repr_html_(),
    }

    def fill(match: re.Match[str]) -> str:
        if match["what"] not in makers:
            raise BookError(f"pages/{name}: nobody knows the placeholder {match[0]}")
        return makers[match["what"]](match["which"] or "")

    return PLACEHOLDER.sub(fill, text).replace("{{ repository }}", links.address)


def mathjax() -> Path:
    """MathJax as one file, out of the package that carries it."""
    try:
        files = distribution("sphinx-mathjax-offline").files or []
    except PackageNotFoundError:
        raise BookError("MathJax is missing: pip install -r tests/requirements.txt") from None
    for file in files:
        if file.name == MATHJAX:
            return Path(file.locate())
    raise BookError(f"the package sphinx-mathjax-offline carries no {MATHJAX}")


def run_sphinx(source: Path, html: Path, work: Path) -> None:
    """Sphinx, with warnings as errors.

    Raises:
        BookError: it failed, or warned; its own words stand on the screen.
    """
    from sphinx.cmd.build import main as sphinx

    options = ["-b", "html", "-q", "-W", "--keep-going", "-c", str(HERE), "-d", str(work)]
    if sphinx([*options, "-D", f"html_static_path={source / '_static'}", str(source), str(html)]):
        raise BookError("Sphinx found something wrong, see above")


def without_font_preloads(html: Path) -> None:
    """Take out what older versions of the theme load early, and a browser refuses to a page opened as a file.

    Nothing is lost: the style sheet asks for the same fonts, and gets them.
    """
    for path in html.rglob("*.html"):
        write(path, FONT_PRELOAD.sub("", path.read_text(encoding="utf-8")))


def add_explorer(html: Path) -> None:
    """The attention explorer, in place of the page that stands for it in the table of contents.

    Raises:
        BookError: it is missing, or wrote no page.
    """
    if not EXPLORER.exists():
        raise BookError(f"{EXPLORER.relative_to(ROOT).as_posix()} is missing")
    spec = importlib.util.spec_from_file_location("explorer_export", EXPLORER)
    exporter = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(EXPLORER.parent))
    spec.loader.exec_module(exporter)
    shutil.rmtree(html / "explorer")
    exporter.export(html / "explorer")
    if not (html / "explorer" / "index.html").exists():
        raise BookError("the explorer's export wrote no index.html")


def write(path: Path, text: str) -> None:
    """Write a text file and the folders it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def build(out: Path) -> Path:
    """Build the book below ``out``; returns its first page.

    Raises:
        BookError: see the other functions.
    """
    source, html, work = out / "source", out / "html", out / "doctrees"
    for folder in (source, html, work):  # afresh: Sphinx says a warning only when it reads a page
        shutil.rmtree(folder, ignore_errors=True)
    put_together(source)
    run_sphinx(source, html, work)
    without_font_preloads(html)
    add_explorer(html)
    write(html / EXAMPLE_PAGE, example_page())
    write(html / ".nojekyll", "")  # GitHub Pages would leave out folders whose names start with "_"
    return html / "index.html"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "book", help="a folder for sources and pages")
    options = parser.parse_args(arguments)
    try:
        print(f"The book: {build(options.out.resolve())}")
    except BookError as error:
        print(f"The book was not built: {error}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
