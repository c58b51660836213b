"""A browser where there is one; where there is none, the reason and the way to get one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from playwright.sync_api import Browser

from utils.release import ROOT


def test_a_page_is_rendered(browser: Browser):
    page = browser.new_page()
    page.set_content("<p style='width:8em'>attention is a weighted mean</p>")
    assert page.inner_text("p") == "attention is a weighted mean"
    assert page.locator("p").bounding_box()["height"] > 30, "text has a size, so there are fonts"
    page.close()


@pytest.mark.parametrize(("in_ci", "outcome"), [(True, "1 error"), (False, "1 skipped")], ids=["CI", "elsewhere"])
def test_without_a_browser_ci_fails_and_others_are_told_what_to_install(in_ci: bool, outcome: str):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CI", "PYTEST"))}
    environment |= {"PATH": "/nowhere", "PLAYWRIGHT_BROWSERS_PATH": "/nowhere", **({"CI": "true"} if in_ci else {})}
    test = f"{ROOT / 'tests' / 'first_contact' / 'test_browser.py'}::test_a_page_is_rendered"
    command = [sys.executable, "-m", "pytest", "-p", "no:nbval", "-p", "no:cacheprovider", "-rs", test]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert outcome in done.stdout
    assert (done.returncode != 0) == in_ci
    assert "sudo apt install chromium" in done.stdout
