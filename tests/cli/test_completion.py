"""What the shell completes, and what is meant by a name that was mistyped."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmark import registry
from benchmark.cli.main import app
from benchmark.files import write_json
from benchmark.registry import named


def completed(line: str) -> list[str]:
    """Ask as bash does."""
    env = {"_FACEBENCH_COMPLETE": "complete_bash", "COMP_WORDS": line}
    env["COMP_CWORD"] = str(line.count(" "))
    return CliRunner().invoke(app, [], prog_name="facebench", env=env).stdout.split()


def test_commands_are_completed() -> None:
    assert completed("facebench lea") == ["leaderboard", "leak"]
    assert "prepare" in completed("facebench data pre")


def test_experiments_are_completed() -> None:
    for command in ("show", "run", "card", "compare", "runs rescore", "tune", "evaluate --run"):
        found = completed(f"facebench {command} mtl-cnn-none-full-sh")
        assert found[0] == "mtl-cnn-none-full-short", command
        assert all(name.startswith("mtl-cnn-none-full-sh") for name in found)


def test_tuned_experiments_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = registry.experiment("mtl-cnn-none-full-short")
    recipe = {"schema": 1, "base": base.name, "tuned": named(base, base, "tuned").as_dict()}
    write_json(tmp_path / "mlruns/tuned/recipe.json", recipe)
    monkeypatch.chdir(tmp_path)
    assert completed(f"facebench run {base.name}-t") == [f"{base.name}-tuned"]


def test_suites_are_completed() -> None:
    assert completed("facebench run --suite qui") == ["quick"]
    assert "quick" in completed("facebench compare qui")
    for command in ("leaderboard", "report", "subsets", "leak", "tune"):
        assert completed(f"facebench {command} --suite qui") == ["quick"]


def test_grids_and_architectures_are_completed() -> None:
    assert all(name.startswith("grid-") for name in completed("facebench tune gri"))
    assert completed("facebench weights list --architecture vgg1") == ["vgg16", "vgg19"]


def test_data_sets_and_runs_that_are_here_are_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("data/mine-100/manifest.json", "mlruns/work/0123456789abcdef/experiment.json"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text("{}")
    assert completed("facebench run --dataset m") == ["mine-100"]
    assert completed("facebench run --dataset d") == ["drawn"]
    assert completed("facebench leaderboard --dataset m") == ["mine-100"]
    assert completed("facebench card 0123") == ["0123456789ab"]


def test_a_mistyped_name_is_answered_with_what_was_meant() -> None:
    for line, meant in (
        ("leaderbord", "leaderboard"),
        ("show mtl-cnn-none-full-shrot", "mtl-cnn-none-full-short"),
        ("run --suite quikc", "quick"),
        ("run mtl-cnn-none-full-short --tracking fils", "files"),
        ("list --siute quick", "--suite"),
        ("list --suite studdy", "Did you mean study?"),
    ):
        answer = CliRunner().invoke(app, line.split(" "))
        assert answer.exit_code == 2, line
        assert meant in " ".join(answer.stderr.split())
