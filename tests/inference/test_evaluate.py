"""A trained run on other faces: scored as a run is, on what is labelled and was not seen."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from benchmark.cli.main import app
from benchmark.data.dataset import FaceSet, draw_sample, open_faces
from benchmark.data.prepare import prepare
from benchmark.errors import DataError
from benchmark.evaluation.predictions import read_predictions
from benchmark.inference.evaluate import Evaluation, evaluate, unseen_rows, write
from benchmark.record import RunRecord
from benchmark.runs.folder import parts_for
from benchmark.tasks import MISSING
from tests.data.fairface import fairface_of
from tests.runs.small import Place

CPU = torch.device("cpu")


def labels_in(source: Path) -> pd.DataFrame:
    """FairFace's two tables as one."""
    return pd.concat(pd.read_csv(source / f"fairface_label_{it}.csv") for it in ("train", "val"))


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def record(drawn_faces: FaceSet, runs_dir: Path) -> RunRecord:
    return Place(drawn_faces, runs_dir).done()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hold `fairface-32`, 150 synthetic faces in FairFace's layout, and `genders`: fewer labels."""
    folder = tmp_path_factory.mktemp("sets")
    source = fairface_of(folder / "fairface", 150)
    prepare(source, folder / "data", image_px=32, layout="fairface")
    labels_in(source)[["file", "gender"]].to_csv(folder / "genders.csv", index=False)
    prepare(source, folder / "data", image_px=32, name="genders", labels=[folder / "genders.csv"])
    return folder / "data"


@pytest.fixture(scope="module")
def on_fairface(record: RunRecord, data_dir: Path) -> Evaluation:
    faces = open_faces(data_dir / "fairface-32")
    return evaluate(record, faces, CPU, lambda: [faces])


def test_on_its_own_data_set_a_run_predicts_what_is_stored(
    record: RunRecord, drawn_faces: FaceSet
) -> None:
    told: list[tuple[int, int]] = []
    found = evaluate(record, drawn_faces, CPU, on_faces=lambda *counts: told.append(counts))
    stored = read_predictions(record.predictions_path)
    stored = stored[stored["part"] == "test"].sort_values("file", ignore_index=True)
    assert told[-1] == (len(stored), len(stored))
    (group,) = found.groups
    here = group.predictions.sort_values("file", ignore_index=True)
    pd.testing.assert_frame_equal(here, stored, rtol=0, atol=1e-6)
    of_test = {name for name in record.metrics if name.startswith("test/")}
    assert of_test <= found.metrics.keys()
    for name in ("test/combined", "test/race/accuracy", "test/gender/accuracy/low"):
        assert found.metrics[name] == pytest.approx(record.metrics[name])
    assert found.by_word.empty, "a data set without words of its own has no groups by them"


def test_every_task_is_scored_by_the_data_sets_own_words(
    on_fairface: Evaluation, data_dir: Path, tmp_path: Path
) -> None:
    found = on_fairface.by_word
    # FairFace's seven races are five classes here, and four of its nine ages are none.
    assert set(found["column"]) == {"age", "race"}
    races = found[(found["column"] == "race") & (found["task"] == "gender")]
    words = pd.read_csv(data_dir / "fairface-32" / "words.csv").set_index("file")["race"]
    group = next(group for group in on_fairface.groups if "gender" in group.tasks)
    predictions = group.predictions.assign(word=group.predictions["file"].map(words))
    assert len(races) == predictions["word"].nunique() > 5
    for line in races.to_dict("records"):
        of_word = predictions[predictions["word"] == line["word"]]
        right = (of_word["gender_pred"] == of_word["gender"]).mean()
        assert (line["n"], line["accuracy"]) == (len(of_word), pytest.approx(right))
        assert line["low"] <= line["accuracy"] <= line["high"]
    # A face without an age group has a gender all the same.
    ages = found[(found["column"] == "age") & (found["word"] == "20-29")]
    assert set(ages["task"]) == {"gender", "race"}


def test_each_task_is_read_on_the_faces_labelled_with_it_and_kept(
    on_fairface: Evaluation, tmp_path: Path
) -> None:
    found, faces = on_fairface, on_fairface.faces
    n_aged = int((faces.table["age_group"] != MISSING).sum())
    assert 0 < n_aged < 150
    assert {group.tasks: len(group.predictions) for group in found.groups} == {
        ("age_group",): n_aged, ("gender", "race"): 150,
    }  # fmt: skip
    assert found.metrics["test/age_group/n_faces"] == n_aged
    assert "test/combined" not in found.metrics
    folder = write(found, tmp_path)
    assert folder == tmp_path / "evaluations" / found.record.identity[:12] / "fairface-32"
    kept = json.loads((folder / "evaluation.json").read_text())
    assert kept["labels"]["layout"] == "fairface"
    assert kept["by_word"] == json.loads(json.dumps(found.by_word.to_dict("records")))
    assert len(pd.read_csv(folder / "by_word.csv")) == len(found.by_word)
    stored = read_predictions(folder / "gender-race" / "predictions.csv")
    right = (stored["race"] == stored["race_pred"]).mean()
    assert kept["metrics"]["test/race/accuracy"] == pytest.approx(right)
    assert (stored["age_group"] == MISSING).sum() == 150 - n_aged


def test_what_is_compared_as_what_is_said_in_faces_and_not_in_rows_of_the_table(
    record: RunRecord, tmp_path: Path
) -> None:
    source = fairface_of(tmp_path / "fairface", 60)
    labels = labels_in(source)
    n_faces = int((labels["age"] == "20-29").sum())
    gone = labels.head(7).assign(file=[f"gone{i}.jpg" for i in range(7)], age="20-29")
    pd.concat([labels, gone]).to_csv(tmp_path / "labels.csv", index=False)
    options = {"layout": "fairface", "labels": [tmp_path / "labels.csv"], "image_px": 32}
    faces = prepare(source, tmp_path / "data", **options).faces  # type: ignore[arg-type]
    said = " ".join(evaluate(record, faces, CPU, lambda: [faces]).notes)
    assert re.search("(East Asian, Southeast Asian|Southeast Asian, East Asian) as Asian", said)
    assert "Without a class here, and left out: " in said
    assert f"20-29 ({n_faces} faces)" in said
    assert "have no age group: left out of whatever needs it." in said


def test_faces_that_the_run_was_trained_on_are_left_out(
    record: RunRecord, drawn_faces: FaceSet, tmp_path: Path
) -> None:
    here = shutil.copytree(drawn_faces.folder, tmp_path / drawn_faces.name)
    sample = draw_sample(open_faces(here), 150, "drawn-150")
    rows, sentence = unseen_rows(record, sample, lambda: [drawn_faces])
    assert set(sample.table["part"].iloc[rows]) == {"test"}
    assert "that the run was trained or selected on" in sentence
    with pytest.raises(DataError, match="it must hold faces of its training"):
        unseen_rows(record, sample)


def test_a_task_that_the_data_set_does_not_tell_is_neither_trained_nor_evaluated(
    record: RunRecord, data_dir: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"labelled with age group, race .*experiments of gender"):
        parts_for(Place(open_faces(data_dir / "genders"), runs_dir).plan())
    monkeypatch.setenv("COLUMNS", "80")
    where = ["--data-dir", str(data_dir), "--runs-dir", str(runs_dir), "--device", "cpu"]
    before = sorted(path.name for path in record.folder.iterdir())
    options = ["evaluate", "--run", record.identity[:12], *where]
    result = CliRunner().invoke(app, [*options, "--dataset", "genders"])
    assert result.exit_code == 0, result.stderr
    kept = runs_dir / "evaluations" / record.identity[:12] / "genders"
    metrics = json.loads((kept / "evaluation.json").read_text())["metrics"]
    parts = {name.split("/")[1] for name in metrics}
    assert parts == {"gender", "combined", "n_faces", "n_clusters"}
    assert "genders does not tell age group, race: not evaluated." in result.stdout
    assert re.search(r"gender +150 ", result.stdout)
    result = CliRunner().invoke(app, [*options, "--dataset", "fairface-32"])
    table = result.stdout.partition("By the race that fairface-32 states")[2]
    assert re.search(r"\n *Latino_Hispanic +\S", table)
    assert re.search(r"gender: worst for \w+ \w+ \([\d.]+ % of \d+\), best for", result.stdout)
    result = CliRunner().invoke(app, [*options, "--dataset", "nowhere", "--json"])
    assert result.exit_code == 2
    assert "fairface-32, genders, drawn" in json.loads(result.stdout)["errors"][0]["allowed"]
    assert sorted(path.name for path in record.folder.iterdir()) == before
