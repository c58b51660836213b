"""The figures in assets/ are what their script draws."""

import importlib.util
from xml.etree import ElementTree

import pytest

from utils.release import ROOT

spec = importlib.util.spec_from_file_location("draw", ROOT / "assets" / "draw.py")
draw = importlib.util.module_from_spec(spec)
spec.loader.exec_module(draw)


@pytest.mark.parametrize("name", draw.FIGURES)
def test_stored_figure_is_what_the_script_draws(name: str):
    stored = (ROOT / "assets" / name).read_text(encoding="utf-8")
    assert stored == draw.FIGURES[name](), "run python assets/draw.py"


@pytest.mark.parametrize("name", draw.FIGURES)
def test_figure_is_well_formed_and_says_what_it_shows(name: str):
    root = ElementTree.fromstring((ROOT / "assets" / name).read_text(encoding="utf-8"))
    title = root.find("{http://www.w3.org/2000/svg}title")
    assert root.get("role") == "img"
    assert len(title.text) > 40


def test_every_figure_has_a_script():
    assert {path.name for path in (ROOT / "assets").glob("*.svg")} == set(draw.FIGURES)
