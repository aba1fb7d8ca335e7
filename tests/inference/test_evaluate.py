"""A run on other faces, scored as a run is; and its own numbers, made again from what it kept."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from benchmark.cli.main import app
from benchmark.data.dataset import FaceSet, draw_sample, open_faces
from benchmark.data.prepare import prepare
from benchmark.errors import DataError
from benchmark.evaluation.artifacts import DIGEST, rescore, with_digest
from benchmark.evaluation.metrics import SCORING_VERSION
from benchmark.evaluation.predictions import read_predictions
from benchmark.files import write_json
from benchmark.inference.evaluate import Evaluation, Finding, evaluate, unseen_rows, verify, write
from benchmark.models.weight_formats import header_of
from benchmark.record import RunRecord, work_folder
from benchmark.runs.folder import parts_for
from benchmark.tasks import MISSING, TASKS
from tests.data.fairface import fairface_of
from tests.runs.small import Place

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def record(drawn_faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return Place(drawn_faces, tmp_path_factory.mktemp("runs")).done()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hold `fairface-32`, 150 faces in a table of 157 rows, and `genders` with fewer labels."""
    folder = tmp_path_factory.mktemp("sets")
    source = fairface_of(folder / "fairface", 150)
    labels = pd.concat(pd.read_csv(source / f"fairface_label_{it}.csv") for it in ("train", "val"))
    gone = labels.head(7).assign(file=[f"gone{i}.jpg" for i in range(7)], age="20-29")
    pd.concat([labels, gone]).to_csv(folder / "labels.csv", index=False)
    options = {"layout": "fairface", "labels": [folder / "labels.csv"]}
    prepare(source, folder / "data", image_px=32, **options)  # type: ignore[arg-type]
    labels[["file", "gender"]].to_csv(folder / "genders.csv", index=False)
    prepare(source, folder / "data", image_px=32, name="genders", labels=[folder / "genders.csv"])
    return folder / "data"


@pytest.fixture(scope="module")
def on_fairface(record: RunRecord, data_dir: Path) -> Evaluation:
    faces = open_faces(data_dir / "fairface-32")
    return evaluate(record, faces, CPU, [faces])


def test_on_its_own_data_set_a_run_predicts_what_is_stored(
    record: RunRecord, drawn_faces: FaceSet
) -> None:
    found = evaluate(record, drawn_faces, CPU)
    stored = read_predictions(record.predictions_path)
    stored = stored[stored["part"] == "test"].sort_values("file", ignore_index=True)
    here = found.scores.test.sort_values("file", ignore_index=True)
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
    test = on_fairface.scores.test
    predictions = test.assign(word=test["file"].map(words))
    assert len(races) == predictions["word"].nunique() > 5
    for line in races.to_dict("records"):
        of_word = predictions[predictions["word"] == line["word"]]
        right = (of_word["gender_pred"] == of_word["gender"]).mean()
        assert (line["n"], line["accuracy"]) == (len(of_word), pytest.approx(right))
        assert line["low"] <= line["accuracy"] <= line["high"]
    # A face without an age group has a gender all the same.
    ages = found[(found["column"] == "age") & (found["word"] == "20-29")]
    assert set(ages["task"]) == {"gender", "race"}
    # What is compared as what is said in faces, and not in rows of the table.
    said, all_words = " ".join(on_fairface.notes), on_fairface.faces.words()
    assert re.search("(East Asian, Southeast Asian|Southeast Asian, East Asian) as Asian", said)
    assert "Without a class here, and left out: " in said
    assert all_words is not None
    assert f"20-29 ({(all_words['age'] == '20-29').sum()} faces)" in said
    assert "have no age group: left out of whatever needs it." in said


def test_each_task_is_read_on_the_faces_labelled_with_it_and_kept(
    on_fairface: Evaluation, tmp_path: Path
) -> None:
    found, faces = on_fairface, on_fairface.faces
    n_aged = int((faces.table["age_group"] != MISSING).sum())
    assert 0 < n_aged < 150
    n_faces = {task: found.metrics[f"test/{task}/n_faces"] for task in TASKS}
    assert n_faces == {"age_group": n_aged, "gender": 150, "race": 150}
    folder = write(found, tmp_path)
    assert folder == tmp_path / "evaluations" / found.record.identity[:12] / "fairface-32"
    kept = json.loads((folder / "evaluation.json").read_text())
    assert kept["labels"]["layout"] == "fairface"
    assert kept["by_word"] == json.loads(json.dumps(found.by_word.to_dict("records")))
    assert len(pd.read_csv(folder / "by_word.csv")) == len(found.by_word)
    stored = read_predictions(folder / "predictions.csv")
    right = (stored["race"] == stored["race_pred"]).mean()
    assert kept["metrics"]["test/race/accuracy"] == pytest.approx(right)
    assert (stored["age_group"] == MISSING).sum() == 150 - n_aged


def test_faces_that_the_run_was_trained_on_are_left_out(
    record: RunRecord, drawn_faces: FaceSet, tmp_path: Path
) -> None:
    here = shutil.copytree(drawn_faces.folder, tmp_path / drawn_faces.name)
    sample = draw_sample(open_faces(here), 150, "drawn-150")
    rows, sentence = unseen_rows(record, sample, [drawn_faces])
    assert set(sample.table["part"].iloc[rows]) == {"test"}
    assert "that the run was trained or selected on" in sentence
    with pytest.raises(DataError, match="it must hold faces of its training"):
        unseen_rows(record, sample)


def test_a_task_that_the_data_set_does_not_tell_is_neither_trained_nor_evaluated(
    record: RunRecord, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs_dir = record.folder.parents[1]
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
    assert "genders has no labels of age group, race: not evaluated." in result.stdout
    assert re.search(r"gender +150 ", result.stdout)
    result = CliRunner().invoke(app, [*options, "--dataset", "fairface-32"])
    table = result.stdout.partition("By the race that fairface-32 states")[2]
    assert re.search(r"\n *Latino_Hispanic +\S", table)
    assert re.search(r"gender: worst for \w+ \w+ \([\d.]+ % of \d+\), best for", result.stdout)
    assert sorted(path.name for path in record.folder.iterdir()) == before


@pytest.fixture
def run(record: RunRecord, tmp_path: Path) -> RunRecord:
    return RunRecord(Path(shutil.copytree(record.folder, work_folder(tmp_path) / record.identity)))


def said(record: RunRecord, faces: FaceSet | None = None) -> dict[str, Finding]:
    found = verify(RunRecord(record.folder), [faces] if faces else [])
    return {item.what: item for item in found}


def test_altered_metrics_are_found_even_where_they_cannot_be_computed_again(run: RunRecord) -> None:
    path = run.folder / "metrics.json"
    for name, change, told in (
        ("test/gender/accuracy", 0.01, "test/gender/accuracy"),
        # A last digit that another library may compute otherwise, and what cannot be computed.
        ("test/gender/accuracy", 1e-12, "runs rescore --again"),
        ("cost/seconds", 1.0, "runs rescore --again"),
    ):
        content = json.loads(path.read_text(encoding="utf-8"))
        content["metrics"][name] += change
        write_json(path, content)
        finding = said(run)["metrics"]
        assert finding.verdict == "differs"
        assert told in finding.detail
        rescore(RunRecord(run.folder), again=True)
        assert said(run)["metrics"].verdict == "holds"


def test_numbers_that_came_after_a_run_was_scored_are_not_missed(run: RunRecord) -> None:
    path = run.folder / "metrics.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content[DIGEST]
    kept = {name: it for name, it in content["metrics"].items() if "nll" not in name.split("/")}
    content["metrics"] = kept
    for version, verdict in ((3, "holds"), (SCORING_VERSION, "differs")):
        content["scoring_version"] = version
        write_json(path, with_digest(content))
        finding = said(run)["metrics"]
        assert finding.verdict == verdict
        assert "runs rescore" in finding.detail or verdict == "differs"


def test_what_was_altered_is_found_and_named(run: RunRecord) -> None:
    for file, old, new, told in (
        ("done.json", f'"{DIGEST}"', '"dig"', {"files": "done.json"}),
        ("metrics.json", f'"{DIGEST}"', '"dig"', {"metrics": "runs rescore --again"}),
        ("predictions.csv", "0.2", "0.3", {"files": "predic", "metrics": "after they were scored"}),
        ("experiment.json", "0.001", "0.002", {"files": "experi", "definition": "its folder is"}),
        ("experiment.json", '"experiment"', '"exp"', {"definition": "hold too little"}),
    ):
        path = run.folder / file
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        found = said(run)
        for what, sentence in told.items():
            assert found[what].verdict == "differs", (file, what)
            assert sentence in found[what].detail
        path.write_text(text, encoding="utf-8")


def test_other_weights_say_other_things_and_none_are_no_damage(
    run: RunRecord, drawn_faces: FaceSet
) -> None:
    assert said(run)["predictions"].verdict == "not checked"  # without the faces
    path = run.folder / "model.safetensors"
    header, tensors = header_of(path), load_file(path)
    name = next(name for name in tensors if name.endswith("weight"))
    save_file(tensors | {name: tensors[name] * 1.5}, path, metadata=header)
    found = said(run, drawn_faces)
    assert found["predictions"].verdict == "differs"
    assert "model.safetensors" in found["files"].detail
    path.unlink()
    found = said(run, drawn_faces)
    assert (found["files"].verdict, found["predictions"].verdict) == ("holds", "not checked")


def test_the_command_says_what_differs_and_exits_1(run: RunRecord, drawn_data_dir: Path) -> None:
    where = ["--runs-dir", str(run.folder.parents[1]), "--data-dir", str(drawn_data_dir)]
    fine = CliRunner().invoke(app, ["verify", run.identity[:12], "--json", *where])
    assert fine.exit_code == 0, fine.output
    assert json.loads(fine.stdout)["data"]["runs"][0]["holds"]
    (run.folder / "history.csv").write_text("epoch\n1\n", encoding="utf-8")
    found = CliRunner().invoke(app, ["verify", *where])
    assert found.exit_code == 1
    assert "history.csv" in found.stdout
    assert "0 of 1 runs hold" in found.stdout


def test_a_run_on_a_label_table_holds_to_the_last_bit(data_dir: Path, tmp_path: Path) -> None:
    faces = open_faces(data_dir / "fairface-32")
    record = Place(faces, tmp_path).done()
    assert record.about["dataset"]["labels_digest"] == faces.labels_digest is not None
    found = said(record, faces)
    checks = ("files", "definition", "metrics", "predictions")
    assert {name: it.verdict for name, it in found.items()} == dict.fromkeys(checks, "holds")
    assert "bit for bit" in found["predictions"].detail
