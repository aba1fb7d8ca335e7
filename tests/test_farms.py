"""A farm's runs: like any other run, done once, left alone where others are at them."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.claims import claimed
from benchmark.errors import ExperimentError
from benchmark.experiment import Backbone, Experiment, Head, Recipe
from benchmark.faces.batches import FaceBatches
from benchmark.faces.store import FaceSet
from benchmark.farms import FarmCosts, FarmEvent, Field, Planted, crossed, run_farm
from benchmark.plans import Settings, plan_run
from benchmark.results.predictions import read_predictions
from benchmark.results.record import RunRecord, all_records
from benchmark.runs import Advanced, Failed, Finished, Missing, Skipped, run
from benchmark.training.device import Device

FP32 = Device(torch.device("cpu"), "fp32")


def an_experiment(*, ad_hoc: bool = True, **changes: object) -> Experiment:
    """Ad hoc, since the pictures of a test part take most of a tiny run's time."""
    recipe = {"learning_rate": 1e-3, "max_epochs": 2} | changes
    return Experiment(
        name="mtl-squeezenet1_1-none-frozen-tiny",
        asks="Does the whole way work?",
        backbone=Backbone("squeezenet1_1", trainable_stages=0, input_px=32),
        head=Head(hidden_units=8),
        recipe=Recipe(**recipe),  # type: ignore[arg-type]
        ad_hoc=ad_hoc,
    )


def settings(runs_dir: Path, **changes: object) -> Settings:
    fields = {"runs_dir": runs_dir, "weights_dir": runs_dir / "weights", "device": FP32}
    return Settings(**(fields | {"offline": True} | changes))  # type: ignore[arg-type]


def farm(
    faces: FaceSet, where: Settings, experiments: Iterable[Experiment], *seeds: int
) -> list[FarmEvent]:
    return list(run_farm(Field(tuple(experiments), seeds or (0,), faces), where, FarmCosts()))


def ends(events: Iterable[FarmEvent]) -> list[type]:
    return [type(event) for event in events if isinstance(event, (Finished, Skipped, Failed))]


@pytest.fixture(scope="module")
def grown(drawn_faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of a farm of three heads: one as it is registered, two with other rates."""
    runs_dir = tmp_path_factory.mktemp("grown")
    rates = {"recipe.learning_rate": [1e-3, 3e-3, 1e-2]}
    events = farm(drawn_faces, settings(runs_dir), crossed([an_experiment(ad_hoc=False)], rates))
    assert ends(events) == [Finished] * 3
    return runs_dir


def registered(runs_dir: Path) -> RunRecord:
    (record,) = (record for record in all_records(runs_dir) if not record.about["ad_hoc"])
    return record


def test_a_farmed_run_leaves_what_a_run_leaves_and_the_same_answers(
    drawn_faces: FaceSet, grown: Path, tmp_path: Path
) -> None:
    where = settings(tmp_path)
    plan = plan_run(an_experiment(learning_rate=1e-2), 0, drawn_faces, where)
    on_cpu = FaceBatches.on_device(drawn_faces.pixels(), drawn_faces.table, FP32.torch_device)
    list(run(plan, on_cpu, where))
    (farmed,) = (item for item in all_records(grown) if item.identity == plan.identity)
    assert {path.name for path in farmed.folder.iterdir()} == {
        path.name for path in plan.folder.iterdir()
    }
    assert farmed.history().columns.tolist() == plan.record.history().columns.tolist()
    assert farmed.metrics.keys() == plan.record.metrics.keys()
    mine, theirs = (read_predictions(record.predictions_path) for record in (farmed, plan.record))
    for column in mine.columns:
        if mine[column].dtype == np.float64:
            assert np.allclose(mine[column], theirs[column], atol=1e-5), column
        else:
            assert (mine[column] == theirs[column]).all(), column


def test_the_record_says_that_it_was_trained_in_a_farm(grown: Path) -> None:
    records = list(all_records(grown))
    assert {record.about["ad_hoc"] for record in records} == {True, False}
    for record in records:
        assert record.about["farm"] == {"heads": 3, "at_once": 3}
        # Test faces are read for what is registered, and not for what was changed.
        assert ("test/combined" in record.metrics) is not record.about["ad_hoc"]


def test_what_is_done_is_not_trained_again(drawn_faces: FaceSet, grown: Path) -> None:
    before = (registered(grown).folder / "done.json").stat().st_mtime_ns
    events = farm(drawn_faces, settings(grown), [an_experiment(ad_hoc=False)])
    assert ends(events) == [Skipped]
    assert (registered(grown).folder / "done.json").stat().st_mtime_ns == before


def test_a_head_that_another_process_holds_is_left_out(
    drawn_faces: FaceSet, tmp_path: Path
) -> None:
    where = settings(tmp_path)
    held = plan_run(an_experiment(), 0, drawn_faces, where)
    with claimed(held.folder / "claim"):
        events = farm(drawn_faces, where, [an_experiment()], 0, 1)
    assert ends(events) == [Skipped, Finished]
    assert [len(event.stacks) for event in events if isinstance(event, Planted)] == [1] * 1
    assert held.record.state == "absent"


def test_a_farm_that_is_stopped_marks_what_it_had_begun(
    drawn_faces: FaceSet, tmp_path: Path
) -> None:
    where = settings(tmp_path)
    # The short one is done when the other is stopped.
    field = Field((an_experiment(max_epochs=1), an_experiment(max_epochs=50)), (0,), drawn_faces)
    events = run_farm(field, where, FarmCosts())
    for event in events:
        if isinstance(event, Advanced) and event.step.epoch == 3:
            break
    events.close()
    assert sorted(record.state for record in all_records(tmp_path)) == ["done", "interrupted"]
    assert len(list(tmp_path.glob("work/*/interrupted.json"))) == 1


def test_one_head_that_diverges_does_not_take_the_others_with_it(
    drawn_faces: FaceSet, tmp_path: Path
) -> None:
    both = [an_experiment(learning_rate=1e30, clipping="none"), an_experiment(clipping="none")]
    events = farm(drawn_faces, settings(tmp_path), both)
    assert sorted(kind.__name__ for kind in ends(events)) == ["Failed", "Finished"]
    failed = [record for record in all_records(tmp_path) if record.state == "failed"]
    assert "training loss" in json.loads((failed[0].folder / "failed.json").read_text())["why"]


def test_a_random_trunk_is_of_the_runs_own_seed(drawn_faces: FaceSet, tmp_path: Path) -> None:
    """Two seeds are two trunks, whose features are read apart."""
    events = farm(drawn_faces, settings(tmp_path), [an_experiment()], 0, 1)
    assert [event.n_heads for event in events if isinstance(event, Planted)] == [1, 1]


def test_answers_are_exact_whatever_trained(drawn_faces: FaceSet, tmp_path: Path) -> None:
    """Stored probabilities are those of the stored weights in fp32, also after bf16."""
    where = settings(tmp_path, device=Device(torch.device("cpu"), "bf16"))
    farm(drawn_faces, where, [an_experiment()])
    from safetensors.torch import load_file

    from benchmark.models.network import build_network
    from benchmark.training.probabilities import probabilities

    (record,) = all_records(tmp_path)
    network = build_network(an_experiment(), None, 0)
    network.load_state_dict(load_file(record.folder / "model.safetensors"))
    on_cpu = FaceBatches.on_device(drawn_faces.pixels(), drawn_faces.table, FP32.torch_device)
    rows = np.flatnonzero(drawn_faces.table["part"] == "val")
    exact = probabilities(network, on_cpu, torch.from_numpy(rows))
    stored = read_predictions(record.predictions_path).query("part == 'val'")
    assert np.allclose(stored[["gender_p0", "gender_p1"]], exact["gender"], atol=1e-5)


def test_missing_weights_leave_the_other_heads_alone(drawn_faces: FaceSet, tmp_path: Path) -> None:
    pretrained = replace(
        an_experiment(),
        name="mtl-squeezenet1_1-imagenet-frozen-tiny",
        backbone=Backbone("squeezenet1_1", "imagenet", 0, input_px=32),
    )
    events = farm(drawn_faces, settings(tmp_path), [pretrained, an_experiment()])
    assert isinstance(events[0], Missing)
    assert ends(events) == [Finished]


def test_crossing_gives_every_combination_once_and_keeps_what_is_unchanged() -> None:
    grid = {"recipe.learning_rate": [1e-3, 1e-2], "head.conditioning": ["none", "gate"]}
    found = crossed([an_experiment(ad_hoc=False)] * 2, grid)
    assert len(found) == 4
    assert [item.ad_hoc for item in found] == [False, True, True, True]
    with pytest.raises(ExperimentError, match="trains more than its head: block1"):
        crossed([replace(an_experiment(), backbone=Backbone("cnn"), ad_hoc=True)], grid)


def test_more_heads_than_files_may_be_open_are_refused(
    drawn_faces: FaceSet, tmp_path: Path
) -> None:
    with pytest.raises(ExperimentError, match=r"501 heads \(allowed: up to 500 at a time\)"):
        farm(drawn_faces, settings(tmp_path), [an_experiment()], *range(501))


def test_a_head_whose_folder_cannot_be_made_has_failed_and_the_others_go_on(
    drawn_faces: FaceSet, tmp_path: Path
) -> None:
    where = settings(tmp_path)
    heads = list(crossed([an_experiment()], {"recipe.learning_rate": [1e-3, 3e-3]}))
    folder = plan_run(heads[0], 0, drawn_faces, where).folder
    folder.parent.mkdir()
    folder.write_text("a file, where a folder should be", encoding="utf-8")
    events = farm(drawn_faces, where, heads)
    assert ends(events) == [Failed, Finished]
    (failed,) = (event for event in events if isinstance(event, Failed))
    assert str(folder) in failed.error.found


def test_a_farm_that_fails_leaves_the_traceback_of_what_befell_it(
    drawn_faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_arguments: object, **_named: object) -> None:
        raise MemoryError("as a device says it")

    monkeypatch.setattr("benchmark.farms._Farm.train", no_memory)
    events = farm(drawn_faces, settings(tmp_path), [an_experiment()])
    assert ends(events) == [Failed]
    (path,) = tmp_path.glob("work/*/failed.json")
    failed = json.loads(path.read_text(encoding="utf-8"))
    assert "the device's memory does not suffice" in failed["why"]
    assert "MemoryError: as a device says it" in failed["traceback"]
    assert "in no_memory" in failed["traceback"]
