"""How a run is computed changes neither its identity nor its numbers, and is written down."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from benchmark.data.dataset import FaceSet
from benchmark.errors import RunError
from benchmark.evaluation.predictions import predictions_table, read_predictions, write_predictions
from benchmark.experiment.definition import Augmentation, Backbone, Experiment
from benchmark.inference.load import load_trained
from benchmark.models.network import StandardisedHead, build_network
from benchmark.runs import run as runs
from benchmark.runs.execution import ExecutionOptions
from benchmark.runs.folder import begin, parts_for
from benchmark.runs.plan import Plan, Settings
from benchmark.runs.run import Advanced, Prepared, run
from benchmark.training.device import Device, choose_device
from benchmark.training.predict import ForwardPass, probabilities
from benchmark.training.prefix_cache import CacheSettings
from benchmark.training.trainer import EpochResult
from tests.runs.small import a_plan, on_cpu, settings
from tests.runs.small import an_experiment as full_experiment
from tests.training.small import CPU

BF16 = Device(torch.device("cpu"), "bf16")


def an_experiment(trained: int = 2, **recipe: Any) -> Experiment:
    name = {0: "mtl-cnn-none-frozen-tiny", 2: "mtl-cnn-none-block4-tiny"}[trained]
    backbone = Backbone("cnn", trainable_stages=trained, input_px=32)
    return full_experiment(name, backbone, **recipe)


def options_of(plan: Plan, where: Settings, faces: FaceSet) -> ExecutionOptions:
    """Make the ways of a run that has begun, without training it."""
    network = build_network(plan.experiment, None, plan.seed)
    options = ExecutionOptions(plan, on_cpu(faces), where, network)
    begin(plan, where, network, {}, options.record())
    return options


def test_a_cached_bf16_run_answers_in_fp32_as_pictures_would(
    drawn_faces: FaceSet, tmp_path: Path
) -> None:
    """The frozen part is read twice: in bf16 to train on, in fp32 to answer."""
    experiment = an_experiment(max_epochs=1, augmentation=Augmentation(flip=True))
    where = settings(tmp_path, device=BF16, cache=CacheSettings(tmp_path / "cache"))
    plan = a_plan(drawn_faces, where, experiment)
    assert plan.identity == a_plan(drawn_faces, settings(tmp_path), experiment).identity
    events = list(run(plan, on_cpu(drawn_faces), where))
    assert isinstance(events[1], Prepared)
    assert "all before block4 computed once and cached" in events[1].sentence

    said = plan.record.about["speed"]
    assert (said["cache"]["origin"], said["cache"]["views"]) == ("built", 2)
    assert (said["cache"]["precision"], said["cache"]["equal_to_live"]) == ("bf16", True)
    assert said["cache_of_answers"]["precision"] == "fp32"
    assert said["steps"] == {"graph": False, "compiled": False}

    network = build_network(experiment, None, 0)
    network.load_state_dict(load_file(plan.folder / "model.safetensors"))
    CPU.place(network)
    rows = parts_for(plan).own["val"]
    live = probabilities(network, on_cpu(drawn_faces), torch.from_numpy(rows))
    table = predictions_table(drawn_faces.table.iloc[rows], "val", live)
    stored = read_predictions(plan.record.predictions_path)
    stored = stored[stored["part"] == "val"].reset_index(drop=True)
    written = tmp_path / "live.csv"
    write_predictions(written, table)
    pd.testing.assert_frame_equal(stored, read_predictions(written))


def test_fp32_answers_come_from_what_was_trained_on(drawn_faces: FaceSet, tmp_path: Path) -> None:
    where = settings(tmp_path, cache=CacheSettings(tmp_path / "cache"))
    plan = a_plan(drawn_faces, where, an_experiment(0))
    options = options_of(plan, where, drawn_faces)
    prefix, parts = options.prefix(), parts_for(plan)
    rows = parts.own["val"]
    assert prefix is not None
    exact = options.exact_prefix(parts, prefix)
    assert exact is prefix
    cached = options.predictor(exact)(rows)
    live = options.predictor(None)(rows)
    assert all((cached[task] == live[task]).all() for task in live)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1


def test_the_record_says_why_nothing_was_cached(drawn_faces: FaceSet, tmp_path: Path) -> None:
    where = settings(tmp_path, cache=CacheSettings(tmp_path / "cache"))
    plan = a_plan(drawn_faces, where, an_experiment(augmentation=Augmentation(contrast=0.1)))
    options = options_of(plan, where, drawn_faces)
    assert options.prefix() is None
    assert "without limit" in plan.record.about["speed"]["cache"]["live"]
    assert "for every batch" in options.sentence()
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_fails_is_noted_in_the_record(drawn_faces: FaceSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    where = settings(tmp_path, cache=CacheSettings(tmp_path / "file" / "cache"))
    plan = a_plan(drawn_faces, where, an_experiment())
    assert options_of(plan, where, drawn_faces).prefix() is None
    assert "continues without the cache" in plan.record.about["speed"]["cache"]["live"]
    assert "continues without the cache" in plan.record.about["speed"]["notes"][0]


def test_a_resumed_run_keeps_its_precision_unless_told_otherwise(
    drawn_faces: FaceSet, tmp_path: Path
) -> None:
    began = settings(tmp_path, device=BF16)
    plan = a_plan(drawn_faces, began, an_experiment())
    options_of(plan, began, drawn_faces)
    (plan.folder / "checkpoint.pt").write_bytes(b"of an epoch")
    probing = settings(tmp_path, device=choose_device("cpu"))
    assert options_of(plan, probing, drawn_faces).device == BF16
    assert "probe_step_seconds" not in plan.record.about["speed"]
    assert options_of(plan, settings(tmp_path), drawn_faces).device == CPU
    assert plan.record.about["speed"]["notes"] == ["It began in bf16 and resumes in fp32"]
    (plan.folder / "checkpoint.pt").unlink()
    assert not options_of(plan, probing, drawn_faces).device.probes
    assert "fp32 channels_last" in plan.record.about["speed"]["probe_step_seconds"]


def test_a_device_that_vanishes_ends_the_run_in_one_sentence(
    drawn_faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_arguments: object) -> None:
        raise torch.AcceleratorError("CUDA error: device-side failure\nand much advice")

    where = settings(tmp_path)
    plan = a_plan(drawn_faces, where, an_experiment())
    # No CUDA device can be unplugged here: the trainer is where it would show.
    monkeypatch.setattr(runs, "fit", lost)
    with pytest.raises(RunError, match="the device stopped working") as raised:
        list(run(plan, on_cpu(drawn_faces), where))
    assert "much advice" not in str(raised.value)
    assert "resumes after the last checkpoint" in str(raised.value)
    assert "AcceleratorError" in (plan.folder / "failed.json").read_text()


@pytest.mark.parametrize(("cached", "channels_last"), [(True, True), (False, False)])
def test_the_selected_epochs_score_is_the_one_of_the_stored_predictions(
    drawn_faces: FaceSet, tmp_path: Path, *, cached: bool, channels_last: bool
) -> None:
    """Trained in bf16; history.csv, metrics.json and predictions.csv give one number, in fp32."""
    cache = CacheSettings(tmp_path / "cache") if cached else None
    device = replace(BF16, channels_last=channels_last)
    where = settings(tmp_path, device=device, cache=cache)
    plan = a_plan(drawn_faces, where, an_experiment(max_epochs=4, learning_rate=3e-2))
    shown = [
        event.step
        for event in run(plan, on_cpu(drawn_faces), where)
        if isinstance(event, Advanced) and isinstance(event.step, EpochResult)
    ]
    record = plan.record
    selected = int(record.done["selected_epoch"])
    epoch = record.history().set_index("epoch").loc[selected]
    stored = read_predictions(record.predictions_path)
    stored = stored[stored["part"] == "val"]
    for task in plan.experiment.head.tasks:
        rate = float((stored[task] == stored[f"{task}_pred"]).mean())
        assert epoch[f"val/{task}/accuracy"] == rate
        assert record.metrics[f"selected/val/{task}/accuracy"] == rate
        assert shown[selected - 1].val_accuracy[task] == rate
    assert epoch["val/combined"] == record.metrics["selected/val/combined"]
    assert (
        epoch["val/combined"]
        == shown[selected - 1].val_combined
        == max(step.val_combined for step in shown)
    )


def test_bf16_training_is_selected_on_fp32_answers(
    drawn_faces: FaceSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else an epoch could be the best by rounding alone, with a score that nobody finds again."""
    precisions = set()
    logits = ForwardPass.logits

    def noted(forward: ForwardPass, rows: torch.Tensor) -> Any:
        precisions.add(forward.device.precision)
        return logits(forward, rows)

    monkeypatch.setattr(ForwardPass, "logits", noted)
    where = settings(tmp_path, device=BF16)
    plan = a_plan(drawn_faces, where, an_experiment(max_epochs=1))
    list(run(plan, on_cpu(drawn_faces), where))
    assert precisions == {"fp32"}


@pytest.mark.parametrize("cached", [True, False])
def test_standardised_features_go_with_the_weights(
    drawn_faces: FaceSet, tmp_path: Path, *, cached: bool
) -> None:
    cache = CacheSettings(tmp_path / "cache") if cached else None
    where = settings(tmp_path, cache=cache)
    experiment = an_experiment(0, standardise_features=True)
    plan = a_plan(drawn_faces, where, experiment)
    assert plan.identity != a_plan(drawn_faces, where, an_experiment(0)).identity
    list(run(plan, on_cpu(drawn_faces), where))

    loaded = load_trained(plan.folder / "model.safetensors")
    rows = parts_for(plan).own
    with torch.inference_mode():
        images = on_cpu(drawn_faces).images(torch.from_numpy(rows["train"]))
        features = loaded.network.features(images)
    head = loaded.network.head
    assert isinstance(head, StandardisedHead)
    torch.testing.assert_close(head.mean, features.mean(0), rtol=1e-3, atol=1e-5)
    scaled = (features - head.mean) / head.sd
    varies = features.std(0) > 1e-4 * features.mean(0).abs()
    assert varies.any()
    torch.testing.assert_close(
        scaled[:, varies].std(0), torch.ones(int(varies.sum())), rtol=2e-2, atol=0
    )

    stored = read_predictions(plan.record.predictions_path)
    stored = stored[stored["part"] == "val"].reset_index(drop=True)
    again = loaded.predict(drawn_faces.pixels()[rows["val"]])
    pd.testing.assert_frame_equal(stored[again.columns], again, check_dtype=False, atol=1e-5)


def test_standardised_features_do_not_depend_on_their_scale(drawn_faces: FaceSet) -> None:
    """What the field is for: the same head on features a thousand times as large learns alike."""
    rows, found = torch.arange(64), []
    for scale in (1.0, 1000.0):
        network = build_network(an_experiment(0, standardise_features=True), None, 0).eval()
        head = network.head
        assert isinstance(head, StandardisedHead)
        with torch.inference_mode():
            features = scale * network.features(on_cpu(drawn_faces).images(rows))
            head.measure(torch.split(features, 24))
            found.append(head(features)["race"])
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)
