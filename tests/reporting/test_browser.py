"""The pages in a real browser: they fit, sort, filter, show every figure, and ask for nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmark import registry
from benchmark.comparison.rows import Row
from benchmark.reporting.board_tables import page as board_page
from tests.reporting.boards import NASTY, a_board, a_row
from tests.reporting.stores import builder, evidence_of, fill, page_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BOARD = "#board-0"
SLOW = "mtl-squeezenet1_1-imagenet-fire6_9-slow"


@pytest.fixture(scope="module")
def trouble() -> list[str]:
    """What the browser complained of, and what it asked for besides the pages."""
    return []


def opened(browser: "Browser", path: Path, trouble: list[str], width: int) -> "Page":
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.on("console", lambda said: trouble.append(f"{said.type}: {said.text}"))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda asked: trouble.append(asked.url))
    page.goto(path.as_uri())
    return page


@pytest.fixture(scope="module")
def shown(browser: "Browser", page_path: Path, trouble: list[str]) -> Iterator["Page"]:
    """The report, opened once on a desk."""
    page = opened(browser, page_path, trouble, 1280)
    yield page
    page.close()


@pytest.fixture(scope="module")
def board(
    browser: "Browser", tmp_path_factory: pytest.TempPathFactory, trouble: list[str]
) -> Iterator["Page"]:
    """A leaderboard of a reference row, two networks and one that is missing, opened once."""
    made = a_board(
        Row("reference", "majority class"),
        a_row(SLOW, 0.8, rank=1, seconds=900.0),
        a_row("mtl-fast-one", 0.7, rank=2, seconds=20.0),
        Row("missing", NASTY),
    )
    path = tmp_path_factory.mktemp("page") / "leaderboard.html"
    path.write_text(board_page(made), encoding="utf-8")
    page = opened(browser, path, trouble, 1440)
    yield page
    page.close()


def names(board: "Page") -> list[str]:
    return [cell.inner_text() for cell in board.locator("[scope=row]:visible").all()]


def column(page: "Page", heading: str) -> list[str]:
    """The texts of a column in the first section of the report's first leaderboard."""
    head = page.locator(f"{BOARD} thead th", has_text=heading).first
    told = """(rows, at) => rows.filter(row => row.checkVisibility() && row.cells.length > 1)
        .map(row => row.cells[at].firstChild.textContent.trim())"""
    rows = page.locator(f"{BOARD} tbody").first.locator("tr")
    return list(rows.evaluate_all(told, head.evaluate("head => head.cellIndex")))


@pytest.mark.parametrize("width", [1440, 390])
def test_a_leaderboard_does_not_scroll_sideways(width: int, board: "Page") -> None:
    board.set_viewport_size({"width": width, "height": 900})
    for element in ("document.documentElement", "document.querySelector('.frame')"):
        assert board.evaluate(f"{element}.scrollWidth <= {element}.clientWidth"), element
    assert "80.0 ± 1.0" in board.locator("table").first.inner_text()
    board.set_viewport_size({"width": 1440, "height": 900})


def test_a_leaderboard_is_sorted_filtered_and_widened(board: "Page") -> None:
    for label, order in (("time", [SLOW, "mtl-fast-one"]), ("time", ["mtl-fast-one", SLOW])):
        board.get_by_role("button", name=label, exact=True).first.click()
        # What has no value stands last either way.
        assert names(board) == [*order, "majority class", f"{NASTY} (not run)"]
    board.get_by_role("searchbox").fill("FAST")
    assert names(board) == ["mtl-fast-one"]
    assert board.get_by_role("status").inner_text() == "1 of 4 rows"
    board.get_by_role("searchbox").fill("")
    commit = board.get_by_role("columnheader", name="commit", include_hidden=True)
    differences = board.get_by_role("region", name="Differences", include_hidden=True)
    assert not commit.is_visible()
    assert not differences.is_visible()
    board.get_by_label("Seeds, device, commit").check()
    board.get_by_role("checkbox", name="Differences").check()
    assert commit.is_visible()
    assert differences.is_visible()


def test_a_click_sorts_a_table_and_the_keyboard_reverses_it(shown: "Page") -> None:
    head = shown.locator(f"{BOARD} thead th", has_text="val").first
    head.get_by_role("button").click()
    first = [text for text in column(shown, "val") if text != "–"]
    assert head.get_attribute("aria-sort") == "descending"
    assert len(first) > 5
    falling = [float(text.split(" ")[0]) for text in first]
    assert falling == sorted(falling, reverse=True)
    head.get_by_role("button").focus()
    shown.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    texts = column(shown, "val")
    assert [float(text.split(" ")[0]) for text in texts[: len(first)]] == falling[::-1]
    box = shown.locator(f"{BOARD} input[type=search]")
    box.fill("squeezenet1_1 FROZEN")
    assert set(column(shown, "experiment")) == {
        "mtl-squeezenet1_1-imagenet-frozen-short",
        "mtl-squeezenet1_1-none-frozen-short",
    }
    assert shown.locator(f"{BOARD} output").inner_text().startswith("2 of ")
    box.fill("")


def test_pages_neither_complain_nor_ask_for_anything(
    shown: "Page", board: "Page", trouble: list[str]
) -> None:
    shown.wait_for_load_state("networkidle")
    asked = [said for said in trouble if not said.startswith("data:")]
    assert sorted(asked) == sorted([shown.url.split("#")[0], board.url])


@pytest.mark.parametrize("width", [390, 1440])
def test_every_figure_is_shown_and_nothing_is_wider_than_the_screen(
    width: int, browser: "Browser", page_path: Path
) -> None:
    page = opened(browser, page_path, [], width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    told = """items => items.filter(item => item.checkVisibility()).map(item => {
        const box = item.getBoundingClientRect();
        return {x: box.x, y: box.y, width: box.width, height: box.height};
    })"""
    boxes = page.locator("svg[role=img]").evaluate_all(told)
    assert len(boxes) > 20
    for box in boxes:
        assert box["width"] > 200
        assert box["height"] > 40
        assert box["x"] + box["width"] <= width + 1
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_on_the_page_and_in_figures(
    scheme: Any, browser: "Browser", page_path: Path
) -> None:
    page = browser.new_page(color_scheme=scheme)
    page.goto(page_path.as_uri())
    colour = "(item, of) => getComputedStyle(item)[of].match(/\\d+/g).slice(0, 3).map(Number)"
    body, text = page.locator("body"), page.locator("svg[role=img] text").first
    ground = sum(body.evaluate(colour, "backgroundColor")) / 3
    for ink in (body.evaluate(colour, "color"), text.evaluate(colour, "fill")):
        assert (sum(ink) / 3 < ground) == (scheme == "light")
        assert abs(sum(ink) / 3 - ground) > 150
    page.close()


def test_on_paper_nothing_is_cut_off(browser: "Browser", page_path: Path) -> None:
    page = browser.new_page(color_scheme="dark", viewport={"width": 1050, "height": 720})
    page.goto(page_path.as_uri())
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    hidden = """boxes => boxes.filter(box => box.scrollHeight > box.clientHeight + 1
        || box.scrollWidth > box.clientWidth + 1).length"""
    assert page.locator(".scroll").evaluate_all(hidden) == 0
    page.close()


def test_the_page_of_the_whole_study_is_small_and_opens_at_once(
    browser: "Browser", tmp_path: Path
) -> None:
    names = registry.suites()["study"].experiments
    runs = builder(tmp_path / "mlruns", dataset="others-100", drawn=False)
    fill(runs, names, seeds=(0, 1, 2), n=100)
    path = tmp_path / "study.html"
    path.write_text(page_of(evidence_of(runs, "study")), encoding="utf-8")
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < 5_000_000
    assert all(name in text for name in names)
    complete = "performance.getEntriesByType('navigation')[0].domComplete"
    seconds = []
    for _ in range(3):  # The machine may be busy with other tests.
        page = browser.new_page()
        page.goto(path.as_uri())
        seconds.append(page.evaluate(complete) / 1000)
        page.close()
    assert min(seconds) < 2
