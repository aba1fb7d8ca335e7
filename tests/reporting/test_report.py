"""The report as text: whole, answering first, and honest about what it does not know."""

import re
import shutil
from collections import defaultdict
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmark import registry
from benchmark.cli.main import app
from benchmark.comparison.wording import Mark, StudyFigure, StudyPanel, TaskComparison
from benchmark.evaluation.figures import INK
from benchmark.evaluation.predictions import read_predictions
from benchmark.experiment.definition import Experiment
from benchmark.record import RunRecord
from benchmark.reporting import evidence as evidences
from benchmark.reporting import figures
from benchmark.reporting.evidence import Evidence, RunLinks
from benchmark.reporting.questions import Answer
from benchmark.reporting.report import answers_of, network_sections
from benchmark.tasks import TASKS
from tests.conftest import ROOT
from tests.made_runs import RunBuilder
from tests.reporting.stores import DRAWN, QUICK, builder, evidence_of, fill, page_of


def words_of(page: str) -> str:
    text = re.sub(r"<(style|script)>.*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL)
    return " ".join(unescape(text).split())


def answers(evidence: Evidence) -> dict[str, Answer]:
    return {answer.question.slug: answer for answer in answers_of(evidence)}


@pytest.fixture(scope="module")
def found(evidence: Evidence) -> dict[str, Answer]:
    return answers(evidence)


def test_the_page_is_whole_and_fetches_nothing(evidence: Evidence, page: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|aria-labelledby="|aria-controls=")([^"]+)', page)) <= {*ids}
    assert "default-src 'none'" in page
    assert not re.search(r"@import|url\(http|\bsrc=", page)
    assert page_of(evidence) == page
    best = evidence.ranked["mtl"][0].group
    assert evidence.links.of(best.identities).replace("&", "&amp;") in page
    top = words_of(page).split("The answers")[0]
    for text in ("2026-11-28", "3,200 training, 200 validation, 200 test", "Commit"):
        assert text in top, text


def test_every_answered_question_has_text_figure_and_table(found: dict[str, Answer]) -> None:
    answered = {slug: item for slug, item in found.items() if not item.command}
    assert set(found) - set(answered) == {"specialists"}
    for slug, item in answered.items():
        assert item.figures or item.matrices, slug
        assert item.tables, slug
        assert item.sentences, slug
    assert found["specialists"].sentences[0].startswith("Not answered by these runs: ")
    command = f"facebench run --suite subsets --seeds 0,1,2 --dataset {DRAWN}"
    assert found["specialists"].command == command


def test_specialists_are_those_of_the_suite_that_was_run(tmp_path: Path) -> None:
    fill(runs := RunBuilder(tmp_path), [f"age_group-vgg16-imagenet-block5-steps-women{it}"
                                        for it in ("", "-everyone")])  # fmt: skip
    assert "specialist shows" in answers(evidence_of(runs))["specialists"].sentences[0]


def test_cost_names_the_networks_that_no_cheaper_one_beats(
    evidence: Evidence, found: dict[str, Answer]
) -> None:
    ranked = evidence.ranked["mtl"]
    front, best = [], 0.0
    for item in sorted(ranked, key=lambda it: (it.parameters or 0, -(it.val_combined or 0))):
        if (item.val_combined or 0) > best:
            front.append(item.name)
            best = item.val_combined or 0
    sentence = found["cost"].sentences[1]
    assert sentence.startswith("By parameters, no network is both cheaper and better")
    assert all((item.name in sentence) == (item.name in front) for item in ranked)
    assert f"the Pareto front of {len(ranked)} networks" in sentence


def test_a_link_leads_to_one_run_or_to_several_in_mlflow() -> None:
    ids = ["0" * 12, "1" * 12]
    links = RunLinks("http://here:5000", {ids[0]: ("7", "run0"), ids[1]: ("7", "run1")})
    assert links.of(ids[:1]) == "http://here:5000/#/experiments/7/runs/run0"
    assert "/#/compare-runs?runs=%5B%22run0%22%2C%22run1%22%5D" in links.of(ids)
    assert links.of([*ids[:1], "unknown"]) == RunLinks().of(ids) == ""


def test_leaky_is_written_on_all_that_a_leak_has_touched(
    found: dict[str, Answer], page: str
) -> None:
    leak, words = found["leak"], words_of(page)
    assert leak.leaky
    marked = [figure for figure in leak.figures if figure.title.startswith("LEAKY")]
    assert marked
    for panel in (panel for figure in marked for panel in figure.panels):
        assert ">LEAKY<" in panel
        assert 'aria-label="LEAKY. ' in panel
    assert page.count('class="data leaky"') >= len(leak.tables) + 1
    for name in ("published", "split", "only_batches"):
        assert f"LEAKY mtl-cnn-none-full-until99-{name}" in words
    assert 'id="network-mtl-cnn-none-full-until99-published"' not in page


def test_few_runs_answer_little_and_say_what_would_answer_more(drawn_runs: RunBuilder) -> None:
    drawn_runs.begun(registry.experiment(QUICK[1]))
    drawn_runs.failed(registry.experiment(QUICK[2]), "the loss of epoch 3 is nan")
    assert all(item.command for item in answers(evidence_of(drawn_runs)).values())
    fill(drawn_runs, QUICK[:1], n=80)
    few = evidence_of(drawn_runs, "quick")
    asked = answers(few)
    assert [slug for slug, item in asked.items() if not item.command] == ["best", "subgroups"]
    for slug, suite in (("depth", "depth"), ("weights", "controls"), ("leak", "leak")):
        assert asked[slug].command.startswith(f"facebench run --suite {suite} --seeds")
    words = words_of(page_of(few))
    for text in (
        *("Not answered by these runs", "race-cnn-none-full-short (not run)", "2 unfinished"),
        "seed 0 was interrupted or is still running",
        "seed 0 failed: the loss of epoch 3 is nan",
    ):
        assert text in words, text


def test_what_cannot_be_read_is_said_and_the_rest_is_shown(drawn_runs: RunBuilder) -> None:
    fill(drawn_runs, QUICK[:2], n=80)
    records = {record.experiment_name: record for record in drawn_runs.records()}
    with records[QUICK[0]].predictions_path.open("a") as stream:
        stream.write("\n")
    (records[QUICK[1]].folder / "history.csv").unlink()
    evidence = evidence_of(drawn_runs)
    assert "changed after they were scored" in words_of(page_of(evidence))
    sections = {section["name"]: section for section in network_sections(evidence)}
    assert "history.csv" in sections[QUICK[1]]["trouble"]
    assert len(sections[QUICK[1]]["matrices"]) == 2


def test_siblings_differ_in_one_respect_alone_and_stand_in_their_order() -> None:
    (depths,) = evidences.siblings(registry.experiments_of("depth"), "depth")
    names = [item.backbone.depth_name for item in depths]
    assert names == ["frozen", "fire6_9", "fire4_5", "fire2_3", "full"]
    for group in evidences.siblings(registry.experiments_of("controls"), "weights"):
        assert [item.backbone.weights for item in group] == ["none", "imagenet"]
        assert not any("swapped" in item.name for item in group), "of another protocol besides"
    ends = ("-gate", "-embedding", "")
    members = [registry.experiment(f"mtl-cnn-none-full{end}") for end in ends]
    (conditionings,) = evidences.siblings(members, "conditioning")
    assert conditionings[0] == members[2]
    assert evidences.siblings(members[:2], "conditioning") == []


def test_a_comparison_has_one_p_on_the_page_and_on_the_leaderboard(evidence: Evidence) -> None:
    shown, told = defaultdict(set), {}
    for result in evidence.found.values():
        for line in result.lines:
            pair = frozenset((line.group.identities, line.reference.identities))
            shown[pair, line.task].add((line.family, line.p_holm))
            told[line.group.label, line.reference.label, line.task] = line
    assert sum(len(result.lines) for result in evidence.found.values()) > len(shown)
    assert all(len(lines) == 1 for lines in shown.values())
    assert {family for ((family, _),) in shown.values()} >= {"mtl_stl", "compare_with", "first"}
    both = [
        (told[key], it)
        for name, row in evidence.networks.items()
        for _, it in row.comparisons
        if isinstance(it, TaskComparison) and (key := (name, it.reference.label, it.task)) in told
    ]
    assert len(both) > 10
    for line, result in both:
        assert result.family == line.family
        assert result.p_holm == pytest.approx(line.p_holm)


def test_matrices_are_means_over_seeds(drawn_runs: RunBuilder) -> None:
    fill(drawn_runs, QUICK[:1], seeds=(0, 1), n=1_600)
    evidence, records = evidence_of(drawn_runs), drawn_runs.records()
    (section,) = network_sections(evidence)
    tests = [read_predictions(it.predictions_path).query("part == 'test'") for it in records]
    matrix = next(m for m in section["matrices"] if m.title.startswith("Gender: confusion"))
    men = [test[test["gender"] == 0]["gender_pred"] for test in tests]
    shares = [np.mean([(one == said).sum() for one in men]) / len(men[0]) for said in (0, 1)]
    name, *cells = matrix.rows[0].cells
    assert name.text == f"male ({len(men[0])})"
    assert [cell.text for cell in cells] == [f"{100 * share:.0f}" for share in shares]


def test_the_panels_of_a_figure_share_a_scale_and_say_their_numbers() -> None:
    ranges, limits = [(0.6, 0.7), (0.96, 1.0)], [(0.594, 0.706), (0.898, 1.01)]
    marks = [Mark('deep − "<b>&', (low + high) / 2, low, high) for low, high in ranges]
    panels = (StudyPanel(task, task, (it,)) for task, it in zip(TASKS, marks, strict=False))
    figure = StudyFigure("", "LEAKY · scores", "", tuple(panels))
    for found, ends in zip(figures.common_limits(figure), limits, strict=True):
        assert found == pytest.approx(ends), "one width, and no higher than just above 1"
    made, again = (figures.intervals_figure("name", figure).panels for _ in range(2))
    assert made == again
    assert "var(--ink)" in made[0]
    assert INK not in made[0]
    assert all(name.startswith("name-0-") for name in re.findall(r'\bid="([^"]+)"', made[0]))
    assert 'id="name-0-' in made[0]
    assert "65.0, 60.0 to 70.0" in made[0]
    assert all("<b>" not in panel and "&lt;b&gt;" in panel for panel in made)


@pytest.mark.slow
def test_every_link_of_leaderboard_and_report_leads_to_a_file_or_a_place_of_the_page(
    tmp_path: Path,
) -> None:
    shutil.copytree(ROOT / "tests/golden/work", tmp_path / "mlruns" / "work")
    (tmp_path / "data").mkdir()
    places = ["--runs-dir", str(tmp_path / "mlruns"), "--data-dir", str(tmp_path / "data")]
    n_files = 0
    for command in ("leaderboard", "report"):
        result = CliRunner().invoke(app, [command, *places])
        assert result.exit_code == 0, result.output
        (page,) = (tmp_path / "mlruns" / f"{command}s").glob("*.html")
        text = page.read_text(encoding="utf-8")
        ids = set(re.findall(r'\bid="([^"]+)"', text))
        for href in map(unescape, re.findall(r'href="([^"]+)"', text)):
            if href.startswith("#"):
                assert href == "#" or href[1:] in ids, f"{page.name}: {href}"
            elif not href.startswith(("data:", "http://", "https://")):
                assert (page.parent / unquote(href)).exists(), f"{page.name}: {href}"
                n_files += 1
    assert n_files > 10


def test_an_experiment_of_two_trainers_is_one_network(tmp_path: Path) -> None:
    class Newer(RunBuilder):
        def begun(self, experiment: Experiment, **about: Any) -> RunRecord:
            return super().begun(experiment, **about, trainer_version=2)

    runs, names = builder(tmp_path / "mlruns"), ("mtl-cnn-none-full", "mtl-cnn-none-full-gate")
    for made in (runs, Newer(runs.runs_dir, runs.dataset)):
        fill(made, names, n=200)
    evidence = evidence_of(runs)
    assert sorted(row.name for row in evidence.ranked["mtl"]) == sorted(names)
    found = evidence.found["first"]
    assert ([line.task for line in found.lines], found.gaps) == ([*TASKS], [])
