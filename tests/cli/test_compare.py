"""`facebench compare` and `subsets`: what is printed and written, from stored predictions alone."""

import numpy as np
import pandas as pd

from benchmark import registry
from tests.cli.conftest import GENDER, MTL, answered_json, facebench, fits, flat, one_run, outcome
from tests.made_runs import RunBuilder, answered, made_up_faces


def test_a_suite_is_answered_in_words_and_eighty_columns(runs: RunBuilder) -> None:
    one_run(runs, MTL, 80)
    one_run(runs, GENDER, 50)
    broken = runs.runs_dir / "work" / ("0" * 64)
    broken.mkdir()
    (broken / "experiment.json").write_text("{")
    code, stdout, stderr = outcome("compare", "quick")
    assert (code, fits(stdout), "…" in stdout) == (0, True, False)
    assert "Left out, not readable" in flat(stderr)
    said = flat(stdout)
    assert "Does MTL beat STL? Gender: yes, better by 30.0 pp" in said
    assert "With one seed on a side, the result applies to these training runs only." in said
    missing = "age group (age_group-cnn-none-full-short: not run)"
    assert f"Single-task counterparts of {MTL} that were not run: {missing}" in said
    notes = stdout.rpartition("\n\n")[2]
    assert 0 < notes.count("·") <= 5
    assert "--json has all" in notes
    data = answered_json("compare", MTL, GENDER, "--task", "gender")
    assert [row["task"] for row in data["tables"][0]["rows"]] == ["gender"]


def test_subsets_are_compared_in_eighty_columns_and_written(runs: RunBuilder) -> None:
    """The three run groups of women with two seeds: the specialist is right on 60 more."""
    faces = made_up_faces(400, seed=2)
    faces = faces[faces["gender"] == 1].head(150).reset_index(drop=True)
    for ending, n_right in (("women", 120), ("women-everyone", 60), ("women-matched", 118)):
        table = answered(faces, np.arange(150) < n_right, ("age_group",))
        table = pd.concat([table.head(5).assign(part="val"), table])
        experiment = registry.experiment(f"age_group-cnn-none-full-steps-{ending}")
        for seed in (0, 1):
            runs.done(experiment, table, seed=seed)
    answer = facebench("subsets")
    assert (answer.exit_code, fits(answer.stdout)) == (0, True), answer.output
    said, none = flat(answer.stdout), "shows no significant difference for 1 of 1 subsets"
    assert all(text in said for text in ("the specialist is better for women", none, "+40.0"))
    boards = runs.runs_dir / "leaderboards"
    assert "| women, n 150 | 80.0 ±0.0" in (boards / "subsets-utkface-100.md").read_text()
    assert (boards / "subsets-utkface-100.png").stat().st_size > 10_000
