"""The page as text: whole, escaped, answering first, and honest about what it does not know."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark import registry
from benchmark.evaluation.predictions import read_predictions
from benchmark.evaluation.subgroups import gender_gap_table
from benchmark.reporting.evidence import DataTable, Evidence
from benchmark.reporting.page import answers
from tests.report.stores import DRAWN, QUICK, builder, evidence_of, fill, page_of

VOID = {"meta", "link", "input", "img", "br"}


class Reader(HTMLParser):
    """Reads a page and fails on a tag that is not closed in its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    def all(self, attribute: str) -> list[str]:
        return [str(has[attribute]) for _, has in self.seen if attribute in has]


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return reader


def words_of(text: str) -> str:
    return " ".join(" ".join(read(text).words).split())


def test_every_tag_is_closed_and_every_id_is_the_only_one(page: str) -> None:
    ids = read(page).all("id")
    assert len(ids) == len(set(ids))


def test_every_place_that_is_named_exists(page: str) -> None:
    reader = read(page)
    places = set(reader.all("id"))
    within = {href[1:] for href in reader.all("href") if href.startswith("#")}
    labels = {name for value in reader.all("aria-labelledby") for name in value.split()}
    assert within <= places
    assert labels | set(reader.all("aria-controls")) <= places


def test_nothing_is_fetched_from_anywhere(page: str) -> None:
    reader = read(page)
    assert all(src.startswith("data:") for src in reader.all("src"))
    assert [has["href"] for tag, has in reader.seen if tag == "link"] == ["data:,"]
    assert "default-src 'none'" in page
    assert "@import" not in page
    assert "url(http" not in page


def test_every_answered_question_has_a_picture_and_a_table(evidence: Evidence) -> None:
    asked = list(answers(evidence))
    told = {item.slug for item in asked if item.answered}
    assert told == {"best", "mtl-or-stl", "weights", "depth", "gender", "for-whom", "leak"}
    for item in asked:
        if item.answered:
            assert item.pictures or item.heat_maps, item.slug
            assert item.tables, item.slug
            assert item.sentences, item.slug


def test_an_unanswered_question_says_so_with_the_command_that_would(evidence: Evidence) -> None:
    (item,) = [item for item in answers(evidence) if not item.answered]
    assert item.short.startswith("Not answered by these runs: ")
    assert item.commands == (f"facebench run --suite subsets --seeds 0,1,2 --dataset {DRAWN}",)


def test_numbers_lead_to_their_runs_in_mlflow(evidence: Evidence, page: str) -> None:
    row = evidence.ranked("mtl")[0].row
    assert evidence.links.of(row.identities).replace("&", "&amp;") in page
    assert page.count("http://127.0.0.1:5000/#/compare-runs") > 100


def test_without_mlflow_no_number_leads_there(tmp_path: Path) -> None:
    runs = builder(tmp_path / "mlruns")
    fill(runs, QUICK[:1], n=80)
    found = evidence_of(runs, in_mlflow=False)
    text = page_of(found)
    assert "/#/" not in text
    assert "facebench runs import" in text


def test_the_page_is_the_same_when_nothing_changed(evidence: Evidence, page: str) -> None:
    assert page_of(evidence) == page


def test_leaky_stands_on_all_that_a_leak_has_touched(evidence: Evidence, page: str) -> None:
    (leak,) = [item for item in answers(evidence) if item.slug == "leak"]
    assert leak.leaky
    assert all("LEAKY" in panel for picture in leak.pictures for panel in picture.panels)
    reader = read(page)
    tables = [has for tag, has in reader.seen if tag == "div" and "data leaky" in str(has)]
    # the published arm by itself, its steps, its single conditions; three settings of leaderboards
    assert len(tables) == 6
    for name in ("published", "split", "only_batches"):
        assert f"LEAKY mtl-cnn-none-full-until99-{name}" in words_of(page)
    assert 'id="network-mtl-cnn-none-full-until99-published"' not in page


def test_one_run_makes_a_page_that_answers_little(tmp_path: Path) -> None:
    runs = builder(tmp_path / "mlruns")
    fill(runs, QUICK[:1], n=80)
    found = evidence_of(runs)
    asked = list(answers(found))
    assert [item.slug for item in asked if item.answered] == ["best", "for-whom"]
    assert all(item.commands for item in asked if not item.answered)
    read(page_of(found))


def test_rates_gender_gaps_and_ages_are_shown_once_they_are_computed(tmp_path: Path) -> None:
    runs = builder(tmp_path / "mlruns")
    fill(runs, QUICK[:1], seeds=(0, 1), n=1_600)

    def tables() -> dict[str, DataTable]:
        found = {item.slug: item for item in answers(evidence_of(runs))}
        return {table.name: table for table in found["for-whom"].tables}

    assert set(tables()) == {"gaps"}
    stored = [
        gender_gap_table(
            table := read_predictions(record.predictions_path).query("part == 'test'"),
            {"gender": (table["gender"] == table["gender_pred"]).to_numpy()},
        )
        for record in runs.records()
    ]
    for record, table in zip(runs.records(), stored, strict=True):
        table.to_csv(record.folder / "gender_gaps.csv", index=False)
    shown = tables()
    assert set(shown) == {"gaps", "gender-gaps"}
    first = shown["gender-gaps"].rows[0].cells
    means = [float(np.mean([table[name].iloc[0] for table in stored])) * 100
             for name in ("difference", "permuted")]  # fmt: skip
    assert [cell.words for cell in first[:2]] == ["gender", "all"]
    assert [first[2].value, first[3].value] == pytest.approx(means)
    assert first[4].value == max(table["p"].iloc[0] for table in stored)


def test_runs_that_go_on_or_failed_are_shown_as_missing(tmp_path: Path) -> None:
    runs = builder(tmp_path / "mlruns")
    runs.begun(registry.experiment(QUICK[0]))
    runs.failed(registry.experiment(QUICK[1]), "the loss of epoch 3 is nan")
    found = evidence_of(runs)
    asked = list(answers(found))
    assert not any(item.answered for item in asked)
    words = words_of(page_of(found))
    assert "seed 0 was interrupted or is still running" in words
    assert "seed 0 failed: the loss of epoch 3 is nan" in words
    assert "2 unfinished" in words


def test_a_suite_shows_what_is_missing_of_it(tmp_path: Path) -> None:
    runs = builder(tmp_path / "mlruns")
    fill(runs, QUICK[:1], n=80)
    words = words_of(page_of(evidence_of(runs, "quick")))
    assert "race-cnn-none-full-short" in words
    assert "not run" in words


def test_a_run_whose_answers_changed_is_said_and_no_obstacle(tmp_path: Path) -> None:
    runs = builder(tmp_path / "mlruns")
    fill(runs, QUICK[:2], n=80)
    for record in runs.records():
        if record.experiment_name == QUICK[0]:
            path = record.predictions_path
            path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    found = evidence_of(runs)
    words = words_of(page_of(found))
    assert "changed after they were scored" in words


@pytest.mark.parametrize("suite", ["study"])
def test_the_page_of_the_whole_study_is_small(suite: str, study_path: Path) -> None:
    text = study_path.read_text(encoding="utf-8")
    assert len(text.encode()) < 5_000_000
    names = registry.suites()[suite].experiments
    assert all(name in text for name in names)
