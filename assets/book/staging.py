"""From the repository's files to the book's sources: links mended, pictures described, plumbing folded."""

import copy
import os
import re
from pathlib import Path

from chapters import BookError, Chapter
from nbformat import NotebookNode

# Text between backticks is code: nothing in it is a link. A fence may be indented, and may be longer than three.
CODE_OR_LINK = re.compile(
    r"(?P<code>^[ \t]*(?P<fence>`{3,}).*?^[ \t]*(?P=fence)|(?P<ticks>`+)[^`].*?(?P=ticks))"
    r"|(?P<before>\]\()(?P<target>[^)\s]+)(?P<after>\))",
    re.M | re.S,
)
COLAB_BADGE = re.compile(r"^\[!\[Open in Colab\]\([^)]*\)\]\((?P<colab>[^)]+)\)$", re.M)
PORT = 8888  # where `make lab` listens unless told otherwise


class Links:
    """Makes links of the repository's Markdown files work in the book.

    Args:
        root: the repository.
        address: where it is published, "https://github.com/…".
        pages: what has a page in the book, by path in the repository, with the page's source in the book.
    """

    def __init__(self, root: Path, address: str, pages: dict[str, str]) -> None:
        self.root, self.address, self.pages = root, address, pages

    def mended(self, text: str, at: str, page: str) -> str:
        """The text with every relative link rewritten: to the book's page where there is one, else to the repository.

        Args:
            text: Markdown.
            at: the file it comes from, relative to the repository.
            page: the source that it becomes a part of, relative to the book.

        Raises:
            BookError: a link leads to nothing.
        """

        def mend(match: re.Match[str]) -> str:
            if match["code"]:
                return match[0]
            return match["before"] + self.target(match["target"], at, page) + match["after"]

        return CODE_OR_LINK.sub(mend, text)

    def target(self, target: str, at: str, page: str) -> str:
        """One link's new target."""
        if re.match(r"[a-z][a-z+.-]*:|#", target):
            return target
        path, _, anchor = target.partition("#")
        path = os.path.normpath(os.path.join(os.path.dirname(at), path)).replace(os.sep, "/")
        anchor = f"#{anchor}" if anchor else ""
        if path in self.pages:
            return os.path.relpath(self.pages[path], os.path.dirname(page) or ".").replace(os.sep, "/") + anchor
        if not (self.root / path).exists():
            raise BookError(f"{at}: the link to {target} leads to nothing")
        return f"{self.address}/{'tree' if (self.root / path).is_dir() else 'blob'}/main/{path}{anchor}"


def open_links(colab: str, name: str) -> str:
    """The two ways to run a chapter, in place of the badge that would be loaded from Colab's server."""
    lab = f"http://localhost:{PORT}/lab/tree/notebooks/{name}"
    return (
        f'<p class="open-links"><a href="{colab}">Open in Colab</a>\n<a href="{lab}">Open in your JupyterLab</a></p>\n'
        f'<p class="open-note">The second link works while <code>make lab</code> runs on your machine '
        f"(port {PORT}, the one that it takes by itself).</p>"
    )


def staged_notebook(chapter: Chapter, links: Links) -> NotebookNode:
    """A copy of a chapter for the book.

    Raises:
        BookError: the Colab link is missing, a picture has no text, or a link leads to nothing.
    """
    notebook = copy.deepcopy(chapter.notebook)
    name = chapter.path.name
    first = notebook.cells[0]
    badge = COLAB_BADGE.search(first.source)
    if badge is None:
        raise BookError(f"{name}: there is no Colab badge under the title")
    first.source = COLAB_BADGE.sub(lambda match: open_links(match["colab"], name), first.source)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = links.mended(cell.source, f"notebooks/{name}", chapter.page)
            continue
        if "setup" in cell.metadata.get("tags", []):
            cell.metadata["tags"] = [*cell.metadata["tags"], "hide-cell"]
        if alt := picture_text(cell, name):
            cell.metadata["mystnb"] = {"image": {"alt": alt}}
    return notebook


def picture_text(cell: NotebookNode, name: str) -> str:
    """What the cell's picture shows, as the notebook says it; "" without a picture.

    MyST-NB knows one text for all pictures of a cell, hence the error for cells with several.
    """
    pictures = [o for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    texts = {o.metadata.get("image/png", {}).get("alt", "").strip() for o in pictures}
    if len(texts) > 1 or "" in texts:
        raise BookError(f"{name}, cell {cell.id}: every picture needs a text, and several in one cell the same one")
    return texts.pop() if texts else ""


def section(text: str, heading: str, name: str) -> str:
    r"""What stands under a second-level heading, without the heading; for "" what stands between title and first one.

    Raises:
        BookError: there is no such heading.

    Example:
        >>> section("# T\n\nHello.\n\n## A\n\none\n\n## B\n", "A", "README.md")
        'one'
    """
    parts = re.split(r"^## (.+)$", re.sub(r"\A# .+\n", "", text), flags=re.M)
    found = {"": parts[0]} | {title.strip(): body for title, body in zip(parts[1::2], parts[2::2], strict=True)}
    if heading not in found:
        raise BookError(f"{name} has no section '{heading}' any more; mend the pages in assets/book/pages")
    return found[heading].strip()
