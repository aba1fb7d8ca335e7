"""The leak study: faces by how they were met, and steps as paired changes on common faces."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark import registry
from benchmark.comparison.leak_study import leak_page, leak_study
from benchmark.comparison.library import Library, read_run
from benchmark.errors import RunError
from benchmark.evaluation.predictions import write_predictions
from benchmark.experiment.definition import Experiment
from benchmark.reporting.board_tables import markdown as markdown_board
from benchmark.reporting.figures import study_figure
from benchmark.tasks import MISSING
from benchmark.tracking.notes import run_name
from tests.made_runs import RunBuilder, answered, build, made_up_faces

LABEL = "mtl-cnn-none-full-until99"
SUITE = [item for item in registry.experiments_of("leak") if item.name.startswith(LABEL)]
GROUPS = {item.name.rpartition("-")[2]: item for item in SUITE}
HEADLINE = list(registry.experiments_of("headline"))
N = 100
OWN, LEAK_FREE = made_up_faces(N, seed=2), made_up_faces(N, seed=2)
LEAK_FREE["file"] = [f"free-{name}" for name in LEAK_FREE["file"]]
LEAK_FREE["cluster"] += N
"""The test faces of the leaking split, and those of the leak-free one."""


def a_run(
    runs: RunBuilder, experiment: Experiment, n_right: int, on_leak_free: int = 0, **about: Any
) -> None:
    """Finish a run that predicts its first faces rightly; a leaky one, if `on_leak_free`, so many
    of the leak-free test faces besides."""
    leaky = experiment.protocol.leaky
    faces = OWN if experiment.protocol.split == "published-1" else LEAK_FREE
    table = answered(faces, np.arange(N) < n_right)
    parts = pd.concat([table.head(5).assign(part="val"), table], ignore_index=True)
    record = runs.done(experiment, parts, leaky=leaky, **about)
    if leaky:
        met = np.repeat(["seen", "related", "clean"], [70, 10, 20])
        exposure = pd.DataFrame({"file": faces["file"], "exposure": met})
        exposure.to_csv(record.exposure_path, index=False)
        if on_leak_free:
            free = answered(LEAK_FREE, np.arange(N) < on_leak_free)
            write_predictions(record.outside_path, free)


def studied(runs: RunBuilder, suite: Sequence[Experiment] = SUITE) -> Any:
    read = tuple(read_run(record) for record in runs.records())
    library = Library(read, registry.experiments(), registry.suites())
    return leak_study(library, suite, "utkface-100")


@pytest.fixture
def memorised(runs: RunBuilder) -> RunBuilder:
    """A network that knows what it saw, and half of what it did not."""
    for seed in (0, 1):
        a_run(runs, GROUPS["published"], 90, seed=seed, on_leak_free=86 + seed)
        a_run(runs, GROUPS["duplicates"], 60 + seed, seed=seed)
        a_run(runs, GROUPS["honest"], 50, seed=seed)
    return runs


def test_every_model_is_scored_on_the_faces_it_is_compared_on(memorised: RunBuilder) -> None:
    for seed in (0, 1):
        a_run(memorised, GROUPS["only_batches"], 95, seed=seed)
    (network,) = studied(memorised)["networks"]
    # 70 seen and 10 related faces are right, and the first 10 of the 20 never met
    scores = {item["key"]: (item["n_test"], item["rates"]["race"]["mean"], item["leaky"])
              for item in network["scores"]}  # fmt: skip
    assert scores == {
        "published": (100, pytest.approx(0.9), True),
        "seen": (70, 1.0, True),
        "related": (10, 1.0, True),
        "clean": (20, 0.5, False),
        "common": (100, pytest.approx(0.865), True),
        "duplicates": (100, pytest.approx(0.605), True),
        "honest": (100, 0.5, False),
    }
    steps = {item["key"]: (item["title"], item["changes"].get("race", {}).get("mean"))
             for item in network["steps"]}  # fmt: skip
    assert steps == {
        "common": ("test population", pytest.approx(0.865 - 0.9)),
        "duplicates": ("training set", pytest.approx(0.605 - 0.865)),
        "batches": ("batching", None),  # not run
        "scaling": ("input scaling", None),
        "honest": ("batching, input scaling, selection, together", pytest.approx(0.5 - 0.605)),
    }
    step = network["steps"][1]["changes"]["gender"]
    # 25 or 26 of 100 faces move: at least the binomial spread of their paired difference
    assert step["high"] - step["low"] > 2 * 1.96 * 0.8 * np.sqrt(0.26 * 0.74 / N)
    assert step["over_seeds"]
    (alone,) = network["alone"]
    assert alone["title"] == "batching: drawn anew each epoch"
    assert alone["changes"]["gender"]["mean"] == pytest.approx(0.05), "against the replay"


def test_each_task_is_scored_on_the_faces_that_have_its_label(
    runs: RunBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, faces in (("OWN", OWN), ("LEAK_FREE", LEAK_FREE)):
        partly = faces.assign(gender=faces["gender"].where(faces.index < N - 20, MISSING))
        monkeypatch.setattr(f"{__name__}.{name}", partly)
    for seed in (0, 1):
        a_run(runs, GROUPS["published"], 90, on_leak_free=80, seed=seed)
        a_run(runs, GROUPS["honest"], 50, seed=seed)
    study = studied(runs)
    (network,) = study["networks"]
    rates = {score["key"]: score["rates"] for score in network["scores"]}
    means = {key: rates[key]["gender"]["mean"] for key in ("published", "common", "honest")}
    # Of the first 80 faces all are right, all, and 50; of the 20 never met none has a gender.
    assert means == {"published": 1.0, "common": 1.0, "honest": 50 / 80}
    assert rates["clean"]["gender"] is None
    assert rates["clean"]["race"]["mean"] == rates["honest"]["race"]["mean"] == 0.5
    assert network["steps"][-1]["changes"]["gender"]["mean"] == pytest.approx(50 / 80 - 1)
    assert "50.0 / – / 50.0 % on the 20 test faces never met" in leak_page(study).sentences[0]


def test_models_that_were_tested_on_other_faces_are_two_samples(runs: RunBuilder) -> None:
    a_run(runs, GROUPS["published"], 90)
    a_run(runs, GROUPS["split"], 50)
    study = studied(runs)
    (network,) = study["networks"]
    assert [step["changes"] for step in network["steps"]] == [{}] * 5, "not run"
    change = network["alone"][0]["changes"]["race"]
    assert change["mean"] == pytest.approx(-0.4)
    # unpaired: the variances of both samples add
    half = (change["high"] - change["low"]) / 2
    assert half == pytest.approx(1.98 * np.sqrt((0.9 * 0.1 + 0.5 * 0.5) / N), rel=0.03)
    assert not change["over_seeds"]
    assert leak_page(study).tables[-1].rows[0][0].endswith("(one seed each)")
    a_run(runs, GROUPS["honest"], 50)
    with pytest.raises(RunError, match="no predictions on 100 of the 100 test faces"):
        studied(runs)


def test_one_seed_against_several_compares_the_seed_that_both_have(runs: RunBuilder) -> None:
    for seed in (0, 1):
        a_run(runs, GROUPS["published"], 90, seed=seed, on_leak_free=80 + 10 * seed)
    a_run(runs, GROUPS["honest"], 50, seed=1)
    change = studied(runs)["networks"][0]["steps"][-1]["changes"]["race"]
    assert change["mean"] == pytest.approx(0.5 - 0.9)
    assert not change["over_seeds"]


def test_two_runs_of_the_studys_network_make_the_headline(runs: RunBuilder) -> None:
    a_run(runs, HEADLINE[0], 92, on_leak_free=90)
    a_run(runs, HEADLINE[1], 60)
    study = studied(runs, HEADLINE)
    assert study["missing"] == ["mtl-vgg16-imagenet-full"]
    page = leak_page(study)
    assert [(row[0], row[2].split(" ")[0]) for row in page.tables[0].rows] == [
        ("LEAKY · printed by the study, row 2.2", "90.3"),
        ("LEAKY · our replay, on its own test faces", "92.0"),
        ("LEAKY · of these, met in training", "100.0"),
        ("LEAKY · of these, met in validation or as another picture of the cluster", "100.0"),
        ("of these, never met", "60.0"),
        ("LEAKY · our replay, on the leak-free test faces", "90.0"),
        ("honest: trained, selected and tested without the leak", "60.0"),
    ]
    said, honest = page.sentences
    assert "the study printed 90.3 / 97.6 / 92.5 % for its row 2.2" in said
    assert "60.0 / 60.0 / 60.0 % on the 20 test faces never met" in said
    assert honest.endswith("against the leaky score −32.0 / −32.0 / −32.0 pp.")


def test_what_the_study_printed_stands_beside_its_own_faces_alone(runs: RunBuilder) -> None:
    runs.dataset["labels_digest"] = "ab" * 32  # of a table: other faces than the study's
    a_run(runs, HEADLINE[0], 92, on_leak_free=90)
    assert studied(runs, HEADLINE)["networks"][0]["study"] is None


def test_leaky_stands_on_everything_that_is(memorised: RunBuilder) -> None:
    study = studied(memorised)
    page = leak_page(study)
    assert all(text.startswith("LEAKY · ") for text in (page.title, *(t[0] for t in page.tables)))
    for name, *_ in page.tables[0].rows:
        assert name.startswith("LEAKY · ") == ("never met" not in name and "honest" not in name)
    assert "LEAKY 90.0 / 90.0 / 90.0 %" in page.sentences[0]
    figure = study_figure(page.figures[0], study["dataset"], drawn=study["drawn"])
    assert figure.texts[0].get_text().startswith("LEAKY")
    n_marks = len(study["networks"][0]["scores"])  # each with its label and its value
    assert [len(axes.texts) for axes in figure.axes] == [2 * n_marks] * 3
    leaky = [record for record in memorised.records() if record.about["leaky"]]
    assert all(run_name(record).startswith("LEAKY · ") for record in leaky)
    board = build(memorised.records(), SUITE, "utkface-100")
    for line in markdown_board(board).splitlines():
        assert "until99-published" not in line or "LEAKY" in line or "(not run)" in line


def test_what_does_not_fit_together_is_refused(memorised: RunBuilder) -> None:
    for record in memorised.records():
        if record.exposure_path.exists():
            table = pd.read_csv(record.exposure_path).iloc[1:]
            table.to_csv(record.exposure_path, index=False)
    with pytest.raises(RunError, match="not about its test faces"):
        studied(memorised)
    honest = RunBuilder(memorised.runs_dir / "honest")
    a_run(honest, GROUPS["honest"], 50)
    with pytest.raises(RunError, match="no network was run under the protocol `published`"):
        studied(honest)
