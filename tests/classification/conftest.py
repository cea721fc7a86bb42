"""A browser for the tests of pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser import NAMES, Browser, installed_browser


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for all tests of this folder; skips where none is installed."""
    executable = installed_browser()
    if executable is None:
        pytest.skip(f"needs a browser: none of {', '.join(NAMES)} is on the PATH and starts")
    with Browser(executable, tmp_path_factory.mktemp("profile")) as opened:
        yield opened
