"""The report as text: whole, escaped, answering first, and honest about what it does not know."""

import base64
import io
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from PIL import Image

from benchmark import registry
from benchmark.data.dataset import FaceSet
from benchmark.errors import DataError, RunError
from benchmark.reporting.evidence import COMPARED_AT_MOST, Evidence, RunLinks, mlflow_links
from benchmark.reporting.networks import SHOWN_PER_TASK, gallery
from benchmark.reporting.questions import Answer
from benchmark.reporting.report import QUESTIONS
from tests.reporting.stores import DRAWN, QUICK, evidence_of, fill, finish, page_of, predictions_on
from tests.results.conftest import RunBuilder

VOID = {"meta", "link", "input", "img", "br"}
MTL = registry.experiment("mtl-cnn-none-full-short")
KNOWN = {f"{number:012x}": ("7", f"run{number}") for number in range(100)}


class Reader(HTMLParser):
    """Reads a page and fails on a tag that is not closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

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


def words_of(text: str) -> str:
    return " ".join(" ".join(Reader(text).words).split())


def answers(evidence: Evidence) -> dict[str, Answer]:
    found = [question(evidence) for question in QUESTIONS]
    return {item.slug: item for item in found}


def test_the_page_is_whole_and_every_place_that_is_named_exists(page: str) -> None:
    reader = Reader(page)
    ids = reader.all("id")
    assert len(ids) == len(set(ids))
    hrefs = [*reader.all("href"), *reader.all("xlink:href")]
    within = {href[1:] for href in hrefs if href.startswith("#")}
    labels = {name for value in reader.all("aria-labelledby") for name in value.split()}
    assert within | labels | set(reader.all("aria-controls")) <= set(ids)


def test_nothing_is_fetched_and_equal_runs_give_equal_pages(evidence: Evidence, page: str) -> None:
    reader = Reader(page)
    assert all(src.startswith("data:") for src in reader.all("src"))
    assert [has["href"] for tag, has in reader.seen if tag == "link"] == ["data:,"]
    assert "default-src 'none'" in page
    assert "@import" not in page
    assert "url(http" not in page
    assert page_of(evidence) == page


def test_date_faces_and_commit_come_first(page: str) -> None:
    top = words_of(page).split("The answers")[0]
    assert "2026-11-28" in top
    assert "3,200 training, 200 validation, 200 test" in top
    assert "Commit" in top


def test_every_answered_question_has_text_figure_and_table(evidence: Evidence) -> None:
    found = answers(evidence)
    answered = {slug: item for slug, item in found.items() if item.answered}
    assert set(found) - set(answered) == {"specialists"}
    for slug, item in answered.items():
        assert item.figures or item.matrices, slug
        assert item.tables, slug
        assert item.sentences, slug
    assert found["specialists"].sentences[0].startswith("Not answered by these runs: ")
    command = f"facebench run --suite subsets --seeds 0,1,2 --dataset {DRAWN}"
    assert found["specialists"].commands == (command,)


def test_cost_names_the_networks_that_no_cheaper_one_beats(evidence: Evidence) -> None:
    ranked = evidence.ranked("mtl")
    places = {item.name: (-(item.row.parameters or 0), item.row.val_combined) for item in ranked}
    front = [
        name
        for name, (size, score) in places.items()
        if not any(a >= size and b >= score and (a, b) != (size, score) for a, b in places.values())
    ]
    sentence = answers(evidence)["cost"].sentences[1]
    assert sentence.startswith("By parameters, no network is both cheaper and better")
    assert all(name in sentence for name in front)
    assert f"the Pareto front of {len(ranked)} networks" in sentence


def test_runs_are_linked_to_mlflow_or_to_their_folders(
    evidence: Evidence, page: str, drawn_runs: RunBuilder
) -> None:
    row = evidence.ranked("mtl")[0].row
    assert evidence.links.of(row.identities).replace("&", "&amp;") in page
    fill(drawn_runs, QUICK[:1], n=80)
    found = evidence_of(drawn_runs, in_mlflow=False)
    (record,) = drawn_runs.records()
    text = page_of(found)
    assert f'href="../work/{record.identity}/"' in text
    assert "/#/" not in text


def test_a_link_leads_to_one_run_to_several_or_to_the_list() -> None:
    ids, links = list(KNOWN), RunLinks("http://127.0.0.1:5000", KNOWN)
    assert links.of(ids[:1]) == "http://127.0.0.1:5000/#/experiments/7/runs/run0"
    assert "/#/compare-runs?runs=%5B%22run0%22%2C%22run1%22%5D" in links.of(ids[:2])
    assert links.of(ids[: COMPARED_AT_MOST + 1]) == "http://127.0.0.1:5000/#/experiments/7/runs"
    assert links.of([*ids[:1], "unknown"]) == ""
    assert RunLinks().of(ids[:2]) == ""
    with pytest.raises(RunError, match="is no address"):
        mlflow_links("javascript:alert(1)", {})


def test_leaky_is_written_on_all_that_a_leak_has_touched(evidence: Evidence, page: str) -> None:
    leak = answers(evidence)["leak"]
    assert leak.leaky
    panels = [panel for figure in leak.figures if figure.leaky for panel in figure.panels]
    assert panels
    assert all(">LEAKY<" in panel and 'aria-label="LEAKY. ' in panel for panel in panels)
    tables = [has for tag, has in Reader(page).seen if tag == "div" and "data leaky" in str(has)]
    assert len(tables) >= len(leak.tables) + 1
    for name in ("published", "split", "only_batches"):
        assert f"LEAKY mtl-cnn-none-full-until99-{name}" in words_of(page)
    assert 'id="network-mtl-cnn-none-full-until99-published"' not in page


def test_one_run_answers_little_and_says_what_would_answer_more(drawn_runs: RunBuilder) -> None:
    fill(drawn_runs, QUICK[:1], n=80)
    found = evidence_of(drawn_runs, "quick")
    asked = answers(found)
    assert [slug for slug, item in asked.items() if item.answered] == ["best", "subgroups"]
    assert all(item.commands for item in asked.values() if not item.answered)
    words = words_of(page_of(found))
    assert "Not answered by these runs" in words
    assert "race-cnn-none-full-short (not run)" in words


def test_runs_in_progress_and_failed_ones_are_shown_as_missing(drawn_runs: RunBuilder) -> None:
    drawn_runs.begun(registry.experiment(QUICK[0]))
    drawn_runs.failed(registry.experiment(QUICK[1]), "the loss of epoch 3 is nan")
    found = evidence_of(drawn_runs)
    assert not any(item.answered for item in answers(found).values())
    words = words_of(page_of(found))
    assert "seed 0 was interrupted or is still running" in words
    assert "seed 0 failed: the loss of epoch 3 is nan" in words
    assert "2 unfinished" in words


def test_changed_predictions_are_said_and_no_obstacle(drawn_runs: RunBuilder) -> None:
    fill(drawn_runs, QUICK[:2], n=80)
    path = next(r for r in drawn_runs.records() if r.experiment_name == QUICK[0]).predictions_path
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert "changed after they were scored" in words_of(page_of(evidence_of(drawn_runs)))


def test_errors_are_pictures_within_the_page_most_confident_first(
    drawn_runs: RunBuilder, drawn_faces: FaceSet
) -> None:
    drawn_runs.dataset |= {"pixel_digest": drawn_faces.pixel_digest}
    finish(drawn_runs, MTL, predictions=predictions_on(drawn_faces, MTL))
    evidence = evidence_of(drawn_runs)
    shown = gallery(evidence, drawn_faces)
    assert shown is not None
    assert list(shown.tasks) == ["age_group", "gender", "race"]
    for faces in shown.tasks.values():
        confidences = [face.confidence for face in faces]
        assert 0 < len(faces) <= SHOWN_PER_TASK
        assert confidences == sorted(confidences, reverse=True)
        assert all(face.truth != face.predicted for face in faces)
    coded = shown.tasks["race"][0].picture.removeprefix("data:image/webp;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(coded))).size == (32, 32)
    synthetic, people = (page_of(evidence, replace(shown, drawn=drawn)) for drawn in (True, False))
    assert 'alt="A synthetic face labelled' in synthetic
    assert "personal data" not in synthetic
    assert "This page holds pictures of people: personal data." in people
    with pytest.raises(DataError, match="prepared anew"):
        gallery(evidence, FaceSet(drawn_faces.folder, {**drawn_faces.manifest, "pixel_digest": "1"},
                                  drawn_faces.table))  # fmt: skip
