"""The page stands alone, escapes what others wrote, and says what the data set does not tell."""

import re
from html import unescape
from pathlib import Path

import pytest

from benchmark.data.audit import audit
from benchmark.data.dataset import FaceSet
from benchmark.reporting.explore_numbers import explore
from benchmark.reporting.explore_page import page, write_exploration


@pytest.fixture(scope="module")
def written(drawn_faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_exploration(explore(drawn_faces), tmp_path_factory.mktemp("explore"))


def test_the_page_needs_nothing_and_shows_no_picture(written: list[Path]) -> None:
    text = written[0].read_text(encoding="utf-8")
    assert not re.search(r"<img|<image|<script|<link|@import|src=|data:image", text)
    assert set(re.findall(r'href="(.)', text)) == {"#"}
    assert not re.search(r"url\((?!#)", text)


def test_ids_are_given_once_and_links_lead_somewhere(written: list[Path]) -> None:
    text = written[0].read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    links = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)
    assert {first or second for first, second in links} <= set(ids)


def test_the_page_is_in_the_light_and_in_the_dark(written: list[Path]) -> None:
    text = written[0].read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text
    assert "DRAWN FACES" in text


def test_the_counts_on_the_page_are_the_audits(written: list[Path], drawn_faces: FaceSet) -> None:
    words = unescape(re.sub(r"<[^>]+>", "|", written[0].read_text(encoding="utf-8")))
    cells = re.sub(r"[|\s]+", "|", words)
    counts = audit(drawn_faces).counts
    for part, gender, name in (("train", 0, "male"), ("test", 1, "female")):
        n = int(counts[(counts["part"] == part) & (counts["gender"] == gender)]["n"].sum())
        row = re.search(rf"\|{name}\|((?:\d+\|\([\d.]+\|%\)\|){{3}})", cells)
        assert row is not None
        assert re.findall(r"(\d+)\|\(", row[1])[("train", "val", "test").index(part)] == str(n)


def test_png_files_are_small_enough_for_a_document(written: list[Path]) -> None:
    pictures = written[1:]
    assert [path.suffix for path in pictures] == [".png"] * 8
    assert max(path.stat().st_size for path in pictures) < 150_000


def test_names_of_others_are_text_and_nothing_else(drawn_faces: FaceSet) -> None:
    manifest = {**drawn_faces.manifest, "source": "<script>alert(1)</script>"}
    shown = page(explore(FaceSet(drawn_faces.folder, manifest, drawn_faces.table)), {})
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


def test_what_is_not_labelled_is_said_and_its_sections_left_out(without_ages: FaceSet) -> None:
    shown = unescape(page(explore(without_ages), {}))
    assert "No face is labelled with age group: neither trained nor evaluated here." in shown
    assert "20 of 40 faces (50.0 %) have no race" in shown
    assert "Label heaping" not in shown
    assert "How the labels were read" in shown
