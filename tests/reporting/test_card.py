"""A model card: numbers with intervals for every subgroup, limits and uses; no name breaks it."""

import json
import re
from typing import Any

import pandas as pd
import pytest

from benchmark.errors import RunError
from benchmark.evaluation.artifacts import rescore
from benchmark.evaluation.metrics import errors_in_years
from benchmark.evaluation.predictions import write_predictions
from benchmark.models.weight_manifest import FILES
from benchmark.record import RunRecord
from benchmark.reporting.card import model_card
from tests.made_runs import RunBuilder, an_experiment, made_up_predictions

SKILLS: dict[Any, float] = {"age_group": 1.0, "gender": 1.5, "race": 1.2}


@pytest.fixture
def record(runs: RunBuilder) -> RunRecord:
    """A finished run of an older facebench, without gaps and calibration."""
    return runs.done(an_experiment(), made_up_predictions(SKILLS))


def changed(record: RunRecord, path: str, value: Any) -> RunRecord:
    """Change a value of a JSON file of the run's folder, by file, part and name."""
    file, part, name = path.split(".")
    content = json.loads((record.folder / f"{file}.json").read_text())
    (content[part] if part else content)[name] = value
    (record.folder / f"{file}.json").write_text(json.dumps(content))
    return RunRecord(record.folder)


def row_of(card: str, beginning: str) -> str:
    return next(line for line in card.splitlines() if line.startswith(beginning))


def test_a_subgroup_has_its_faces_and_one_interval_and_few_are_marked(record: RunRecord) -> None:
    groups, card = record.subgroups(), model_card(record)
    female = groups[(groups["task"] == "race") & (groups["group"] == "female")].iloc[0]
    rate, low, high = (100 * float(female[name]) for name in ("accuracy", "low", "high"))
    shown = row_of(card.split("### Race")[1], "| gender | female |")
    assert shown == f"| gender | female | {female['n']} | {rate:.1f} % ({low:.1f}–{high:.1f}) |"
    few = groups[(groups["by"] == "gender_race") & (groups["n"] < 30)].iloc[0]
    assert f"| {few['n']} (few) |" in row_of(card, f"| gender × race | {few['group']} |")
    # Gaps and calibration of an older run are told once they are computed.
    assert card.count("`facebench runs rescore` does it") == 4
    rescore(record)
    card = model_card(RunRecord(record.folder))
    assert "`facebench runs rescore` does it" not in card
    # The lowest subgroup has one interval in words and table.
    part = card.split("### Age group")[1].split("### ")[0]
    said = re.search(r"lowest for \*\*(.*?)\*\* \(n \d+\): (.*?); highest", part)
    assert said is not None
    assert row_of(part, f"| gender × race | {said[1]} |").endswith(f"| {said[2]} |")
    errors = pd.read_csv(record.folder / "subgroup_ece.csv").query("by != 'all'")
    above = (errors["low"] > errors["chance"]).sum()
    assert f"expected if calibrated: {above} of {len(errors)} (all are in" in card


def test_rates_women_and_men_and_age_are_told_once_they_are_computed(record: RunRecord) -> None:
    predictions = made_up_predictions(SKILLS, n=1_200)
    write_predictions(record.predictions_path, predictions)
    (record.folder / "metrics.json").unlink()
    counts = {part: len(faces) for part, faces in predictions.groupby("part")}
    record = changed(record, "experiment.dataset.counts", {"train": 3_200} | counts)
    rescore(record)
    card = model_card(RunRecord(record.folder))
    rates = pd.read_csv(record.folder / "subgroup_rates.csv")
    female = rates[(rates["class"] == "female") & (rates["rate"] == "true positive")].iloc[0]
    shown = row_of(card, "| female | true positive |")
    assert f"| {female['highest_group']} {100 * female['highest']:.1f} % |" in shown
    assert f"| {100 * female['difference']:.1f} (" in shown
    assert row_of(card, "| race | adjusted for age group |")
    gaps = pd.read_csv(record.folder / "gender_gaps.csv")
    assert f"(−{-100 * gaps['low'].min():.1f} to " in card
    assert row_of(card, "| years from an edge |")
    test, means = predictions.query("part == 'test'"), pd.Series([7, 20, 33, 50, 70])
    errors_in_years(test, means).to_csv(record.folder / "age_years.csv", index=False)
    assert row_of(model_card(RunRecord(record.folder)), "| predicted group |")


def test_what_forbids_to_trust_a_number_is_said_first(record: RunRecord) -> None:
    for path, said in (
        ("experiment.dataset.drawn", "> **SYNTHETIC FACES: these are emblems"),
        ("experiment..leaky", "> **LEAKY: test faces were seen in training."),
        ("experiment..ad_hoc", "> **AD HOC: changed on the command line"),
    ):
        assert said in model_card(changed(record, path, True)).split("## ")[0], path
        changed(record, path, False)
    flagged = changed(record, "metrics.metrics.test/age_group/accuracy", 0.95)
    assert "LEAK WARNING" in model_card(flagged).split("## ")[0]


def test_limits_uses_and_licences_are_those_of_the_run(record: RunRecord, runs: RunBuilder) -> None:
    known = next(item for item in FILES if item.architecture == "vgg16")
    weights = {"source": "imagenet", "sha256": "a", "origin": "f.h5"}
    licence = f"`{known.file_name}`, licence: {known.licence}; trained on {known.trained_on}"
    for path, value, said in (
        ("experiment..seed", 0, "perceived age, gender and race"),
        ("experiment..seed", 0, "Deciding anything about a person"),
        ("experiment..seed", 0, "non-commercial research only"),
        ("experiment..seed", 0, "checked by one annotator"),
        ("experiment..weights", weights, "licence: not known to facebench"),
        ("experiment.weights.origin", known.file_name, licence),
        ("experiment.dataset.labels_digest", "a" * 64, "those of the data set's own table"),
    ):
        card = model_card(changed(record, path, value))
        assert said in card
    assert not re.search("UTKFace names no persons|one annotator", card)
    with pytest.raises(RunError, match="hold too little for a card"):
        model_card(changed(record, "experiment..parameters", {}))
    predictions = made_up_predictions(SKILLS)
    card = model_card(runs.done(an_experiment(), predictions.query("part == 'val'"), seed=1))
    assert "It was not evaluated on the test set." in card
    assert "## Subgroups" not in card
