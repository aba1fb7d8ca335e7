"""`facebench compare` and `subsets`: what is printed and written, from stored predictions alone."""

import numpy as np
import pytest
from rich.console import Console

from benchmark import registry
from benchmark.cli import compare as compare_module
from benchmark.cli import output
from benchmark.comparison import pairs
from benchmark.comparison.library import Library, read_run
from benchmark.comparison.pairs import Comparison
from benchmark.comparison.wording import points
from tests.cli.conftest import GENDER, MTL, answered_json, facebench, flat, one_run
from tests.comparison.finished_runs import finished
from tests.comparison.test_subset_study import with_validation
from tests.results.conftest import RunBuilder, answered, made_up_faces, made_up_predictions

FROZEN = "mtl-squeezenet1_1-imagenet-frozen-short"
SWAPPED = "mtl-squeezenet1_1-imagenet-frozen-swapped-short"
BASE = "age_group-cnn-none-full-steps"


def test_a_suite_is_answered_in_words(runs: RunBuilder) -> None:
    one_run(runs, MTL, 80)
    one_run(runs, GENDER, 50)
    broken = runs.runs_dir / "work" / ("0" * 64)
    broken.mkdir()
    (broken / "experiment.json").write_text("{")
    result = facebench("compare", "quick")
    assert result.exit_code == 0
    assert "Left out, not readable" in flat(result.stderr)
    said = flat(result.output)
    assert "Does MTL beat STL? Gender: yes, better by 30.0 pp" in said
    assert "One seed on a side speaks of these trainings alone." in said
    missing = "age group (age_group-cnn-none-full-short: not run)"
    assert f"Single-task counterparts missing of {MTL}: {missing}" in said
    one_run(runs, FROZEN)
    data = answered_json("compare", MTL, FROZEN, "--task", "race")
    assert [row["task"] for row in data["tables"][0]["rows"]] == ["race"]


@pytest.fixture(scope="module")
def plausible(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Long names, several seeds and one, a counterpart, a gap, what is missing."""
    runs = RunBuilder(tmp_path_factory.mktemp("runs"))
    for name, skill, seeds in (
        ("mtl-squeezenet1_1-imagenet-fire6_9-short", 3.0, (0, 1)),
        (FROZEN, 1.5, (0, 1)),
        (MTL, 1.6, (0,)),
        (GENDER, 1.6, (0,)),
        (SWAPPED, 1.5, (0,)),
    ):
        experiment = registry.experiment(name)
        for seed in seeds:
            skills = dict.fromkeys(experiment.head.tasks, skill)
            finished(runs, experiment, made_up_predictions(skills, seed=seed), seed=seed)
    read = tuple(read_run(record) for record in runs.records())
    shelf = Library(read, registry.experiments(), registry.suites())
    return pairs.compare(shelf, ["quick", "controls"], all_pairs=True)


@pytest.mark.parametrize("width", [80, 140, 200])
def test_the_tables_fit_and_break_no_number(
    width: int, plausible: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(width=width, color_system=None)
    monkeypatch.setattr(compare_module, "out", console)
    monkeypatch.setattr(output, "out", console)
    with console.capture() as capture:
        compare_module._print(plausible)
    text = capture.get()
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    notes = text.rpartition("\n\n")[2]
    assert notes.count("·") <= 5
    assert f"--json has all {len(plausible.notes) + len(plausible.limits)} notes" in flat(notes)
    for kind, found in plausible.tables.items():
        for line in found.lines:
            assert f"{points(line.difference.high)}" in text
            assert flat(f"against {line.reference.label}") in flat(text) or kind == "twins"
    for _, scores in plausible.groups:
        for score in scores.values():
            assert f"{100 * score.low:.1f}–{100 * score.high:.1f}" in text


def test_subsets_are_compared_in_eighty_columns_and_written(runs: RunBuilder) -> None:
    """The three run groups of women with two seeds: the specialist is right on 60 more."""
    faces = made_up_faces(400, seed=2)
    faces = faces[faces["gender"] == 1].head(150).reset_index(drop=True)
    for ending, n_right in (("women", 120), ("women-everyone", 60), ("women-matched", 118)):
        table = with_validation(answered(faces, np.arange(150) < n_right, ("age_group",)))
        for seed in (0, 1):
            runs.done(registry.experiment(f"{BASE}-{ending}"), table, seed=seed)
    answer = facebench("subsets")
    assert answer.exit_code == 0, answer.output
    assert max(len(line) for line in answer.stdout.splitlines()) <= 80
    said = flat(answer.stdout)
    assert "the specialist is better for women" in said
    assert "shows no significant difference for 1 of 1 subsets" in said
    assert "+40.0" in said
    boards = runs.runs_dir / "leaderboards"
    assert "| women, n 150 | 80.0 ±0.0" in (boards / "subsets-utkface-100.md").read_text()
    assert (boards / "subsets-utkface-100.png").stat().st_size > 10_000
