"""How a run is computed changes neither its identity nor its numbers, and is written down."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from benchmark import registry
from benchmark.evaluation.predictions import predictions_table, read_predictions, write_predictions
from benchmark.experiment.definition import Augmentation, Backbone, Experiment
from benchmark.inference.load import load_trained
from benchmark.models.network import StandardisedHead, build_network
from benchmark.runs.folder import begin, parts_for
from benchmark.runs.plan import Plan
from benchmark.runs.run import Advanced, ExecutionOptions, with_compile
from benchmark.training.device import Device, choose_device
from benchmark.training.prefix_cache import CacheSettings
from benchmark.training.steps import SpeedSettings, in_fp32
from benchmark.training.trainer import EpochResult
from tests.runs.small import Place, on_cpu, settings
from tests.runs.small import an_experiment as full_experiment
from tests.training.small import CPU

BF16 = Device(torch.device("cpu"), "bf16")
CUDA = Device(torch.device("cuda"), "bf16")


def an_experiment(trained: int = 2, **recipe: Any) -> Experiment:
    name = {0: "mtl-cnn-none-frozen-tiny", 2: "mtl-cnn-none-block4-tiny"}[trained]
    backbone = Backbone("cnn", trainable_stages=trained, input_px=32)
    return full_experiment(name, backbone, **recipe)


def options_of(plan: Plan, **changes: Any) -> ExecutionOptions:
    """Resolve the execution options of a run that has begun, without training it."""
    where = settings(plan.folder.parents[1], **changes)
    network = build_network(plan.experiment, None, plan.seed)
    options = ExecutionOptions(plan, on_cpu(plan.faces), where, network)
    begin(plan, plan.about(options.device, network, {}) | {"speed": options.report})
    return options


def validated(plan: Plan) -> pd.DataFrame:
    """Read the stored predictions of validation faces."""
    stored = read_predictions(plan.record.predictions_path)
    return stored[stored["part"] == "val"].reset_index(drop=True)


def test_a_cached_bf16_run_predicts_in_fp32_as_from_pictures(place: Place) -> None:
    """The frozen part is read twice: in bf16 to train on, in fp32 to predict."""
    experiment = an_experiment(max_epochs=1, augmentation=Augmentation(flip=True))
    options: Any = {"device": BF16, "cache": CacheSettings(place.runs_dir / "cache")}
    plan = place.plan(experiment, **options)
    assert plan.identity == place.plan(experiment).identity
    list(place.run(plan, **options))
    said = plan.record.about["speed"]
    expected = {"origin": "built", "views": 2, "precision": "bf16", "equal_to_live": True}
    assert said["cache"] | expected == said["cache"]
    assert said["cache_of_answers"]["precision"] == "fp32"
    assert said["steps"] == {"graph": False, "compiled": False}

    network = build_network(experiment, None, 0)
    network.load_state_dict(load_file(plan.folder / "model.safetensors"))
    CPU.place(network)
    rows = parts_for(plan).own["val"]
    live = in_fp32(network, on_cpu(place.faces)).probabilities(torch.from_numpy(rows))
    written = place.runs_dir / "live.csv"
    write_predictions(written, predictions_table(place.faces.table.iloc[rows], "val", live))
    pd.testing.assert_frame_equal(validated(plan), read_predictions(written))


def test_a_resumed_run_keeps_its_precision_unless_told_otherwise(place: Place) -> None:
    plan, probing = place.plan(an_experiment()), choose_device("cpu")
    options_of(plan, device=BF16)
    (plan.folder / "checkpoint.pt").write_bytes(b"of an epoch")
    assert options_of(plan, device=probing).device == BF16
    assert "probe_step_seconds" not in plan.record.about["speed"]
    assert options_of(plan).device == CPU
    assert plan.record.about["speed"]["notes"] == ["It began in bf16 and resumes in fp32"]
    (plan.folder / "checkpoint.pt").unlink()
    assert not options_of(plan, device=probing).device.probes
    assert "fp32 channels_last" in plan.record.about["speed"]["probe_step_seconds"]


@pytest.mark.slow
@pytest.mark.parametrize(("cached", "channels_last"), [(True, False), (False, True)])
def test_one_score_is_stored_everywhere(place: Place, *, cached: bool, channels_last: bool) -> None:
    """Trained in bf16; history.csv, metrics.json and predictions.csv give one number, in fp32."""
    cache = CacheSettings(place.runs_dir / "cache") if cached else None
    device = replace(BF16, channels_last=channels_last)
    plan = place.plan(an_experiment(max_epochs=4, learning_rate=3e-2))
    events = place.run(plan, device=device, cache=cache)
    steps = [event.step for event in events if isinstance(event, Advanced)]
    shown = [step for step in steps if isinstance(step, EpochResult)]
    record, stored = plan.record, validated(plan)
    selected = int(record.done["selected_epoch"])
    epoch, metrics = record.history().set_index("epoch").loc[selected], record.metrics
    for task in plan.experiment.head.tasks:
        rate = float((stored[task] == stored[f"{task}_pred"]).mean())
        assert epoch[f"val/{task}/accuracy"] == metrics[f"selected/val/{task}/accuracy"] == rate
        assert shown[selected - 1].val_accuracy[task] == rate
    combined = [step.val_combined for step in shown]
    assert epoch["val/combined"] == metrics["selected/val/combined"] == max(combined)
    assert combined[selected - 1] == max(combined)


@pytest.mark.parametrize("cached", [True, False])
def test_standardised_features_go_with_the_weights(place: Place, *, cached: bool) -> None:
    cache = CacheSettings(place.runs_dir / "cache") if cached else None
    plan = place.plan(an_experiment(0, standardise_features=True))
    assert plan.identity != place.plan(an_experiment(0)).identity
    list(place.run(plan, cache=cache))

    loaded, rows = load_trained(plan.folder / "model.safetensors"), parts_for(plan).own
    with torch.inference_mode():
        images = on_cpu(place.faces).images(torch.from_numpy(rows["train"]))
        features = loaded.network.features(images)
    head = loaded.network.head
    assert isinstance(head, StandardisedHead)
    torch.testing.assert_close(head.mean, features.mean(0), rtol=1e-3, atol=1e-5)
    varies = features.std(0) > 1e-4 * features.mean(0).abs()
    assert varies.any()
    deviations = ((features - head.mean) / head.sd)[:, varies].std(0)
    torch.testing.assert_close(deviations, torch.ones_like(deviations), rtol=2e-2, atol=0)
    again = loaded.predict(place.faces.pixels()[rows["val"]])
    stored = validated(plan)[again.columns]
    pd.testing.assert_frame_equal(stored, again, check_dtype=False, atol=1e-5)


def test_compiling_is_left_to_where_it_pays_on_cuda_alone() -> None:
    faces: Any = SimpleNamespace(table=pd.DataFrame({"part": ["train"] * 18_522 + ["val"] * 2_315}))
    rows: tuple[tuple[str, int, dict[str, Any], bool], ...] = (
        ("mtl-vgg16-none-full", 1, {}, False),  # 30 epochs of 579 steps
        ("mtl-vgg16-none-full", 3, {}, True),
        ("age_group-cnn-none-full-steps", 79, {}, False),  # 500 steps each
        ("age_group-cnn-none-full-steps", 80, {}, True),
        ("mtl-vgg16-none-full", 99, {"device": CPU}, False),
        ("mtl-vgg16-none-full", 99, {"device": replace(CUDA, exact=True)}, False),
        ("mtl-vgg16-none-full", 99, {"speed": SpeedSettings(compile=False)}, False),
        ("mtl-vgg16-none-full", 1, {"speed": SpeedSettings(compile=True)}, True),
    )
    for name, n_seeds, where, is_compiled in rows:
        asked = settings(Path(), **{"device": CUDA, "speed": SpeedSettings(compile=None)} | where)
        found = with_compile(registry.experiment(name), n_seeds, faces, asked)
        assert found.speed.compile == is_compiled, (name, n_seeds, where)
