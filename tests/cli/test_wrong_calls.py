"""Every wrong turn is one sentence and exit code 2, and leaves everything as it is."""

import socket
from pathlib import Path

import pytest

from benchmark import registry
from tests.cli.conftest import GENDER, MTL, RACE, facebench, flat, one_run, outcome
from tests.data.sources import encoded, folder_of, picture
from tests.made_runs import RunBuilder

TINY = "--run mtl-cnn-none-full-tiny --runs-dir {trained}"
FILES = "--tracking files --dataset drawn"
WRONG = (
    ("leaderbord", "leaderboard"),
    ("list --suite studdy", "Did you mean study?"),
    ("list --weights vgface", "--weights is 'vgface' (allowed: imagenet, none, vggface)"),
    ("run", "nothing to run was named"),
    ("run mtl-cnn-none-ful-short", f"Did you mean {MTL}"),
    ("run --suite quick --set recipe.epochs=3", "unknown setting 'recipe.epochs'"),
    ("run --suite quick --set recipe.max_epochs=many", "is 'many'"),
    ("run --suite quick --device tpu", "device 'tpu' is not on this machine"),
    ("run --suite quick --tracking fils", "--tracking is 'fils' (allowed: mlflow, files)"),
    ("run --suite quick --dataset nobody", "no data set 'nobody' is prepared"),
    (f"run {MTL} --sweep head.hidden_units=0,8", "hidden_units"),
    ("tune", "nothing to tune was named"),
    ("tune grid-nobody", "unknown grid 'grid-nobody'"),
    ("tune --suite tuned", "nothing has been tuned here"),
    (f"tune {GENDER} --row 32", "--row is of grids"),
    (f"tune {GENDER} {FILES} --seeds 999,1000", "--seeds is 999,1000"),
    (f"tune {GENDER} {FILES} --sampler magic", "--sampler is 'magic'"),
    (f"tune {GENDER} {FILES} --pruner axe", "--pruner is 'axe'"),
    (f"tune {GENDER} {FILES} --only depth", "backbone.trainable_stages is not searched here"),
    (f"tune {GENDER} {FILES} --storage here.db", "the study's storage cannot be used"),
    (f"tune grid-mtl-vgg16-block5 {FILES} --row 33", "--row is '33'"),
    ("speed --rows vgg61", "there is no row 'vgg61'"),
    ("speed --against keras", "--against names 'keras'"),
    ("leaderboard --dataset moon", "data set 'moon' (allowed: utkface-100)"),
    ("leaderboard --out {file}", "Check the free space and the right to write there"),
    ("leaderboard --why because", "--why gives a reason for nothing"),
    ("leaderboard --folds", "facebench run NAME --folds 0-4"),
    (f"leaderboard --acknowledge {GENDER} --why because", "raises no red flag"),
    (f"compare {GENDER} --task age", "unknown task 'age' (allowed: age_group, gender, race)"),
    ("report --mlflow-url file:///etc", "is no address"),
    ("report --out page.pdf", "FILE.html or a folder"),
    (f"card {MTL}", f"there is no run '{MTL}'"),
    (f"card {RACE}", "allowed: a finished run"),
    ("data prepare UTKFace.tar.gz", "susanqq.github.io/UTKFace"),
    ("data prepare {file}", "is not an archive"),
    ("data explore --dataset drawn --out {file}/who", "/file/who"),
    ("predict {faces}", "no network is named"),
    (f"predict {{faces}} {TINY} --checkpoint x", "both --run and --checkpoint"),
    ("predict {faces} --checkpoint nowhere", "nowhere cannot be read"),
    (f"predict {{faces}} {TINY} --crop --detector none", "detector 'none' cannot be loaded"),
    (f"predict nosuch.png {TINY}", "nosuch.png does not exist"),
    (f"predict {{empty}} {TINY}", "holds no pictures"),
    (f"predict {{faces}} {TINY} --csv --json", "both want the standard output"),
)


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory, trained_runs_dir: Path) -> dict[str, Path]:
    """Runs of which one is finished and one is not, and files to name."""
    folder = tmp_path_factory.mktemp("wrong")
    runs = RunBuilder(folder / "mlruns")
    one_run(runs, GENDER)
    runs.begun(registry.experiment(RACE))
    (folder / "file").write_text("in the way")
    (folder / "empty").mkdir()
    folder_of(folder / "faces", {"0.png": encoded(picture(0), "PNG")})
    names = {name: folder / name for name in ("mlruns", "file", "empty", "faces")}
    return names | {"trained": trained_runs_dir}


@pytest.mark.parametrize(("line", "said"), WRONG)
def test_a_wrong_call_is_one_sentence_and_exit_code_two(
    line: str, said: str, named: dict[str, Path], drawn_data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder = named["file"].parent
    monkeypatch.chdir(folder)
    monkeypatch.setenv("FACEBENCH_DATA_DIR", str(drawn_data_dir))
    monkeypatch.setenv("FACEBENCH_RUNS_DIR", str(named["mlruns"]))

    def there() -> list[Path]:
        return sorted([*folder.glob("*"), *named["mlruns"].glob("work/**/*")])

    before = there()
    code, stdout, stderr = outcome(*line.format(**named).split())
    assert code == 2, stdout + stderr
    assert said in flat(stdout + stderr)
    assert ("--json" in line) == (stdout != "")
    assert "Traceback" not in stdout + stderr
    assert there() == before


def test_a_busy_port_is_a_sentence_with_the_next_free_one(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        code, _, stderr = outcome("ui", "--port", port, "--runs-dir", tmp_path)
    assert (code, f"port {port} on 127.0.0.1 is in use" in stderr) == (2, True)
    assert "facebench ui --port" in stderr
    assert list(tmp_path.iterdir()) == []


def test_without_a_data_set_or_runs_the_next_commands_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reading = ("run --suite quick", "data audit", "data explore", "tune --suite quick", "speed")
    for command in reading:
        code, _, stderr = outcome(*command.split(), "--data-dir", tmp_path)
        ways = ("facebench data prepare SOURCE", "--dataset drawn")
        assert (code, *(way in stderr for way in ways)) == (2, True, True), command
    for command in ("leaderboard", "report", "runs rescore", "status", "verify"):
        answer = facebench(*command.split())
        assert answer.exit_code == (0 if command == "status" else 2), command
        assert "facebench run --suite quick" in flat(answer.output), command
    assert list(tmp_path.iterdir()) == []


def test_a_mistyped_folder_is_an_error_and_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typo = tmp_path / "daat"
    tune = f"tune {MTL} --dataset faces"
    reading = {"--data-dir": ("data audit", f"run {MTL}", tune, "leaderboard", "compare x")}
    for option, commands in (reading | {"--runs-dir": ("status", "clean")}).items():
        for command in commands:
            code, _, stderr = outcome(*command.split(), option, typo)
            assert (code, "not exist" in stderr, option in stderr) == (2, True, True), command
    monkeypatch.setenv("FACEBENCH_DATA_DIR", str(typo))
    assert "does not exist" in facebench("data", "audit").stderr
    for command in ("run", "tune"):
        # A new folder is made for synthetic faces.
        answer = facebench(command, "nobody", "--dataset", "drawn")
        assert "unknown experiment 'nobody'" in answer.stderr
    assert not typo.exists()
