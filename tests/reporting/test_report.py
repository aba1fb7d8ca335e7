"""The report as text: whole, escaped, answering first, and honest about what it does not know."""

import re
import shutil
from collections import defaultdict
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmark import registry
from benchmark.cli.main import app
from benchmark.errors import RunError
from benchmark.evaluation.fairness import gender_gap_table
from benchmark.evaluation.predictions import read_predictions
from benchmark.reporting import evidence as evidences
from benchmark.reporting.evidence import Evidence, RunLinks
from benchmark.reporting.questions import QUESTIONS, Answer
from benchmark.reporting.report import network_sections
from tests.reporting.stores import DRAWN, QUICK, evidence_of, fill, page_of
from tests.results.conftest import RunBuilder

VOID = {"meta", "link", "input", "img", "br"}
STORE = Path(__file__).parent.parent / "golden" / "work"
KNOWN = {f"{number:012x}": ("7", f"run{number}") for number in range(2)}


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
    return {item.slug: item.ask(evidence, item) for item in QUESTIONS}


@pytest.fixture(scope="module")
def found(evidence: Evidence) -> dict[str, Answer]:
    return answers(evidence)


def test_the_page_is_whole_and_fetches_nothing(evidence: Evidence, page: str) -> None:
    reader = Reader(page)
    ids = reader.all("id")
    assert len(ids) == len(set(ids))
    hrefs = [*reader.all("href"), *reader.all("xlink:href")]
    within = {href[1:] for href in hrefs if href.startswith("#")}
    labels = {name for value in reader.all("aria-labelledby") for name in value.split()}
    assert within | labels | set(reader.all("aria-controls")) <= set(ids)
    assert reader.all("src") == []
    assert [has["href"] for tag, has in reader.seen if tag == "link"] == ["data:,"]
    assert "default-src 'none'" in page
    assert "@import" not in page
    assert "url(http" not in page
    assert page_of(evidence) == page
    best = evidence.ranked("mtl")[0].group
    assert evidence.links.of(best.identities).replace("&", "&amp;") in page


def test_date_faces_and_commit_come_first(page: str) -> None:
    top = words_of(page).split("The answers")[0]
    assert "2026-11-28" in top
    assert "3,200 training, 200 validation, 200 test" in top
    assert "Commit" in top


def test_every_answered_question_has_text_figure_and_table(found: dict[str, Answer]) -> None:
    answered = {slug: item for slug, item in found.items() if item.answered}
    assert set(found) - set(answered) == {"specialists"}
    for slug, item in answered.items():
        assert item.figures or item.matrices, slug
        assert item.tables, slug
        assert item.sentences, slug
    assert found["specialists"].sentences[0].startswith("Not answered by these runs: ")
    command = f"facebench run --suite subsets --seeds 0,1,2 --dataset {DRAWN}"
    assert found["specialists"].commands == (command,)


def test_cost_names_the_networks_that_no_cheaper_one_beats(
    evidence: Evidence, found: dict[str, Answer]
) -> None:
    ranked = evidence.ranked("mtl")
    places = {item.name: (-(item.parameters or 0), item.val_combined) for item in ranked}
    front = [
        name
        for name, (size, score) in places.items()
        if not any(a >= size and b >= score and (a, b) != (size, score) for a, b in places.values())
    ]
    sentence = found["cost"].sentences[1]
    assert sentence.startswith("By parameters, no network is both cheaper and better")
    assert all(name in sentence for name in front)
    assert f"the Pareto front of {len(ranked)} networks" in sentence


def test_a_link_leads_to_one_run_to_several_or_to_a_folder(drawn_runs: RunBuilder) -> None:
    ids, links = list(KNOWN), RunLinks("http://127.0.0.1:5000", KNOWN)
    assert links.of(ids[:1]) == "http://127.0.0.1:5000/#/experiments/7/runs/run0"
    assert "/#/compare-runs?runs=%5B%22run0%22%2C%22run1%22%5D" in links.of(ids)
    assert links.of([*ids[:1], "unknown"]) == ""
    assert RunLinks().of(ids) == ""
    with pytest.raises(RunError, match="is no address"):
        evidences.mlflow_links("javascript:alert(1)", {})
    fill(drawn_runs, QUICK[:1], n=80)
    (record,) = drawn_runs.records()
    text = page_of(evidence_of(drawn_runs, in_mlflow=False))
    assert f'href="../work/{record.identity}/"' in text
    assert "/#/" not in text


def test_leaky_is_written_on_all_that_a_leak_has_touched(
    found: dict[str, Answer], page: str
) -> None:
    leak = found["leak"]
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
    few = evidence_of(drawn_runs, "quick")
    asked = answers(few)
    assert [slug for slug, item in asked.items() if item.answered] == ["best", "subgroups"]
    assert all(item.commands for item in asked.values() if not item.answered)
    words = words_of(page_of(few))
    assert "Not answered by these runs" in words
    assert "race-cnn-none-full-short (not run)" in words


def test_runs_in_progress_and_failed_ones_are_shown_as_missing(drawn_runs: RunBuilder) -> None:
    drawn_runs.begun(registry.experiment(QUICK[0]))
    drawn_runs.failed(registry.experiment(QUICK[1]), "the loss of epoch 3 is nan")
    none = evidence_of(drawn_runs)
    assert not any(item.answered for item in answers(none).values())
    words = words_of(page_of(none))
    assert "seed 0 was interrupted or is still running" in words
    assert "seed 0 failed: the loss of epoch 3 is nan" in words
    assert "2 unfinished" in words


def test_changed_predictions_are_said_and_no_obstacle(drawn_runs: RunBuilder) -> None:
    fill(drawn_runs, QUICK[:2], n=80)
    path = next(r for r in drawn_runs.records() if r.experiment_name == QUICK[0]).predictions_path
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert "changed after they were scored" in words_of(page_of(evidence_of(drawn_runs)))


def test_siblings_differ_in_one_respect_alone_and_stand_in_their_order() -> None:
    (depths,) = evidences.siblings(registry.experiments_of("depth"), "depth")
    names = [item.backbone.depth_name for item in depths]
    assert names == ["frozen", "fire6_9", "fire4_5", "fire2_3", "full"]
    weights = evidences.siblings(registry.experiments_of("controls"), "weights")
    assert weights
    for group in weights:
        assert [item.backbone.weights for item in group] == ["none", "imagenet"]
        # The swapped control differs in its protocol besides.
        assert not any("swapped" in item.name for item in group)
    names = ["mtl-cnn-none-full", "mtl-cnn-none-full-gate", "mtl-cnn-none-full-embedding"]
    members = [registry.experiment(name) for name in names]
    (conditionings,) = evidences.siblings(members, "conditioning")
    assert conditionings[0].name == names[0]
    assert evidences.siblings(members[1:], "conditioning") == []


def test_pairs_are_neighbours_by_depth_and_no_folds(evidence: Evidence) -> None:
    pairs = evidences.sibling_pairs(evidence, "depth")
    assert any("squeezenet" in other.name for _, other in pairs)
    deeper = [(len(a.backbone.trained_stages), len(b.backbone.trained_stages)) for a, b in pairs]
    assert all(one < other for one, other in deeper)
    folded = replace(evidence)
    folds = [item.in_fold(0) for item in evidence.experiments if "squeezenet" in item.name]
    folded.__dict__["experiments"] = (*evidence.experiments, *folds)
    assert evidences.sibling_pairs(folded, "depth") == pairs


def test_a_comparison_has_one_p_on_the_page_and_on_the_leaderboard(evidence: Evidence) -> None:
    evidences.judged(evidence, "first")
    shown = defaultdict(set)
    told = {}
    for result in evidence.found.values():
        for line in result.lines:
            pair = frozenset((line.group.identities, line.reference.identities))
            shown[pair, line.task].add((line.family, line.p_holm))
            told[line.group.label, line.reference.label, line.task] = (line.family, line.p_holm)
    assert sum(len(result.lines) for result in evidence.found.values()) > len(shown)
    assert all(len(lines) == 1 for lines in shown.values())
    families = {family for lines in shown.values() for family, _ in lines}
    assert families <= set(evidences.FIELD_OF) | {"mtl_stl", "compare_with", "first"}
    assert families >= {"mtl_stl", "compare_with", "first"}
    both = [
        (told[key], (outcome.judged.family, outcome.judged.p_holm))
        for name, row in evidence.networks.items()
        for outcome in row.comparisons
        if outcome.judged and (key := (name, outcome.other, outcome.task)) in told
    ]
    assert len(both) > 10
    for (family, p_holm), (its_family, its_p) in both:
        assert family == its_family
        assert p_holm == pytest.approx(its_p)


def test_a_confusion_matrix_has_the_mean_shares_of_the_true_class(drawn_runs: RunBuilder) -> None:
    fill(drawn_runs, QUICK[:1], seeds=(0, 1), n=400)
    (section,) = network_sections(evidence_of(drawn_runs))
    (matrix,) = (m for m in section["matrices"] if m.title.startswith("Gender: confusion"))
    tables = [read_predictions(record.predictions_path) for record in drawn_runs.records()]
    tests = [table[table["part"] == "test"] for table in tables]
    shares = [
        np.mean([((t["gender"] == 0) & (t["gender_pred"] == said)).sum() for t in tests])
        / (tests[0]["gender"] == 0).sum()
        for said in (0, 1)
    ]
    name, *cells = matrix.rows[0].cells
    assert name.text == f"male ({(tests[0]['gender'] == 0).sum()})"
    assert [cell.text for cell in cells] == [f"{100 * share:.0f}" for share in shares]
    assert [cell.style for cell in cells] == ["right", "share"]
    assert len(section["matrices"]) == 6
    assert len(section["curves"]) == 4
    assert "Training loss" in section["curves"][0]


def test_what_cannot_be_read_is_said_and_the_rest_is_shown(drawn_runs: RunBuilder) -> None:
    fill(drawn_runs, QUICK[:1], n=400)
    (record,) = drawn_runs.records()
    (record.folder / "history.csv").unlink()
    (section,) = network_sections(evidence_of(drawn_runs))
    assert "learning curves" in section["trouble"] or not section["curves"]
    assert len(section["matrices"]) == 6


def test_stored_tables_are_means_over_seeds_with_the_largest_p(drawn_runs: RunBuilder) -> None:
    fill(drawn_runs, QUICK[:1], seeds=(0, 1), n=1_600)
    best = evidence_of(drawn_runs).first_ranked[0]
    assert list(evidences.stored_tables(best)) == []
    stored = [
        gender_gap_table(
            table := read_predictions(record.predictions_path).query("part == 'test'"),
            {"gender": (table["gender"] == table["gender_pred"]).to_numpy()},
        )
        for record in drawn_runs.records()
    ]
    for record, table in zip(drawn_runs.records(), stored, strict=True):
        table.to_csv(record.folder / "gender_gaps.csv", index=False)
    (shown,) = evidences.stored_tables(best)
    first = shown.rows[0].cells
    means = [float(np.mean([table[name].iloc[0] for table in stored])) * 100
             for name in ("difference", "permuted")]  # fmt: skip
    assert [cell.text for cell in first[:2]] == ["gender", "all"]
    assert [first[2].value, first[3].value] == pytest.approx(means)
    assert first[4].value == max(table["p"].iloc[0] for table in stored)


def test_accuracy_by_depth_has_a_line_per_backbone(found: dict[str, Answer]) -> None:
    lines, _ = found["depth"].figures
    assert lines.title == "Accuracy by unfreezing depth"
    assert len(lines.panels) == 3
    assert ">frozen<" in lines.panels[0]


def test_every_link_of_leaderboard_and_report_leads_to_a_file_or_a_place_of_the_page(
    tmp_path: Path,
) -> None:
    shutil.copytree(STORE, tmp_path / "mlruns" / "work")
    (tmp_path / "data").mkdir()
    places = ["--runs-dir", str(tmp_path / "mlruns"), "--data-dir", str(tmp_path / "data")]
    for command in ("leaderboard", "report"):
        result = CliRunner().invoke(app, [command, *places])
        assert result.exit_code == 0, result.output
    pages = sorted((tmp_path / "mlruns").glob("[lr]e*/*.html"))
    n_files = 0
    for page in pages:
        text = page.read_text(encoding="utf-8")
        ids = set(re.findall(r'\bid="([^"]+)"', text))
        for href in map(unescape, re.findall(r'href="([^"]+)"', text)):
            if href.startswith(("data:", "http://", "https://")):
                continue
            if href.startswith("#"):
                assert href == "#" or href[1:] in ids, f"{page.name}: {href}"
            else:
                assert (page.parent / unquote(href)).exists(), f"{page.name}: {href}"
                n_files += 1
    assert {page.parent.name for page in pages} == {"leaderboards", "reports"}
    assert n_files > 10
