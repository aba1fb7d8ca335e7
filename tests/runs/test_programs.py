"""Compiling is left to where many steps share a program, on CUDA alone."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmark import registry
from benchmark.runs.execution import (
    PAYS_FROM_STEPS,
    program_of,
    resolve_compile,
    steps_of,
    worth_compiling,
)
from benchmark.runs.plan import Settings
from benchmark.training.device import Device
from benchmark.training.steps import SpeedSettings

GPU = Device(torch.device("cuda"), "bf16")


class SomeFaces:
    """As much of a data set as counting needs: 18,522 faces that train, and others."""

    table = pd.DataFrame({"part": ["train"] * 18_522 + ["val"] * 2_315})


FACES = SomeFaces()
VGG16 = registry.experiment("mtl-vgg16-none-full")


def worth(names: list[str], n_seeds: int = 1, device: Device = GPU) -> set[str]:
    asked = [registry.experiment(name) for name in names]
    found = worth_compiling(asked, n_seeds, FACES, device)  # type: ignore[arg-type]
    return {item.name for item in asked if program_of(item) in found}


def test_other_weights_and_rates_are_the_same_program() -> None:
    imagenet = registry.experiment("mtl-vgg16-imagenet-full")
    assert program_of(imagenet) == program_of(VGG16)
    slower = VGG16.adjusted({"recipe.learning_rate": 1e-5})
    assert program_of(slower) == program_of(VGG16)


@pytest.mark.parametrize(
    "other",
    ["mtl-vgg16-imagenet-block5", "age_group-vgg16-none-full", "mtl-vgg16-none-full-published"],
    ids=["fewer stages", "one task", "other scaling"],
)
def test_other_stages_tasks_and_scaling_are_another_program(other: str) -> None:
    assert program_of(registry.experiment(other)) != program_of(VGG16)


def test_steps_are_those_of_all_epochs() -> None:
    assert steps_of(VGG16, 18_522) == 30 * 579
    assert steps_of(VGG16, 18_521) == 30 * 579
    short = registry.experiment("age_group-cnn-none-full-steps")
    assert steps_of(short, 18_522) == 500


def test_one_run_pays_nothing_back_and_three_do() -> None:
    one = steps_of(VGG16, 18_522)
    assert one < PAYS_FROM_STEPS <= 3 * one
    assert worth([VGG16.name]) == set()
    assert worth([VGG16.name], n_seeds=3) == {VGG16.name}


def test_runs_of_one_program_count_together() -> None:
    alike = [VGG16.name, "mtl-vgg16-imagenet-full", "mtl-vgg16-vggface-full"]
    assert worth([*alike, "mtl-vgg16-imagenet-block5"]) == set(alike)


@pytest.mark.parametrize(
    "device",
    [Device(torch.device("cpu"), "fp32"), Device(torch.device("cuda"), "fp32", exact=True)],
    ids=["cpu", "deterministic"],
)
def test_elsewhere_nothing_is_compiled_unasked(device: Device) -> None:
    assert worth([VGG16.name], n_seeds=99, device=device) == set()


@pytest.mark.parametrize(
    ("asked", "then"), [(True, True), (False, False), (None, False)], ids=["on", "off", "left"]
)
def test_who_asks_is_obeyed(asked: bool | None, then: bool, tmp_path: Path) -> None:
    settings = Settings(tmp_path, tmp_path, GPU, speed=SpeedSettings(compile=asked))
    assert resolve_compile(settings, VGG16, frozenset()).speed.compile is then
    assert resolve_compile(settings, VGG16, frozenset({program_of(VGG16)})).speed.compile is (
        True if asked is None else asked
    )
