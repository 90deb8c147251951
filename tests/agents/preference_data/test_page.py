"""The ranking page in a real browser, served by the script as people start it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.lm import Ranking, load_rankings
from agents.preference_data import Item, PreferenceStore

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
pytest.importorskip("uvicorn", reason="needs the extra annotate: pip install 'textenvs[annotate]'")

ROOT = Path(__file__).parents[3]
HOSTILE = "<img src=x onerror=\"document.title='taken over'\"><script>document.title='taken over'</script>"
ITEMS = [
    Item("the film", ("was good .", "was bad .", HOSTILE)),
    Item("<b>a prompt</b>\nof two lines", ("", "x" * 200, "third")),
    Item("the third", ("a", "b", "c")),
]


def find_browser(driver: Any) -> str | None:
    """Chromium of the system, or the one that Playwright has installed."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    own = driver.chromium.executable_path
    return found or (own if Path(own).exists() else None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        path = find_browser(driver)
        if path is None:
            pytest.skip("needs Chromium: apt install chromium, or python -m playwright install chromium")
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Server:
    """scripts/annotate.py in a process of its own, which can be killed and started again on the same port."""

    def __init__(self, store: Path) -> None:
        self.store, self.port = store, 0
        self.process: subprocess.Popen[str] | None = None

    def start(self, *options: str) -> None:
        command = [sys.executable, "scripts/annotate.py", str(self.store), "--port", str(self.port), *options]
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = ""
        while "the page is at" not in line:
            line = self.process.stdout.readline()
            assert line, "the server has ended"
        self.address = re.findall(r"http://\S+", line)[0]
        self.port = int(self.address.rstrip("/").rpartition(":")[2])

    def kill(self, how: int = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        code = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with PreferenceStore(tmp_path / "store.sqlite") as store:
        store.add_items(ITEMS)
    server = Server(tmp_path / "store.sqlite")
    server.start("--repeats", "0")
    yield server
    if server.process is not None:
        server.kill()


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(server.address)
    yield page
    context.close()


def sign(page: Any, name: str) -> None:
    page.fill("#annotator", name)
    page.press("#annotator", "Enter")
    page.wait_for_selector("#work:visible, #done:visible")


def texts(page: Any) -> list[str]:
    return [each.text_content() for each in page.query_selector_all(".answer .text")]


def marks(page: Any) -> list[str]:
    return [each.text_content() for each in page.query_selector_all(".answer .rank")]


def wait_for_progress(page: Any, text: str) -> None:
    playwright.expect(page.locator("#progress")).to_have_text(text, timeout=60_000)


def test_ranking_by_clicks_and_keys(page: Any, server: Server) -> None:
    sign(page, "ada")
    assert page.text_content("#prompt") == "the film"
    assert sorted(texts(page)) == sorted(ITEMS[0].answers)  # escaped: markup is shown as it is
    assert page.title() == "Ranking answers"
    shown = texts(page)
    answers = page.locator(".answer")
    answers.nth(2).click()
    answers.nth(0).click()
    assert marks(page) == ["2", "", "1"]
    assert page.is_disabled("#confirm")
    answers.nth(2).click()  # takes the mark away, the others close up
    assert marks(page) == ["1", "", ""]
    page.click("#clear")
    answers.nth(1).click()
    page.click("#tie")
    answers.nth(2).click()
    answers.nth(0).click()
    assert marks(page) == ["3", "1", "1"]
    page.click("#confirm")
    wait_for_progress(page, "1 of 3 ranked")
    assert page.text_content("#prompt") == ITEMS[1].prompt

    second = texts(page)
    page.keyboard.press("c")
    page.keyboard.press("t")
    page.keyboard.press("a")
    page.keyboard.press("b")
    assert marks(page) == ["1", "3", "1"]
    page.keyboard.press("Enter")
    wait_for_progress(page, "2 of 3 ranked")
    page.keyboard.press("s")
    playwright.expect(page.locator("#total")).to_have_text("2 of 3 ranked, 1 skipped.")
    with PreferenceStore(server.store) as store:
        first, other = store.rankings()
    assert dict(zip(first.answers, first.ranks, strict=True)) == dict(zip(shown, (3, 1, 1), strict=True))
    assert dict(zip(other.answers, other.ranks, strict=True)) == dict(zip(second, (1, 3, 1), strict=True))
    assert first.seconds is not None
    assert first.seconds > 0
    assert page.title() == "Ranking answers"


def test_undo_shows_what_was_said(page: Any, server: Server) -> None:
    sign(page, "ada")
    for key in ("b", "a", "c", "Enter"):
        page.keyboard.press(key)
    wait_for_progress(page, "1 of 3 ranked")
    page.keyboard.press("u")
    wait_for_progress(page, "0 of 3 ranked")
    assert page.text_content("#prompt") == "the film"
    assert marks(page) == ["2", "1", "3"]
    page.reload()  # the name is remembered, and the item that was taken back comes first
    page.wait_for_selector("#work:visible")
    assert page.text_content("#prompt") == "the film"
    with PreferenceStore(server.store) as store:
        assert store.rankings() == []


def test_two_annotators_see_nothing_of_each_other(page: Any, browser: Any, server: Server) -> None:
    sign(page, "ada")
    for key in ("a", "b", "c", "Enter"):
        page.keyboard.press(key)
    wait_for_progress(page, "1 of 3 ranked")
    context = browser.new_context()
    other = context.new_page()
    other.goto(server.address)
    sign(other, "bob")
    assert other.text_content("#progress") == "0 of 3 ranked"
    assert marks(other) == ["", "", ""]
    assert other.is_disabled("#undo")
    assert "ada" not in other.content()
    context.close()


def test_a_killed_server_loses_nothing_that_was_confirmed(page: Any, server: Server, tmp_path: Path) -> None:
    sign(page, "ada")
    for key in ("a", "b", "c", "Enter"):
        page.keyboard.press(key)
    wait_for_progress(page, "1 of 3 ranked")
    server.kill()
    for key in ("b", "a", "c", "Enter"):
        page.keyboard.press(key)
    playwright.expect(page.locator("#message")).to_contain_text("not saved yet")
    assert page.text_content("#progress") == "1 of 3 ranked"  # the page does not claim what is not so
    assert marks(page) == ["2", "1", "3"]
    server.start("--repeats", "0")
    page.keyboard.press("Enter")
    wait_for_progress(page, "2 of 3 ranked")
    assert page.text_content("#message") == ""
    assert server.kill(signal.SIGINT) == 0  # Ctrl-C ends it in good order
    command = [sys.executable, "scripts/annotate.py", str(server.store), "--export", str(tmp_path / "out.jsonl")]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, "--export-pairs", str(tmp_path / "pairs.jsonl")], cwd=ROOT, env=environ,
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert "2 rankings" in done.stdout
    assert "6 pairs" in done.stdout
    rankings: list[Ranking] = load_rankings(tmp_path / "out.jsonl")
    assert [(each.annotator, each.prompt) for each in rankings] == [("ada", item.prompt) for item in ITEMS[:2]]


def test_another_site_can_neither_read_nor_write(browser: Any, server: Server) -> None:
    """A page of another origin sends a ranking with everything that a browser lets it send."""
    context = browser.new_context()
    page = context.new_page()
    page.route("http://evil.example/", lambda route: route.fulfill(body="<p>hello</p>", content_type="text/html"))
    page.goto("http://evil.example/")
    told = page.evaluate(
        """async (address) => {
            const body = JSON.stringify({annotator: "eve", item: 1, round: 1, ranks: [1, 2, 3], seconds: 1});
            const tries = [
                {method: "POST", body, headers: {"content-type": "application/json"}},
                {method: "POST", body, mode: "no-cors"},
                {method: "GET"},
            ];
            const results = [];
            for (const [i, options] of tries.entries()) {
                try {
                    const answer = await fetch(address + (i < 2 ? "api/judge" : ""), options);
                    results.push(answer.type + " " + (await answer.text()).length);
                } catch (error) { results.push("refused"); }
            }
            return results;
        }""",
        server.address,
    )
    assert told[0] == told[2] == "refused"
    assert told[1] in ("opaque 0", "refused")  # sent, maybe, and not read
    with PreferenceStore(server.store) as store:
        assert store.annotators() == {}
    context.close()
