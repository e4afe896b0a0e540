"""The pages in a real browser, which has no network and may not complain."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.commandline import PATIENCE_S

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

LONGEST_BLOCK = """
window.longest = 0;
new PerformanceObserver(list => list.getEntries().forEach(entry => longest = Math.max(longest, entry.duration)))
    .observe({type: "longtask", buffered: true});
"""


@contextmanager
def shown(browser: "Browser", page: Path, *, blocked: bool = False, **options: Any) -> Iterator["Page"]:
    """A page in a window without a network; nothing may be asked for, and nothing go wrong.

    Args:
        blocked: Whether the policy is to stop something, which is then all that may be complained of.
    """
    with browser.new_context(offline=True, **options) as context:
        context.set_default_timeout(PATIENCE_S * 1000)
        context.add_init_script(LONGEST_BLOCK + "window.hurt = () => { window.wasHurt = true };")
        asked: list[str] = []
        wrong: list[str] = []
        window = context.new_page()
        window.on("request", lambda request: asked.append(request.url))
        window.on("console", lambda message: wrong.append(message.text))
        window.on("pageerror", lambda error: wrong.append(str(error)))
        window.goto(page.as_uri())
        yield window
        assert window.evaluate("window.wasHurt") is None
        assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [page.as_uri()]
        assert bool(wrong) == blocked, wrong
        assert all("Content Security Policy" in text for text in wrong), wrong
