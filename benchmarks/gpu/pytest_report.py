"""A plugin of pytest: the slowest tests last, each reported as soon as it has run.

Reports are lines of the file that GPU_TEST_REPORT names, {"keys": [...], "value": ...}.
"""

import json
import os
from pathlib import Path
from typing import Any

_LINES = 12  # of a failure
_LAST = ("compiled", "killed")  # in names of tests that take longest


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Put the slowest tests last: time may not be enough for them."""
    items.sort(key=lambda item: [word in item.name for word in reversed(_LAST)])


def pytest_runtest_logreport(report: Any) -> None:
    """Append the outcome of a test: of its call, or of what else ends it."""
    if report.when != "call" and report.outcome == "passed":
        return
    value = report.outcome
    if report.failed:
        value += f" in {report.when}: " + "\n".join(str(report.longrepr).splitlines()[-_LINES:])
    _append("tests", report.nodeid, value=value)


def pytest_collectreport(report: Any) -> None:
    """Append what could not be collected."""
    if report.failed:
        _append("not collected", report.nodeid, value=str(report.longrepr)[-1000:])


def _append(*keys: str, value: str) -> None:
    with Path(os.environ["GPU_TEST_REPORT"]).open("a") as file:
        file.write(json.dumps({"keys": keys, "value": value}) + "\n")
