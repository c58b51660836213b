"""Sphinx's settings for the book. ``build.py`` stages the sources and passes the folder of static files."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from utils.release import repository  # noqa: E402  (the repository is found first)

project = "Attention and GPT-2"
html_title = project
author = ""
language = "en"
extensions = ["myst_nb", "sphinx_copybutton"]
exclude_patterns = ["_static"]
highlight_language = "none"  # of blocks that name no language, such as pseudocode
smartquotes = False  # the notebooks' texts are taken as they are
keep_warnings = False

# Outputs are taken as stored: every one of them is re-executed and compared by `make nbval`.
nb_execution_mode = "off"
nb_render_markdown_format = "myst"
nb_code_prompt_show, nb_code_prompt_hide = "Show the setup cell", "Hide the setup cell"  # no other cell is folded
myst_enable_extensions = ["dollarmath", "attrs_block"]
myst_heading_anchors = 4

# One file, without fonts of its own: SVG. It works offline and from a file.
mathjax_path = "mathjax/tex-svg-full.js"
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"fontCache": "local"}}

html_theme = "sphinx_book_theme"
html_favicon = "static/favicon.svg"
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_show_sourcelink = False
html_copy_source = False
html_show_copyright = False
html_use_index = False
html_context = {"default_mode": "auto"}  # light or dark as the reader's system says, until they choose
html_theme_options = {
    "repository_url": f"https://github.com/{repository()}",
    "use_repository_button": True,
    "use_download_button": False,  # the page of a chapter links to the real notebook
    "home_page_in_toc": True,
    "show_toc_level": 2,
    "logo": {"text": project},
    "footer_content_items": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
# Code can be copied; what it prints can't, it would only be in the way.
copybutton_selector = "div:not(.output) > div.highlight > pre"
