"""What is measured on a GPU ends in a table, whatever else pytest prints."""

from collections.abc import Callable

import pytest

Measured = Callable[[str, str], None]

_ROWS = pytest.StashKey[list[tuple[str, str]]]()


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Takes what was measured, and its figure, for the table at the end."""
    rows = request.config.stash.setdefault(_ROWS, [])
    return lambda what, figure: rows.append((what, figure))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if rows := config.stash.get(_ROWS, []):
        terminalreporter.section("measured on this GPU")
        width = max(len(what) for what, _ in rows)
        for what, figure in rows:
            terminalreporter.write_line(f"{what:<{width}}  {figure}")
