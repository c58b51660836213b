"""A real browser for the tests that look at pages as a learner does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Error, sync_playwright

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOW_TO_INSTALL = (
    "install one with `sudo apt install chromium`, or with `.venv/bin/playwright install --with-deps chromium`"
)
# Quiet, and without the calls home that a closed network would answer with errors.
CHROMIUM_FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def installed_chromium() -> str | None:
    """The path of a Chromium on this machine; None where only Playwright's own could be used."""
    return next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


def without_browser(reason: str) -> None:
    """Skip, saying why and what to install; in CI, where nobody would notice a skipped test, fail."""
    message = f"no Chromium to test with ({reason}): {HOW_TO_INSTALL}"
    if os.environ.get("CI") == "true":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium: Debian's, else the one that Playwright has installed."""
    # Chromium refuses its own sandbox to root, who is often the only user of a container.
    flags = [*CHROMIUM_FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(executable_path=installed_chromium(), args=flags)
        except Error as error:
            without_browser(str(error).strip().partition("\n")[0])
        yield chromium
        chromium.close()
