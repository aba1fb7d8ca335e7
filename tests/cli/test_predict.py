"""`facebench predict` and `export` as a person and as a machine use them."""

import dataclasses
import io
import json
import os
from pathlib import Path

import pandas as pd
import pytest

from benchmark import registry
from benchmark.experiment.definition import Experiment
from benchmark.record import all_records
from tests.cli.conftest import answered_json, check_kept, facebench, fits, flat, outcome
from tests.data.detectors import WHITE, scene
from tests.data.sources import encoded, folder_of, picture

Arguments = tuple[object, ...]


@pytest.fixture
def run(trained_runs_dir: Path) -> Arguments:
    """The options that name the run."""
    return ("--run", "mtl-cnn-none-full-tiny", "--runs-dir", trained_runs_dir)


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "faces", {f"{n}.png": encoded(picture(n), "PNG") for n in range(3)})


def test_a_table_says_what_labels_are_and_csv_and_json_have_all_digits(
    faces: Path, run: Arguments, tmp_path: Path
) -> None:
    code, stdout, stderr = outcome("predict", faces, *run)
    assert (code, stderr, fits(stdout)) == (0, "", True)
    for said in ("age group", "3 faces, probabilities as the network gave them", "perceived"):
        assert said in flat(stdout)
    code, stdout, stderr = outcome("predict", faces, *run, "--csv")
    printed = pd.read_csv(io.StringIO(stdout))
    assert (code, stderr, len(printed)) == (0, "", 3)
    (faces / "bad.png").write_bytes(b"x")
    (faces / "notes.txt").write_text("hello")
    (faces / "album").symlink_to(folder_of(tmp_path / "album", {"5.jpg": encoded(picture(5))}))
    code, stdout, stderr = outcome("predict", faces, *run, "--json")
    answer = json.loads(stdout)
    assert (code, stderr, answer["ok"]) == (1, "", False)
    rows = {Path(row["file"]).name: row for row in answer["data"]["faces"]}
    assert rows.pop("bad.png")["gender_p0"] is None
    assert sum(rows["0.png"][f"race_p{n}"] for n in range(5)) == pytest.approx(1, abs=1e-5)
    assert printed["race_p0"].tolist() == pytest.approx([row["race_p0"] for row in rows.values()])
    assert answer["errors"][0]["source"].endswith("bad.png")
    for said in ("2 files are no pictures by their names", "album", "notes.txt"):
        assert said in answer["warnings"][0]


def test_an_experiment_that_was_edited_after_its_run_is_said_to_be_so(
    faces: Path, run: Arguments, trained_runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = next(all_records(trained_runs_dir))
    trained = Experiment.from_dict(record.about["experiment"])
    recipe = dataclasses.replace(trained.recipe, learning_rate=0.5)
    reworded = dataclasses.replace(trained, asks="Is it the same in other words?")
    for now, n_said in ((dataclasses.replace(trained, recipe=recipe), 1), (reworded, 0)):
        monkeypatch.setattr(registry, "experiments", lambda now=now: {now.name: now})
        said = flat(facebench("predict", faces, "--run", record.identity, *run[2:]).stderr)
        assert said.count("its definition was edited after 1 run") == n_said
        # By name it is none of the experiment's runs, as in a comparison.
        by_name = facebench("predict", faces, *run)
        assert by_name.exit_code == 2 * n_said
        assert by_name.stderr.count(f"alone (allowed: {record.identity[:12]})") == n_said


def test_faces_are_cropped_and_drawn_where_it_is_asked_for_and_over_no_other_file(
    run: Arguments, tmp_path: Path
) -> None:
    photos = {"a.png": scene((5, 10, 35, 70), (50, 30, 66, 50)), "b.png": scene()}
    folder = folder_of(tmp_path / "in", {k: encoded(v, "PNG") for k, v in photos.items()})
    before = (folder / "a.png").rename(folder / "a.jpg").read_bytes()
    cropping = ("--crop", "--faces", "all", "--detector", WHITE.name, "--draw", folder)
    code, stdout, stderr = outcome("predict", folder, *run, *cropping)
    assert (code, "no face found" in stderr, "#2" in stdout) == (1, True, True)  # b.png shows none
    assert {path.name for path in folder.iterdir()} == {"a.jpg", "b.png", "a (2).jpg"}
    assert (folder / "a.jpg").read_bytes() == before


def test_a_file_name_that_is_not_utf8_does_not_lose_the_other_answers(
    run: Arguments, tmp_path: Path
) -> None:
    odd = os.fsdecode(b"caf\xe9.jpg")
    folder = folder_of(tmp_path / "odd", {odd: encoded(picture(0)), "b.jpg": encoded(picture(1))})
    for options in ((), ("--csv",), ("--json",), ("--draw", tmp_path / "drawn")):
        code, stdout, _ = outcome("predict", folder, *run, *options)
        assert (code, "b.jpg" in stdout, "\\udce9" in stdout) == (0, True, True), options
    assert len(list((tmp_path / "drawn").iterdir())) == 2


def test_export_writes_a_file_and_shows_how_it_compared(
    run: Arguments, drawn_data_dir: Path, tmp_path: Path
) -> None:
    command = ("export", *run, "--to", "safetensors", "--out")
    code, stdout, _ = outcome(*command, tmp_path / "face", "--data-dir", drawn_data_dir)
    assert (code, (tmp_path / "face").is_file()) == (0, True)
    assert all(said in stdout for said in ("validation faces", "64 random pictures"))
    command = (*command, tmp_path / "f", "--data-dir", tmp_path)
    compared = answered_json(*command)["compared"]
    assert max(found["max_difference"] for found in compared) < 1e-5
    assert "random pictures alone" in facebench(*command, "--overwrite").stderr


def test_export_overwrites_no_file_unless_asked_and_an_input_never(
    run: Arguments, trained_runs_dir: Path, tmp_path: Path
) -> None:
    (model,) = trained_runs_dir.glob("work/*/model.safetensors")
    before, command = model.read_bytes(), ("export", *run, "--to", "safetensors", "--out")
    check_kept(tmp_path / "mine", *command, tmp_path / "mine")
    (tmp_path / "link").symlink_to(model)
    for source in (tmp_path / "link", model):
        code, _, stderr = outcome(*command, source, "--overwrite")
        assert (code, "is an input of this command" in stderr) == (2, True)
    assert model.read_bytes() == before
