"""A run's numbers are recomputed from what it kept; whatever was changed is found and named."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from benchmark.cli.main import app
from benchmark.data.dataset import FaceSet
from benchmark.data.prepare import prepare
from benchmark.evaluation.artifacts import DIGEST, rescore, with_digest
from benchmark.evaluation.metrics import SCORING_VERSION
from benchmark.inference.evaluate import Finding, verify
from benchmark.models.weight_formats import header_of
from benchmark.record import RunRecord, work_folder
from tests.data.fairface import fairface_of
from tests.runs.small import Place, edit_json


@pytest.fixture(scope="module")
def whole(drawn_faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return Place(drawn_faces, tmp_path_factory.mktemp("whole")).done()


@pytest.fixture
def run(whole: RunRecord, tmp_path: Path) -> RunRecord:
    """A copy of a finished run, to be damaged."""
    return RunRecord(Path(shutil.copytree(whole.folder, work_folder(tmp_path) / whole.identity)))


HOLDS = dict.fromkeys(("files", "definition", "metrics", "predictions"), "holds")


def said(record: RunRecord, faces: FaceSet | None = None) -> dict[str, Finding]:
    """Verify a run's folder as it is now."""
    found = verify(RunRecord(record.folder), [faces] if faces else [])
    return {item.what: item for item in found}


def test_an_untouched_run_holds_to_the_last_bit(run: RunRecord, drawn_faces: FaceSet) -> None:
    found = said(run, drawn_faces)
    assert {name: item.verdict for name, item in found.items()} == HOLDS
    assert "bit for bit" in found["predictions"].detail


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("test/gender/accuracy", 0.01, "test/gender/accuracy"),
        # A last digit that another library may compute otherwise, and what cannot be computed.
        ("test/gender/accuracy", 1e-12, "runs rescore --again"),
        ("cost/seconds", 1.0, "runs rescore --again"),
    ],
)
def test_altered_metrics_are_found_even_where_they_cannot_be_computed_again(
    run: RunRecord, name: str, change: float, told: str
) -> None:
    def alter(content: dict[str, Any]) -> None:
        content["metrics"][name] += change

    edit_json(run.folder / "metrics.json", alter)
    finding = said(run)["metrics"]
    assert finding.verdict == "differs"
    assert told in finding.detail
    rescore(RunRecord(run.folder), again=True)
    assert said(run)["metrics"].verdict == "holds"


def test_numbers_that_came_after_a_run_was_scored_are_not_missed(run: RunRecord) -> None:
    path = run.folder / "metrics.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content[DIGEST]
    for name in [*content["metrics"]]:
        if {"nll", "brier"} & set(name.split("/")):
            del content["metrics"][name]
    for version, verdict in ((3, "holds"), (SCORING_VERSION, "differs")):
        content["scoring_version"] = version
        path.write_text(json.dumps(with_digest(content)), encoding="utf-8")
        finding = said(run)["metrics"]
        assert finding.verdict == verdict
        assert "runs rescore" in finding.detail or verdict == "differs"


@pytest.mark.parametrize(
    ("file", "old", "new", "what", "told"),
    [
        ("done.json", f'"{DIGEST}"', '"dig"', "files", "done.json"),
        ("metrics.json", f'"{DIGEST}"', '"dig"', "metrics", "runs rescore --again"),
        ("predictions.csv", "0.2", "0.3", "files", "predictions.csv"),
        ("predictions.csv", "0.2", "0.3", "metrics", "other predictions"),
        ("experiment.json", "0.001", "0.002", "definition", "its folder is"),
        ("experiment.json", "0.001", "0.002", "files", "experiment.json"),
        ("experiment.json", '"experiment"', '"exp"', "definition", "hold too little"),
    ],
)
def test_what_was_altered_is_found_and_named(
    run: RunRecord, file: str, old: str, new: str, what: str, told: str
) -> None:
    text = (run.folder / file).read_text(encoding="utf-8")
    assert old in text
    (run.folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    finding = said(run)[what]
    assert finding.verdict == "differs"
    assert told in finding.detail


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


def test_a_run_on_a_label_table_holds(tmp_path: Path) -> None:
    source = fairface_of(tmp_path / "fairface", 150)
    faces = prepare(source, tmp_path / "data", image_px=32, layout="fairface").faces
    record = Place(faces, tmp_path / "runs").done()
    assert faces.labels_digest
    assert record.about["dataset"]["labels_digest"] == faces.labels_digest
    assert {name: item.verdict for name, item in said(record, faces).items()} == HOLDS
