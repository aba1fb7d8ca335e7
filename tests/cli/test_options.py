"""What a person types after --set, --sweep, --seeds and --folds, and what the shell completes."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmark import registry
from benchmark.cli.main import app
from benchmark.cli.options import parse_folds, parse_seeds, parse_settings, parse_sweeps
from benchmark.errors import ExperimentError
from benchmark.files import write_json
from benchmark.registry import named
from tests.cli.conftest import MTL


def test_values_are_json_where_they_can_be_and_a_sweep_is_every_combination() -> None:
    texts = ["recipe.max_epochs=3", "recipe.learning_rate=1e-4", "backbone.trainable_stages=all"]
    assert list(parse_settings(texts).values()) == [3, 1e-4, "all"]
    with pytest.raises(ExperimentError, match="--set '=3' has no value"):
        parse_settings(["=3"])
    texts = ["recipe.learning_rate=1e-4,1e-3", "head.conditioning=none,gate"]
    assert parse_sweeps(texts, {"recipe.max_epochs": 3}) == [
        {"recipe.max_epochs": 3, "recipe.learning_rate": rate, "head.conditioning": kind}
        for rate in (1e-4, 1e-3)
        for kind in ("none", "gate")
    ]
    assert parse_sweeps([], {"a.b": 1}) == [{"a.b": 1}]
    lists = parse_sweeps(['head.tasks=["race"],["race","gender"]'], {})
    assert [combination["head.tasks"] for combination in lists] == [["race"], ["race", "gender"]]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["recipe.learning_rate"], "--sweep 'recipe.learning_rate' has no value"),
        (["=3"], "FIELD=VALUE"),
        (["recipe.max_epochs="], "FIELD=VALUE"),
        (["a.b=1,2", "a.b=3"], "--sweep gives 'a.b' twice"),
        (["a.b=1,2,1"], "--sweep 'a.b' is '1,2,1' .allowed: different values"),
        (["a.b=none,,gate"], "--sweep 'a.b' is 'none,,gate'"),
        (["c.d=1,2"], "--sweep and --set both give 'c.d'"),
    ],
)
def test_a_sweep_that_means_nothing_is_refused(wrong: list[str], said: str) -> None:
    with pytest.raises(ExperimentError, match=said):
        parse_sweeps(wrong, {"c.d": 1})


def test_seeds_and_folds_are_read_in_order() -> None:
    assert parse_seeds("2,0,1") == (2, 0, 1)
    assert parse_folds("0-4") == (0, 1, 2, 3, 4)
    assert parse_folds("3,0-1") == (3, 0, 1)
    for text in ("", "a", "1,1", "-1", "1.5", "0;1"):
        with pytest.raises(ExperimentError, match="different whole numbers"):
            parse_seeds(text)
    for text in ("", "5", "0-5", "4-3", "1,1", "0-2,1", "a", "-1"):
        with pytest.raises(ExperimentError, match="--folds is"):
            parse_folds(text)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("lea", ["leaderboard", "leak"]),
        *((f"{command} {MTL[:-3]}", [MTL]) for command in ("show", "run", "card", "tune")),
        (f"run {MTL}-t", [f"{MTL}-tuned"]),
        ("run --suite qui", ["quick"]),
        ("compare qui", ["quick"]),
        ("tune grid-mtl-vgg16-f", ["grid-mtl-vgg16-frozen"]),
        ("weights list --architecture vgg1", ["vgg16", "vgg19"]),
        ("run --dataset m", ["mine-100"]),
        ("run --dataset d", ["drawn"]),
        ("card 0123", ["0123456789ab"]),
    ],
)  # fmt: skip
def test_names_that_are_here_are_completed(
    line: str, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = registry.experiment(MTL)
    recipe = {"schema": 1, "base": base.name, "tuned": named(base, base, "tuned").as_dict()}
    write_json(tmp_path / "mlruns/tuned/recipe.json", recipe)
    for path in ("data/mine-100/manifest.json", "mlruns/work/0123456789abcdef/experiment.json"):
        write_json(tmp_path / path, {})
    monkeypatch.chdir(tmp_path)
    # As bash asks.
    env = {"_FACEBENCH_COMPLETE": "complete_bash", "COMP_WORDS": f"facebench {line}"}
    env["COMP_CWORD"] = str(env["COMP_WORDS"].count(" "))
    answer = CliRunner().invoke(app, [], prog_name="facebench", env=env).stdout.split()
    assert answer[: len(found)] == found
    assert all(name.startswith(line.split()[-1]) for name in answer)
