"""`facebench list`: filters, the study's numbers beside ours, and what is missing."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from benchmark import registry
from benchmark.cli.library import gather
from benchmark.cli.main import app
from benchmark.cli.registry import study_table
from benchmark.reporting.tables import terminal
from tests.cli.conftest import flat
from tests.results.conftest import RunBuilder, exact_predictions

if TYPE_CHECKING:
    from benchmark.data.dataset import FaceSet

BLOCK5 = "mtl-vgg16-imagenet-block5"
ALONE = "gender-vgg16-imagenet-full"


def done(runs: RunBuilder, name: str, n_right: int, **about: Any) -> None:
    """Write a finished run that read `n_right` of 100 test faces right."""
    experiment = registry.experiment(name)
    predictions = exact_predictions(50, n_right, tasks=experiment.head.tasks)
    runs.done(experiment, predictions, **about)


def call(runs: RunBuilder, *arguments: str, data_dir: Path | None = None) -> Result:
    data_dir = data_dir or runs.runs_dir.parent / "data"
    folders = ["--runs-dir", str(runs.runs_dir), "--data-dir", str(data_dir)]
    return CliRunner().invoke(app, ["list", *arguments, *folders])


def rows(runs: RunBuilder, *arguments: str) -> dict[str, dict[str, Any]]:
    content = json.loads(call(runs, *arguments, "--json").stdout)
    return {item["name"]: item for item in content["data"]["experiments"]}


def printed(runs: RunBuilder, suite: str, width: int) -> str:
    """Render a suite's table at a width, as the command does."""
    experiments = list(registry.experiments_of(suite))
    ours = gather(experiments, None, runs_dir=runs.runs_dir, data_dir=runs.runs_dir.parent)
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(terminal(study_table(experiments, ours, questions=width > 140), width))
    return capture.get()


def line_of(text: str, name: str) -> list[str]:
    (line,) = [line.split() for line in text.splitlines() if line.split()[1:2] == [name]]
    return line


def test_json_holds_every_field_with_the_studys_numbers_and_ours(runs: RunBuilder) -> None:
    done(runs, BLOCK5, 70)
    done(runs, BLOCK5, 80, seed=1)
    row = rows(runs, "--suite", "study")[BLOCK5]
    study = {"row": "2.2", "age_group": 0.9028, "gender": 0.9758, "race": 0.9253}
    assert row["study"] == study
    # (0.70 + 0.80) / 2
    assert row["ours"]["gender"]["mean"] == pytest.approx(0.75)
    assert (row["ours"]["gender"]["n_seeds"], row["ours"]["gender"]["seeds"]) == (2, [0, 1])
    assert row["recipe"]["learning_rate"] == 1e-4
    assert (row["trainable"], row["architecture"], row["task"]) == ("block5", "vgg16", "mtl")
    shown = rows(runs, "--suite", "study")
    assert len(shown) == 36
    # What does not exist is null.
    assert (shown["mtl-cnn-none-full"]["study"], shown["mtl-cnn-none-full"]["ours"]) == (None, None)
    study = {"row": "5.1b", "age_group": None, "gender": 0.9813, "race": None}
    assert shown[ALONE]["study"] == study


def test_the_table_fits_and_breaks_no_number(runs: RunBuilder) -> None:
    done(runs, BLOCK5, 70)
    for suite, width in (("study", 80), ("study", 200), ("matrix", 80)):
        for text in (printed(runs, suite, width), printed(RunBuilder(Path("none")), suite, width)):
            assert max(len(line.rstrip()) for line in text.splitlines()) <= width
            assert "…" not in text
            for item in registry.experiments_of(suite):
                assert all(piece in text for piece in item.name.split("-"))
                assert item.study is None or item.study.row in text


def test_a_wide_table_has_a_row_on_one_line(runs: RunBuilder) -> None:
    done(runs, BLOCK5, 70)
    text = printed(runs, "study", 200)
    cells = line_of(text, BLOCK5)
    assert cells[:3] == ["2.2", BLOCK5, "1e-4/32"]
    assert cells[3:11] == ["90.28", "(70.0)", "97.58", "(70.0)", "92.53", "(70.0)", "1", "seed"]
    assert cells[-1] == "learns?"
    missing = ["–", "mtl-cnn-none-full", "1e-3/32", *["–", "(–)"] * 3, "not", "run"]
    assert line_of(text, "mtl-cnn-none-full")[:11] == missing


def test_nothing_is_ever_shown_as_zero_for_want_of_a_number(runs: RunBuilder) -> None:
    done(runs, BLOCK5, 0)
    text = printed(runs, "study", 200)
    assert line_of(text, BLOCK5)[4:9:2] == ["(0.0)"] * 3
    assert text.count("(0.0)") == 3


def test_runs_of_the_prepared_data_set_count_and_no_others(
    runs: RunBuilder, drawn_data_dir: Path, drawn_faces: "FaceSet"
) -> None:
    runs.dataset |= {"name": drawn_faces.name, "drawn": True}
    done(runs, BLOCK5, 70)
    runs.dataset |= {
        "pixel_digest": drawn_faces.pixel_digest, "split_digest": drawn_faces.split_digest
    }  # fmt: skip
    done(runs, ALONE, 80)
    arguments = ("--suite", "study", "--dataset", "drawn", "--json")
    answer = json.loads(call(runs, *arguments, data_dir=drawn_data_dir).stdout)["data"]
    ours = {item["name"]: item["ours"] for item in answer["experiments"] if item["ours"]}
    assert list(ours) == [ALONE]
    assert (answer["measured_on"]["dataset"], answer["measured_on"]["drawn"]) == (
        drawn_faces.name, True
    )  # fmt: skip


def test_drawn_faces_are_shown_only_when_asked_for(runs: RunBuilder) -> None:
    runs.dataset |= {"name": "drawn-v9", "drawn": True}
    done(runs, BLOCK5, 70)
    unasked = call(runs, "--suite", "study")
    assert "runs on synthetic faces are not shown; --dataset drawn-v9" in flat(unasked.stderr)
    assert "70.0" not in unasked.stdout
    asked = call(runs, "--suite", "study", "--dataset", "drawn")
    assert "SYNTHETIC FACES and not people" in flat(asked.stdout)
    assert "70.0" in asked.stdout


def test_of_several_data_sets_one_must_be_named(runs: RunBuilder) -> None:
    done(runs, BLOCK5, 70)
    done(RunBuilder(runs.runs_dir, runs.dataset | {"name": "utkface-200"}), BLOCK5, 75, seed=1)
    unasked = call(runs, "--suite", "study")
    assert "runs are on utkface-100, utkface-200; --dataset shows" in flat(unasked.stderr)
    row = rows(runs, "--suite", "study", "--dataset", "utkface-200")[BLOCK5]
    assert row["ours"]["race"]["mean"] == pytest.approx(0.75)


def test_an_unknown_value_is_answered_with_the_known_ones(runs: RunBuilder) -> None:
    done(runs, BLOCK5, 70)
    for option, value, known in (
        ("--dataset", "moon", "utkface-100"),
        ("--architecture", "vgg99", "vgg16, vgg19"),
        ("--weights", "coco", "imagenet, none, vggface"),
        ("--task", "age", "age_group, gender, mtl, race"),
        ("--suite", "studdy", "Did you mean study?"),
    ):
        result = call(runs, option, value)
        assert result.exit_code == 2, option
        assert repr(value) in flat(result.stderr)
        assert known in flat(result.stderr)


def test_filters_narrow_a_suite(runs: RunBuilder) -> None:
    filters = ("--architecture", "vgg16", "--weights", "vggface", "--task", "race")
    assert list(rows(runs, "--suite", "matrix", *filters)) == [
        "race-vgg16-vggface-block5",
        "race-vgg16-vggface-full",
    ]
    assert list(rows(runs, "--suite", "quick", "--architecture", "vgg16")) == []
    assert "No experiment fits" in call(runs, "--suite", "quick", "--weights", "vggface").output


def test_what_a_suite_costs_is_predicted_from_runs_else_from_operations(runs: RunBuilder) -> None:
    assert "PMACs: 0.054. Of one seed" in flat(call(runs, "--suite", "depth").stdout)
    # It took 200 s on 3,200 faces.
    done(runs, "mtl-cnn-none-full-short", 70)
    only = ("--suite", "quick", "--architecture", "cnn", "--task", "mtl")
    assert f"time: {200 / 60 * 19_000 / 3_200:.0f} min" in flat(call(runs, *only).stdout)
    frozen = ("--suite", "quick", "--architecture", "squeezenet1_1")
    assert "predicted from the finished runs here" in flat(call(runs, *frozen).stdout)


def test_the_whole_list_ends_with_the_suites(runs: RunBuilder) -> None:
    output = call(runs).output
    assert set(registry.experiments()) <= set(output.split())
    asks = flat(output)
    for suite in registry.suites().values():
        number = rf"{suite.name} {len(suite.experiments)} \S+ {re.escape(suite.asks)}"
        assert re.search(number, asks), suite.name
