"""What a run starts from: an earlier run's backbone, and what that run has seen goes with it."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmark.data.dataset import FaceSet, choose_dataset, store_faces
from benchmark.data.drawn import draw_faces
from benchmark.data.splits import Rows
from benchmark.errors import BenchmarkError, RunError, WeightsError, WeightsMissing
from benchmark.evaluation.predictions import read_predictions
from benchmark.experiment.definition import Backbone, Experiment, Protocol
from benchmark.files import write_json
from benchmark.models.network import build_network
from benchmark.models.weights import WeightFile, add_file, load
from benchmark.record import RunRecord, all_records
from benchmark.runs.folder import parts_for, save_weights, store_predictions
from benchmark.tasks import TASKS, TaskName, n_classes
from tests.runs.small import Place, edit_json, settings
from tests.runs.small import an_experiment as small_experiment
from tests.training.small import CPU

PUBLISHED = Protocol(split="published-1")


def an_experiment(weights: str = "none", **changes: Any) -> Experiment:
    name = f"mtl-cnn-{weights.split(':')[0]}-full-tiny"
    fields = {"name": name, "backbone": Backbone("cnn", weights, input_px=32)} | changes
    return replace(small_experiment(max_epochs=1), **fields)


def from_run(record: RunRecord, **changes: object) -> Experiment:
    return an_experiment(f"run:{record.identity[:8]}", **changes)


def weights_of(place: Place, record: RunRecord, **changes: object) -> WeightFile:
    """Plan a run that starts from another one; give what it starts from."""
    weights = place.plan(from_run(record, **changes)).weights
    assert weights is not None
    return weights


def untrained(place: Place, experiment: Experiment) -> RunRecord:
    """Leave what a finished run leaves of its start and its network, without the training."""
    plan = place.plan(experiment)
    network = build_network(experiment, load(plan.weights) if plan.weights else None, 0)
    write_json(plan.folder / "experiment.json", plan.about(CPU, network, {}))
    save_weights(plan.folder / "model.safetensors", network, experiment)
    write_json(plan.folder / "done.json", {"schema": 1})
    return plan.record


@pytest.fixture
def copied(trained_runs_dir: Path, drawn_faces: FaceSet, tmp_path: Path) -> Place:
    """A copy of a runs folder with one finished run of a CNN from nothing."""
    return Place(drawn_faces, Path(shutil.copytree(trained_runs_dir, tmp_path / "runs")))


@pytest.fixture
def earlier(copied: Place) -> RunRecord:
    """The one run in it."""
    (record,) = all_records(copied.runs_dir)
    return record


def retold(record: RunRecord, **protocol: object) -> None:
    """Change the protocol that a run's folder says it had."""
    edit_json(
        record.folder / "experiment.json",
        lambda about: about["experiment"]["protocol"].update(protocol),
    )


def test_a_run_starts_from_the_backbone_of_an_earlier(copied: Place, earlier: RunRecord) -> None:
    weights = weights_of(copied, earlier)
    assert weights.from_run == earlier.identity
    assert weights.origin.startswith(f"run {earlier.identity[:12]} (mtl-cnn-none-full-tiny")
    network = build_network(from_run(earlier), load(weights), seed=5)
    kept = load_file(earlier.folder / "model.safetensors")
    backbone = network.backbone.state_dict()
    assert backbone
    assert all(torch.equal(value, kept[f"trunk.{name}"]) for name, value in backbone.items())
    name, value = next(iter(network.head.state_dict().items()))
    assert not torch.equal(value, kept[f"head.{name}"])


def test_it_is_fed_as_the_earlier_run_was(place: Place) -> None:
    first = untrained(place, an_experiment(protocol=Protocol(input_scaling="unit")))
    assert first.about["leaky"] is False
    assert weights_of(place, first).preprocessing.sentence() == "RGB, 0 to 1"


def test_the_new_run_says_its_origin_and_inherits_leaks(copied: Place, earlier: RunRecord) -> None:
    edit_json(earlier.folder / "experiment.json", lambda about: about.update(leaky=True))
    later = untrained(copied, from_run(earlier))
    said = later.about["weights"]
    assert (said["from_run"], said["source"]) == (earlier.identity, f"run:{earlier.identity[:8]}")
    (seen,) = said["faces_seen"]
    assert seen["pixel_digest"] == copied.faces.pixel_digest
    assert later.about["leaky"] is True
    seen_by = [(seen["run"], seen["leaky"]) for seen in weights_of(copied, later).faces_seen]
    assert seen_by == [(later.identity, True), (earlier.identity, True)]
    leaky = an_experiment(protocol=PUBLISHED)
    assert copied.plan(leaky).about(CPU, build_network(leaky, None, 0), {})["leaky"] is True


def test_the_backbones_content_enters_the_identity(copied: Place, earlier: RunRecord) -> None:
    before, weights = copied.plan(from_run(earlier)), weights_of(copied, earlier)
    model = earlier.folder / "model.safetensors"
    content = bytearray(model.read_bytes())
    # The tensors lie by name: `head.` first, `backbone.` last.
    content[-1] ^= 1
    model.write_bytes(content)
    assert before.identity != copied.plan(from_run(earlier)).identity
    with pytest.raises(WeightsError, match="changed since it was resolved"):
        load(weights)


def test_a_leaky_run_predicts_the_leak_free_test_faces_besides_its_own(place: Place) -> None:
    """So that `facebench leak` scores every model of the chain on the same faces."""
    plan = place.plan(an_experiment(protocol=PUBLISHED))
    parts, table = parts_for(plan), place.faces.table
    assert set(parts.outside) <= set(parts.predicted(reads_test=True))

    def predict(rows: Rows) -> dict[TaskName, np.ndarray[Any, np.dtype[np.float32]]]:
        return {t: np.full((len(rows), n_classes(t)), 1 / n_classes(t), np.float32) for t in TASKS}

    store_predictions(plan, parts, predict, settings(place.runs_dir))
    own, outside = (
        set(read_predictions(path).query("part == 'test'")["file"])
        for path in (plan.record.predictions_path, plan.record.outside_path)
    )
    assert not own & outside
    assert own | outside >= set(table["file"][table["part"] == "test"])
    assert not len(parts_for(place.plan(an_experiment())).outside)


def test_the_same_faces_under_another_split_are_refused(copied: Place, earlier: RunRecord) -> None:
    faces, own = copied.faces, earlier.about["experiment"]["protocol"]
    manifest = faces.manifest | {"pixel_digest": "1" * 64, "split_digest": "2" * 64}
    table = faces.table.assign(part=faces.table["part"].iloc[::-1].to_numpy())
    copy = Place(FaceSet(faces.folder, manifest, table), copied.runs_dir)
    with pytest.raises(WeightsError, match="trained on these faces under another split"):
        copy.plan(from_run(earlier))
    for change in ({"split": "leak-free-0"}, {"fold": 2}):
        retold(earlier, **own | change)
        with pytest.raises(WeightsError, match="trained on these faces under another split"):
            copied.plan(from_run(earlier))
    assert weights_of(copied, earlier, protocol=Protocol(fold=2))
    with pytest.raises(WeightsError, match="fold 2"):
        copied.plan(from_run(earlier, protocol=Protocol(fold=1)))


def test_what_a_run_saw_long_ago_counts(copied: Place, earlier: RunRecord) -> None:
    """Trained on these faces, then on others, then back here under another split."""
    runs_dir = copied.runs_dir
    retold(earlier, fold=3)
    drawn = draw_faces(120, seed=12, image_px=32)
    store_faces(drawn.images, drawn.labels, name="others", drawn=True, data_dir=runs_dir / "data")
    others = Place(choose_dataset(runs_dir / "data", "others"), runs_dir)
    (seen,) = weights_of(others, earlier).faces_seen
    assert seen["pixel_digest"] == copied.faces.pixel_digest
    with pytest.raises(WeightsError, match="fold 3"):
        copied.plan(from_run(untrained(others, from_run(earlier))))


def test_unusable_runs_are_refused(copied: Place, earlier: RunRecord, tmp_path: Path) -> None:
    def refused(error: type[BenchmarkError], said: str) -> None:
        with pytest.raises(error, match=said):
            copied.plan(from_run(earlier))

    model = earlier.folder / "model.safetensors"
    content = model.read_bytes()
    model.write_bytes(content[:-100])
    refused(WeightsError, "is damaged or cut short")
    model.unlink()
    refused(RunError, "kept no weights")
    model.write_bytes(content)
    backbone = Backbone("squeezenet1_1", f"run:{earlier.identity[:8]}", input_px=32)
    with pytest.raises(WeightsError, match="trained cnn, not squeezenet1_1"):
        copied.plan(an_experiment(backbone=backbone, name="mtl-squeezenet1_1-run-full"))
    other = earlier.identity[:8] + "0" * 56
    shutil.copytree(earlier.folder, earlier.folder.with_name(other))
    refused(WeightsError, rf"2 finished runs .*{other[:12]}.*more digits")
    assert copied.plan(an_experiment(f"run:{earlier.identity}")).weights is not None
    # Else a label would be a way round the split.
    with pytest.raises(WeightsError, match="was written by facebench"):
        add_file(model, tmp_path / "store", label="mine")
    (earlier.folder / "done.json").unlink()
    shutil.rmtree(earlier.folder.with_name(other))
    refused(WeightsMissing, "not done but interrupted.*run mtl-cnn-none-full-tiny --seeds 0")
