"""`facebench predict` and `export` as a person and as a machine use them."""

import dataclasses
import io
import json
import os
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from benchmark import registry
from benchmark.cli.main import app
from benchmark.experiment.definition import Experiment
from benchmark.record import all_records
from tests.data.detectors import WHITE, scene
from tests.data.sources import encoded, folder_of, picture

RUN = ("--run", "mtl-cnn-none-full-tiny")
Arguments = tuple[object, ...]


def facebench(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def run(trained_runs_dir: Path) -> Arguments:
    """The options that name the run."""
    return (*RUN, "--runs-dir", trained_runs_dir)


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "faces", {f"{n}.png": encoded(picture(n), "PNG") for n in range(3)})


def test_a_person_is_shown_a_table_that_says_what_labels_are(faces: Path, run: Arguments) -> None:
    code, stdout, stderr = facebench("predict", faces, *run)
    assert (code, stderr) == (0, "")
    assert "age group" in stdout
    assert "3 faces, probabilities as the network gave them" in " ".join(stdout.split())
    assert "perceived" in stdout
    assert max(map(len, stdout.splitlines())) <= 80


def test_a_machine_is_told_everything_in_one_object(faces: Path, run: Arguments) -> None:
    (faces / "bad.png").write_bytes(b"x")
    code, stdout, stderr = facebench("predict", faces, *run, "--json")
    answer = json.loads(stdout)
    assert (code, stderr, answer["ok"], answer["command"]) == (1, "", False, "predict")
    rows = {Path(row["file"]).name: row for row in answer["data"]["faces"]}
    assert rows["bad.png"]["gender_p0"] is None
    assert sum(rows["0.png"][f"race_p{n}"] for n in range(5)) == pytest.approx(1, abs=1e-5)
    assert answer["errors"][0]["source"].endswith("bad.png")


def test_csv_goes_to_the_output_with_all_digits(faces: Path, run: Arguments) -> None:
    code, stdout, stderr = facebench("predict", faces, *run, "--csv")
    printed = pd.read_csv(io.StringIO(stdout))
    assert (code, stderr, len(printed)) == (0, "", 3)
    rows = json.loads(facebench("predict", faces, *run, "--json")[1])["data"]["faces"]
    assert printed["race_p0"].tolist() == pytest.approx([row["race_p0"] for row in rows])


def test_an_experiment_that_was_edited_after_its_run_is_said_to_be_so(
    faces: Path, run: Arguments, trained_runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = next(all_records(trained_runs_dir)).about["experiment"]
    trained = Experiment.from_dict(definition)
    recipe = dataclasses.replace(trained.recipe, learning_rate=0.5)
    reworded = dataclasses.replace(trained, asks="Is it the same in other words?")
    for now, n_said in ((dataclasses.replace(trained, recipe=recipe), 1), (reworded, 0)):
        monkeypatch.setattr(registry, "experiments", lambda now=now: {now.name: now})
        warnings = json.loads(facebench("predict", faces, *run, "--json")[1])["warnings"]
        said = [it for it in warnings if "its definition was edited after 1 run" in it]
        assert len(said) == len(warnings) == n_said


def test_faces_are_cropped_and_drawn_where_it_is_asked_for(run: Arguments, tmp_path: Path) -> None:
    photos = {"a.png": scene((5, 10, 35, 70), (50, 30, 66, 50)), "b.png": scene()}
    folder = folder_of(tmp_path / "in", {k: encoded(v, "PNG") for k, v in photos.items()})
    cropping = ("--crop", "--faces", "all", "--detector", WHITE.name, "--draw", tmp_path / "drawn")
    code, stdout, stderr = facebench("predict", folder, *run, *cropping)
    assert code == 1  # b.png shows no face
    assert "no face found" in stderr
    assert "#2" in stdout
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == ["a.jpg"]


REFUSED: tuple[tuple[str, Arguments], ...] = (
    ("no network is named", ()),
    ("both --run and --checkpoint", (*RUN, "--checkpoint", "x")),
    ("there is no run 'ffffffff'", ("--run", "ffffffff")),
    ("nowhere cannot be read", ("--checkpoint", "nowhere")),
    ("both want the standard output", (*RUN, "--csv", "--json")),
    ("detector 'none' cannot be loaded", (*RUN, "--crop", "--detector", "none")),
    ("device 'tpu' is not on this machine", (*RUN, "--device", "tpu")),
)


def test_what_cannot_be_meant_is_a_usage_error(
    faces: Path, run: Arguments, trained_runs_dir: Path, tmp_path: Path
) -> None:
    for said, options in REFUSED:
        code, stdout, stderr = facebench("predict", faces, *options, "--runs-dir", trained_runs_dir)
        assert code == 2, options
        assert said in stdout + stderr, options
    (tmp_path / "none").mkdir()
    for name, said in (("nosuch.png", "nosuch.png does not exist"), ("none", "holds no pictures")):
        code, _, stderr = facebench("predict", tmp_path / name, *run)
        assert (code, said in stderr) == (2, True)


def test_pictures_are_drawn_over_no_other_file(faces: Path, run: Arguments) -> None:
    before = (faces / "0.png").rename(faces / "0.jpg").read_bytes()
    pictures = (faces / "0.jpg", faces / "1.png")
    _, stdout, _ = facebench("predict", *pictures, *run, "--draw", faces, "--json")
    assert [Path(it).name for it in json.loads(stdout)["data"]["drawn"]] == ["0 (2).jpg", "1.jpg"]
    assert (faces / "0.jpg").read_bytes() == before


def test_every_file_of_a_folder_is_read_or_listed(run: Arguments, tmp_path: Path) -> None:
    files = {f"{n}.{ending}": encoded(picture(n)) for n, ending in enumerate(("jfif", "JPE"))}
    files |= {"2.avif": encoded(picture(2), "AVIF"), "3.jxl": b"\xff\x0a"}
    files |= {"4.heic": b"\0\0\0\x18ftypheic", "notes.txt": b"hello"}
    folder = folder_of(tmp_path / "mixed", files)
    (folder / "album").symlink_to(folder_of(tmp_path / "album", {"5.jpg": encoded(picture(5))}))
    code, stdout, _ = facebench("predict", folder, *run, "--json")
    answer = json.loads(stdout)
    reasons = {Path(row["file"]).name: row["reason"] for row in answer["data"]["faces"]}
    assert code == 1
    assert [name for name, reason in reasons.items() if not reason] == ["0.jfif", "1.JPE", "2.avif"]
    assert "a HEIC file" in reasons["4.heic"]
    assert "not a picture" in reasons["3.jxl"]
    for said in ("2 files are no pictures by their names", "album", "notes.txt"):
        assert said in answer["warnings"][0]


def test_a_file_name_that_is_not_utf8_does_not_lose_the_other_answers(
    run: Arguments, tmp_path: Path
) -> None:
    odd = os.fsdecode(b"caf\xe9.jpg")
    folder = folder_of(tmp_path / "odd", {odd: encoded(picture(0)), "b.jpg": encoded(picture(1))})
    for options in ((), ("--csv",), ("--json",), ("--draw", tmp_path / "drawn")):
        code, stdout, _ = facebench("predict", folder, *run, *options)
        assert (code, "b.jpg" in stdout) == (0, True), options
        assert "\\udce9" in stdout, options
    assert len(list((tmp_path / "drawn").iterdir())) == 2


def test_export_writes_a_file_and_shows_how_it_compared(
    run: Arguments, drawn_data_dir: Path, tmp_path: Path
) -> None:
    command = ("export", *run, "--to", "safetensors", "--data-dir", drawn_data_dir, "--out")
    code, stdout, _ = facebench(*command, tmp_path / "face.safetensors")
    assert (code, (tmp_path / "face.safetensors").is_file()) == (0, True)
    assert "validation faces" in stdout
    assert "64 random pictures" in stdout
    compared = json.loads(facebench(*command, tmp_path / "f", "--json")[1])["data"]["compared"]
    assert max(found["max_difference"] for found in compared) < 1e-5


def test_export_says_where_it_compared_on_noise_alone(run: Arguments, tmp_path: Path) -> None:
    options = ("--to", "safetensors", "--data-dir", tmp_path, "--out", tmp_path / "f")
    code, _, stderr = facebench("export", *run, *options)
    assert (code, "random pictures alone" in stderr) == (0, True)


def test_export_overwrites_no_file_unless_asked_and_an_input_never(
    run: Arguments, trained_runs_dir: Path, tmp_path: Path
) -> None:
    (model,) = trained_runs_dir.glob("work/*/model.safetensors")
    target, link, before = tmp_path / "mine", tmp_path / "link", model.read_bytes()
    command = ("export", *run, "--to", "safetensors", "--out")
    link.symlink_to(model)
    target.write_text("mine")
    code, _, stderr = facebench(*command, target)
    assert (code, "mine exists already" in stderr, target.read_text()) == (2, True, "mine")
    assert facebench(*command, target, "--overwrite")[0] == 0
    assert target.read_bytes() != b"mine"
    for source in (link, model):
        code, _, stderr = facebench(*command, source, "--overwrite")
        assert (code, "is an input of this command" in stderr) == (2, True)
    assert model.read_bytes() == before
