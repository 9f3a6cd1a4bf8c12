"""A headless Chromium that opens pages from a disk, and what it has to say about them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of its own; skips the test where Chromium, its driver or Selenium is not installed."""
    selenium = pytest.importorskip("selenium.webdriver", reason="Selenium is not installed: pip install selenium")
    from selenium.webdriver.chrome.service import Service

    browser = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no Chromium with its driver: on Debian and Ubuntu, apt-get install chromium chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1200,1600",
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ):  # fmt: skip
        options.add_argument(argument)  # without the sandbox it also runs as root, in a container
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = selenium.Chrome(service=Service(driver), options=options)
    try:
        running.set_script_timeout(60)
        yield running
    finally:
        running.quit()


def open_page(browser: Any, path: Path) -> None:
    """The page, from its file, when its script is done; nothing may have gone wrong in it or been fetched."""
    browser.get(path.resolve().as_uri())
    assert browser.execute_script("return document.documentElement.dataset.ready") == "yes", browser.get_log("browser")
    assert complaints(browser) == []
    fetched = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []


def complaints(browser: Any) -> list[str]:
    """What the console says since it was last asked."""
    return [entry["message"] for entry in browser.get_log("browser")]
