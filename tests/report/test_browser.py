"""The page in a real browser: it sorts, filters, shows every picture, and asks nobody anything."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BOARD = "#board-0-mtl"


@pytest.fixture(scope="module")
def trouble() -> list[str]:
    """What the browser complained of, and what it asked for besides the page."""
    return []


@pytest.fixture(scope="module")
def shown(browser: "Browser", page_path: Path, trouble: list[str]) -> Iterator["Page"]:
    """The page, opened once on a desk."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.on("console", lambda said: trouble.append(f"{said.type}: {said.text}"))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda asked: trouble.append(asked.url))
    page.goto(page_path.as_uri())
    yield page
    page.close()


def column(page: "Page", number: int) -> list[str]:
    told = """(rows, number) => rows.filter(row => row.checkVisibility()).map(
        row => row.cells[number].innerText.trim())"""
    return list(page.locator(f"{BOARD} tbody tr").evaluate_all(told, number))


def test_a_click_sorts_a_table_and_another_turns_it_round(shown: "Page") -> None:
    head = shown.locator(f"{BOARD} thead th").nth(2)
    head.get_by_role("button").click()
    falling = [float(text.split(" ")[0]) for text in column(shown, 2)]
    assert head.get_attribute("aria-sort") == "descending"
    assert falling == sorted(falling, reverse=True)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert [float(text.split(" ")[0]) for text in column(shown, 2)] == falling[::-1]


def test_the_keyboard_sorts_by_name(shown: "Page") -> None:
    shown.locator(f"{BOARD} thead th").first.get_by_role("button").focus()
    shown.keyboard.press("Enter")
    names = column(shown, 0)
    assert len(names) > 5
    assert names == sorted(names)


def test_what_has_no_value_stands_last_either_way(browser: "Browser", study_path: Path) -> None:
    page = browser.new_page()
    page.goto(study_path.as_uri())
    # What the study printed is known of some networks alone.
    head = page.locator(f"{BOARD} thead th", has_text="study printed").first
    place = head.evaluate("head => head.cellIndex")
    for _ in range(2):
        head.get_by_role("button").click()
        words = column(page, place)
        known = [text for text in words if text != "–"]
        assert 0 < len(known) < len(words)
        assert words[: len(known)] == known
    page.close()


def test_searching_keeps_the_rows_with_every_word(shown: "Page") -> None:
    box = shown.locator(f"{BOARD} input[type=search]")
    box.fill("squeezenet1_1 FROZEN")
    assert set(column(shown, 0)) == {
        "mtl-squeezenet1_1-imagenet-frozen-short",
        "mtl-squeezenet1_1-none-frozen-short",
    }
    assert shown.locator(f"{BOARD} output").inner_text().startswith("2 of ")
    box.fill("")
    assert len(column(shown, 0)) > 5


def visible_boxes(page: "Page", selector: str) -> list[Any]:
    told = """items => items.filter(item => item.checkVisibility()).map(item => {
        const box = item.getBoundingClientRect();
        return {x: box.x, y: box.y, width: box.width, height: box.height};
    })"""
    return list(page.locator(selector).evaluate_all(told))


def test_every_picture_is_shown(shown: "Page") -> None:
    boxes = visible_boxes(shown, "svg[role=img]")
    assert len(boxes) > 20
    assert all(box["width"] > 200 and box["height"] > 40 for box in boxes)
    drawn = """svgs => svgs.filter(svg => svg.checkVisibility()).every(
        svg => [...svg.querySelectorAll(".mark, .path")].some(mark => mark.getBBox().width > 0))"""
    assert shown.locator("svg[role=img]").evaluate_all(drawn)


def test_any_two_networks_stand_side_by_side(shown: "Page") -> None:
    chosen = ("network-race-cnn-none-full-short", "network-mtl-cnn-none-full-gate")
    shown.locator("#choose-left").select_option(chosen[0])
    shown.locator("#choose-right").select_option(chosen[1])
    boxes = [shown.locator(f"#{name} .confusion.race").bounding_box() for name in chosen]
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[0]["y"] == pytest.approx(boxes[1]["y"], abs=1)
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    assert len(visible_boxes(shown, ".portrait .confusion")) == 4


def test_one_network_alone_fills_the_place(shown: "Page") -> None:
    shown.locator("#choose-left").select_option("network-mtl-cnn-none-full-gate")
    shown.locator("#choose-right").select_option("")
    assert len(visible_boxes(shown, ".portrait .confusion")) == 3


def test_a_name_in_a_table_leads_to_that_network(shown: "Page") -> None:
    shown.locator(f"{BOARD} tbody th a", has_text="mtl-cnn-none-full-embedding").click()
    assert shown.locator("#network-mtl-cnn-none-full-embedding h3").is_visible()
    assert shown.locator("#choose-left").input_value() == "network-mtl-cnn-none-full-embedding"


def test_it_neither_complains_nor_asks_for_anything(
    shown: "Page", trouble: list[str], page_path: Path
) -> None:
    shown.wait_for_load_state("networkidle")
    assert trouble == [page_path.as_uri()]


def test_on_a_phone_nothing_is_wider_than_the_screen(browser: "Browser", page_path: Path) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 780})
    page.goto(page_path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert all(box["x"] + box["width"] <= 361 for box in visible_boxes(page, "svg[role=img]"))
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_the_page(scheme: Any, browser: "Browser", page_path: Path) -> None:
    page = browser.new_page(color_scheme=scheme)
    page.goto(page_path.as_uri())
    look = "of => getComputedStyle(document.body)[of].match(/\\d+/g).slice(0, 3).map(Number)"
    ink, ground = (sum(page.evaluate(look, of)) / 3 for of in ("color", "backgroundColor"))
    assert (ink < ground) == (scheme == "light")
    assert abs(ink - ground) > 150
    page.close()


def test_without_scripts_every_network_is_shown(browser: "Browser", page_path: Path) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(page_path.as_uri())
    n_shown = len(visible_boxes(page, ".portrait"))
    assert 0 < n_shown == page.locator(".portrait").count()
    assert not page.locator("#choose-left").is_visible()
    assert page.locator("thead button").count() == 0
    page.close()


def test_on_paper_nothing_is_cut_off(browser: "Browser", page_path: Path) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto(page_path.as_uri())
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    hidden = "boxes => boxes.filter(box => box.scrollHeight > box.clientHeight + 1).length"
    assert page.locator(".scroll").evaluate_all(hidden) == 0
    page.close()


def test_the_page_of_the_whole_study_opens_at_once(browser: "Browser", study_path: Path) -> None:
    def seconds() -> float:
        page = browser.new_page()
        page.goto(study_path.as_uri())
        complete = page.evaluate("performance.getEntriesByType('navigation')[0].domComplete")
        page.close()
        return float(complete) / 1000

    # The best of three: the machine may be busy with other tests.
    assert min(seconds() for _ in range(3)) < 2
