"""The leaderboard's page in a real browser: it fits, sorts, filters, and asks nobody anything."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmark.comparison.rows import Row
from benchmark.reporting.board_tables import page
from tests.reporting.boards import NASTY, a_board, a_row

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def trouble() -> list[str]:
    """What the browser complained of, and what it asked for besides the page."""
    return []


@pytest.fixture(scope="module")
def shown(
    tmp_path_factory: pytest.TempPathFactory, trouble: list[str], browser: "Browser"
) -> "Iterator[Page]":
    """A table of a reference row, two networks and one that is missing, opened once."""
    board = a_board(
        Row("reference", "majority class"),
        a_row("mtl-squeezenet1_1-imagenet-fire6_9-slow", 0.8, rank=1, seconds=900.0),
        a_row("mtl-fast-one", 0.7, rank=2, seconds=20.0),
        Row("missing", NASTY),
    )
    path = tmp_path_factory.mktemp("page") / "leaderboard.html"
    path.write_text(page(board), encoding="utf-8")
    opened = browser.new_page(viewport={"width": 1440, "height": 900})
    opened.on("console", lambda said: trouble.append(f"{said.type}: {said.text}"))
    opened.on("pageerror", lambda error: trouble.append(str(error)))
    opened.on("request", lambda asked: trouble.append(asked.url))
    opened.goto(Path(path).as_uri())
    yield opened
    opened.close()


def names(shown: "Page") -> list[str]:
    return [cell.inner_text() for cell in shown.locator("[scope=row]:visible").all()]


def click(shown: "Page", label: str) -> None:
    shown.get_by_role("button", name=label, exact=True).first.click()


@pytest.mark.parametrize("width", [1440, 390])
def test_nothing_scrolls_sideways(width: int, shown: "Page") -> None:
    shown.set_viewport_size({"width": width, "height": 900})
    for element in ("document.documentElement", "document.querySelector('.frame')"):
        assert shown.evaluate(f"{element}.scrollWidth <= {element}.clientWidth"), element
    assert "80.0 ± 1.0" in shown.locator("table").first.inner_text()
    shown.set_viewport_size({"width": 1440, "height": 900})


def test_a_click_sorts_and_what_has_no_value_stands_last(shown: "Page") -> None:
    slow = "mtl-squeezenet1_1-imagenet-fire6_9-slow"
    click(shown, "time")
    assert names(shown)[:2] == [slow, "mtl-fast-one"]
    click(shown, "time")
    assert names(shown)[:2] == ["mtl-fast-one", slow]
    assert names(shown)[2:] == ["majority class", f"{NASTY} (not run)"]
    click(shown, "#")
    assert names(shown)[:2] == [slow, "mtl-fast-one"]


def test_a_word_filters_the_rows_and_they_are_counted(shown: "Page") -> None:
    shown.get_by_role("searchbox").fill("FAST")
    assert names(shown) == ["mtl-fast-one"]
    assert shown.get_by_role("status").inner_text() == "1 of 4 rows"
    shown.get_by_role("searchbox").fill("")
    assert len(names(shown)) == 4


def test_parts_and_differences_are_shown_and_hidden(shown: "Page") -> None:
    commit = shown.get_by_role("columnheader", name="commit", include_hidden=True)
    differences = shown.get_by_role("region", name="Differences", include_hidden=True)
    assert not commit.is_visible()
    assert not differences.is_visible()
    shown.get_by_label("Seeds, device, commit").check()
    shown.get_by_role("checkbox", name="Differences").check()
    assert commit.is_visible()
    assert differences.is_visible()


def test_it_complains_of_nothing_and_asks_nobody(shown: "Page", trouble: list[str]) -> None:
    others = [said for said in trouble if not said.startswith(("file:", "data:"))]
    assert others == []
    assert len([said for said in trouble if said.startswith("file:")]) == 1
