"""A real browser without a network, for tests of pages."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.remote.webdriver import WebDriver

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium and its driver (Debian: chromium-driver)"
)


@contextmanager
def offline_browser() -> Iterator[WebDriver]:
    """Yield a browser in which no host name resolves."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1280,900"),
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


@contextmanager
def screen(page: WebDriver, width: int) -> Iterator[None]:
    """Give the page a width in pixels, below 500 that of a phone."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        yield
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def requested(page: WebDriver) -> set[str]:
    """Return the addresses that the page has requested since the last call."""
    events = [json.loads(line["message"])["message"] for line in page.get_log("performance")]
    return {
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }


def widths(page: WebDriver) -> list[int]:
    """Return the width of the page's content and of its window: equal if it does not scroll."""
    return page.execute_script(
        "const root = document.documentElement; return [root.scrollWidth, root.clientWidth]"
    )
