"""The pages in a real browser: they fit, sort, filter, show every figure, and ask for nothing."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmark import registry
from benchmark.comparison.rows import Row
from benchmark.reporting.board_tables import page as board_page
from tests.reporting.boards import NASTY, a_board, a_row
from tests.reporting.stores import builder, evidence_of, fill, page_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SLOW = "mtl-squeezenet1_1-imagenet-fire6_9-slow"


TROUBLE: list[str] = []
"""What the browser complained of, and what it asked for besides the pages."""


def opened(browser: "Browser", folder: pytest.TempPathFactory, text: str) -> "Page":
    path = folder.mktemp("page") / "page.html"
    path.write_text(text, encoding="utf-8")
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.on("console", lambda said: TROUBLE.append(f"{said.type}: {said.text}"))
    page.on("pageerror", lambda error: TROUBLE.append(str(error)))
    page.on("request", lambda asked: TROUBLE.append(asked.url))
    page.goto(path.as_uri())
    return page


@pytest.fixture(scope="module")
def shown(browser: "Browser", page: str, tmp_path_factory: pytest.TempPathFactory) -> "Page":
    """The report, opened once on a desk."""
    return opened(browser, tmp_path_factory, page)


@pytest.fixture(scope="module")
def board(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> "Page":
    """A leaderboard of a reference row, two networks and one that is missing, opened once."""
    made = a_board(
        Row("reference", "majority class"),
        a_row(SLOW, 0.8, rank=1, seconds=900.0),
        a_row("mtl-fast-one", 0.7, rank=2, seconds=20.0),
        Row("missing", NASTY),
    )
    return opened(browser, tmp_path_factory, board_page(made))


def test_the_reports_tables_are_sorted_by_click_and_key_and_searched(shown: "Page") -> None:
    table = shown.locator("#board-0")
    head = table.locator("thead th", has_text="val. acc.").first
    cells = table.locator("tbody:first-of-type td[data-label='val. acc.'][data-value]")
    orders = []
    head.get_by_role("button").click()
    for direction in ("descending", "ascending"):
        assert head.get_attribute("aria-sort") == direction
        orders.append(cells.evaluate_all("cells => cells.map(cell => Number(cell.dataset.value))"))
        head.get_by_role("button").focus()
        shown.keyboard.press("Enter")
    assert len(orders[0]) > 5
    assert orders == [sorted(orders[0], reverse=True), sorted(orders[0])]
    table.locator("input[type=search]").fill("squeezenet1_1 FROZEN")
    found = table.locator("[scope=row]:visible").all_inner_texts()
    networks = (f"mtl-squeezenet1_1-{weights}-frozen-short" for weights in ("imagenet", "none"))
    assert {name.split("\n")[0] for name in found} == set(networks)
    assert table.locator("output").inner_text().startswith("2 of ")


@pytest.mark.parametrize("width", [390, 1440])
def test_every_figure_is_shown_and_nothing_is_wider_than_the_screen(
    width: int, shown: "Page", board: "Page"
) -> None:
    board.set_viewport_size({"width": width, "height": 900})
    for element in ("document.documentElement", "document.querySelector('.scroll')"):
        assert board.evaluate(f"{element}.scrollWidth <= {element}.clientWidth"), element
    shown.set_viewport_size({"width": width, "height": 900})
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    boxes = [item.bounding_box() for item in shown.locator("svg[role=img]:visible").all()]
    assert len(boxes) > 20
    for box in boxes:
        assert box is not None
        assert box["width"] > 200
        assert box["height"] > 40
        assert box["x"] + box["width"] <= width + 1


def test_a_leaderboard_is_sorted_filtered_and_widened(board: "Page") -> None:
    for order in ([SLOW, "mtl-fast-one"], ["mtl-fast-one", SLOW]):
        board.get_by_role("button", name="time", exact=True).first.click()
        names = board.locator("[scope=row]:visible").all_inner_texts()
        # What has no value stands last either way.
        assert names == [*order, "majority class", f"{NASTY} (not run)"]
    board.get_by_role("searchbox").fill("FAST")
    assert board.locator("[scope=row]:visible").all_inner_texts() == ["mtl-fast-one"]
    assert board.get_by_role("status").inner_text() == "1 of 4 rows"
    board.get_by_role("searchbox").fill("")
    commit = board.get_by_role("columnheader", name="commit", include_hidden=True)
    differences = board.get_by_role("region", name="Differences", include_hidden=True)
    for box, part in (("Seeds, device, commit", commit), ("Differences", differences)):
        assert not part.is_visible()
        board.get_by_role("checkbox", name=box).check()
        assert part.is_visible()


def test_pages_neither_complain_nor_ask_for_anything(shown: "Page", board: "Page") -> None:
    shown.wait_for_load_state("networkidle")
    asked = [said for said in TROUBLE if not said.startswith("data:")]
    assert sorted(asked) == sorted([shown.url.split("#")[0], board.url])


def test_the_page_of_the_whole_study_is_small(browser: "Browser", tmp_path: Path) -> None:
    runs = builder(tmp_path / "mlruns", dataset="others-100", drawn=False)
    fill(runs, registry.suites()["study"].experiments, seeds=(0, 1, 2), n=100)
    path = tmp_path / "study.html"
    path.write_text(page_of(evidence_of(runs, "study")), encoding="utf-8")
    assert path.stat().st_size < 5_000_000
    page = browser.new_page()
    page.goto(path.as_uri())
    n_elements = page.evaluate("document.querySelectorAll('*').length")
    page.close()
    assert 10_000 < n_elements < 50_000
