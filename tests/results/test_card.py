"""A model card: numbers with intervals for every group, limits and uses; no name breaks it."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmark.errors import RunError
from benchmark.evaluation.artifacts import rescore
from benchmark.evaluation.metrics import errors_in_years
from benchmark.evaluation.predictions import write_predictions
from benchmark.record import RunRecord
from benchmark.reporting.card import Origin, model_card
from benchmark.runs.notes import page
from tests.results.conftest import RunBuilder, an_experiment, made_up_predictions

SKILLS: dict[Any, float] = {"age_group": 1.0, "gender": 1.5, "race": 1.2}


@pytest.fixture(scope="module")
def scored_long_ago(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run without gaps and calibration, made once and copied."""
    runs = RunBuilder(tmp_path_factory.mktemp("template"))
    return runs.done(an_experiment(), made_up_predictions(SKILLS)).folder


@pytest.fixture
def record(scored_long_ago: Path, tmp_path: Path) -> RunRecord:
    return RunRecord(shutil.copytree(scored_long_ago, tmp_path / scored_long_ago.name))


def changed(record: RunRecord, path: str, value: Any) -> RunRecord:
    """Change a field of experiment.json by its dotted path."""
    about = json.loads((record.folder / "experiment.json").read_text())
    *parents, last = path.split(".")
    inner = about
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    (record.folder / "experiment.json").write_text(json.dumps(about))
    return RunRecord(record.folder)


def row_of(card: str, beginning: str) -> str:
    return next(line for line in card.splitlines() if line.startswith(beginning))


def test_a_card_has_the_parts_that_a_reader_looks_for(record: RunRecord) -> None:
    headings = [line[3:] for line in model_card(record).splitlines() if line.startswith("## ")]
    assert headings == [
        "What it was trained on", "How well it reads faces", "For whom it fails",
        "What its probabilities are worth", "Intended use", "Not intended", "Limits", "Licences",
        "How it was made",
    ]  # fmt: skip


def test_a_group_is_shown_with_its_faces_and_interval(record: RunRecord) -> None:
    groups = record.subgroups()
    female = groups[(groups["task"] == "race") & (groups["group"] == "female")].iloc[0]
    rate, low, high = (100 * float(female[name]) for name in ("accuracy", "low", "high"))
    shown = row_of(model_card(record).split("### Race")[1], "| gender | female |")
    assert shown == f"| gender | female | {female['n']} | {rate:.1f} % ({low:.1f}–{high:.1f}) |"


def test_the_worst_group_has_one_interval_in_words_and_table(record: RunRecord) -> None:
    rescore(record)
    part = model_card(RunRecord(record.folder)).split("### Age group")[1].split("### ")[0]
    said = re.search(r"worst for \*\*(.*?)\*\* \(n \d+\): (.*?); best", part)
    assert said is not None
    assert row_of(part, f"| gender × race | {said[1]} |").endswith(f"| {said[2]} |")


def test_a_group_of_few_faces_is_marked(record: RunRecord) -> None:
    groups = record.subgroups()
    few = groups[(groups["by"] == "gender_race") & (groups["n"] < 30)].iloc[0]
    shown = row_of(model_card(record), f"| gender × race | {few['group']} |")
    assert f"| {few['n']} (few) |" in shown


def test_gaps_and_calibration_are_told_once_they_are_computed(runs: RunBuilder) -> None:
    predictions = made_up_predictions({"gender": 1.5})
    record = runs.done(an_experiment(tasks=("gender",)), predictions)
    assert "`facebench runs rescore` does it" in model_card(record)
    rescore(record)
    card = model_card(RunRecord(record.folder))
    assert "`facebench runs rescore` does it" not in card
    assert "By race, worst for **" in card
    assert "chance alone makes" in card
    assert row_of(card, "| task | calibration error |")
    stored = json.loads((record.folder / "calibration.json").read_text())["tasks"]["gender"]
    assert f"| {stored['nll']['test']:.3f} | {stored['brier']['test']:.3f} |" in card
    assert "calibration error lies above what chance gives" in card


def test_rates_women_and_men_and_age_are_told_once_they_are_computed(record: RunRecord) -> None:
    predictions = made_up_predictions(SKILLS, n=1_200)
    parts = [(part, faces) for part, faces in predictions.groupby("part")]
    write_predictions(record.predictions_path, predictions)
    (record.folder / "metrics.json").unlink()
    counts = {"train": 3_200} | {part: len(faces) for part, faces in parts}
    record = changed(record, "dataset.counts", counts)
    rescore(record)
    card = model_card(RunRecord(record.folder))
    rates = pd.read_csv(record.folder / "subgroup_rates.csv")
    female = rates[(rates["class"] == "female") & (rates["rate"] == "true positive")].iloc[0]
    shown = row_of(card, "| female | true positive |")
    assert f"| {female['highest_group']} {100 * female['highest']:.1f} % |" in shown
    assert f"| {100 * female['difference']:.1f} (" in shown
    assert row_of(card, "| race | adjusted for age group |")
    gaps = pd.read_csv(record.folder / "gender_gaps.csv")
    assert gaps["low"].min() < 0
    assert f"(−{-100 * gaps['low'].min():.1f} to " in card
    assert "(-" not in card
    assert row_of(card, "| years from an edge |")
    # Without the training faces, whose mean ages they are, there are no errors in years.
    assert "mean absolute error, years" not in card
    table = errors_in_years(predictions[predictions["part"] == "test"], [7, 20, 33, 50, 70])
    table.to_csv(record.folder / "age_years.csv", index=False)
    mean = table.set_index(["read_as", "group"]).loc[("predicted group", "all"), "mae_years"]
    assert f"{mean:.2f} (" in row_of(model_card(RunRecord(record.folder)), "| predicted group |")


def test_limits_and_uses_that_are_not_intended_are_said(record: RunRecord) -> None:
    card = model_card(record)
    assert "perceived age, gender and race" in card
    assert "Deciding anything about a person" in card
    assert "non-commercial research only" in card


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("dataset.drawn", True, "> **DRAWN FACES: these are emblems"),
        ("leaky", True, "> **LEAKY: test faces were seen in training."),
        ("ad_hoc", True, "> **AD HOC: changed on the command line"),
    ],
)
def test_what_forbids_to_trust_a_number_is_said_first(
    path: str, value: bool, said: str, record: RunRecord
) -> None:
    assert said in model_card(changed(record, path, value)).split("## ")[0]


def test_a_red_flag_is_said_first(record: RunRecord) -> None:
    kept = json.loads((record.folder / "metrics.json").read_text())
    kept["metrics"]["test/age_group/accuracy"] = 0.95
    (record.folder / "metrics.json").write_text(json.dumps(kept))
    assert "LEAK WARNING" in model_card(RunRecord(record.folder)).split("## ")[0]


def test_weights_come_with_their_licence(record: RunRecord) -> None:
    record = changed(record, "weights", {"source": "imagenet", "sha256": "a", "origin": "f.h5"})
    assert "licence: not known to facebench" in model_card(record)
    card = model_card(record, Origin("MIT", "1.2 M pictures"))
    assert "`f.h5`, licence: MIT; trained on 1.2 M pictures" in card


def test_a_run_whose_test_faces_were_not_read_says_so(runs: RunBuilder) -> None:
    predictions = made_up_predictions(SKILLS)
    record = runs.done(an_experiment(), predictions[predictions["part"] == "val"])
    card = model_card(record)
    assert "Its test faces were not read." in card
    assert "For whom it fails" not in card


def test_a_run_that_is_not_finished_has_no_card(runs: RunBuilder) -> None:
    with pytest.raises(RunError, match="is failed.*a finished run") as raised:
        model_card(runs.failed(an_experiment(), "no memory"))
    assert raised.value.fix.startswith("`facebench run mtl-cnn-none-full-short --seeds 0`")


def test_files_that_hold_too_little_are_a_sentence(record: RunRecord) -> None:
    about = json.loads((record.folder / "experiment.json").read_text())
    del about["parameters"]
    (record.folder / "experiment.json").write_text(json.dumps(about))
    with pytest.raises(RunError, match="hold too little for a card"):
        model_card(RunRecord(record.folder))


def test_html_and_markdown_in_names_stay_text(record: RunRecord) -> None:
    nasty = "<script>alert(1)</script> | **bold** `code`"
    for path in ("experiment.asks", "dataset.name", "device", "protocol_name", "commit"):
        record = changed(record, path, nasty)
    html = page(model_card(record), nasty)
    assert "<script" not in html
    assert "<strong>bold" not in html
    assert html.count("&lt;script&gt;") >= 6


def test_a_page_needs_nothing_from_elsewhere(record: RunRecord) -> None:
    html = page(model_card(record), "A card")
    assert "src=" not in html
    assert "href=" not in html
    assert "<table>" in html
    assert "color-scheme: light dark" in html
