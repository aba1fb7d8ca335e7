"""Compiling is left to where many steps share a program, on CUDA alone."""

from pathlib import Path

import pandas as pd
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
VGG16 = registry.experiment("mtl-vgg16-none-full")


class SomeFaces:
    """As much of a data set as counting needs: 18,522 faces that train, and others."""

    table = pd.DataFrame({"part": ["train"] * 18_522 + ["val"] * 2_315})


def worth(names: list[str], n_seeds: int = 1, device: Device = GPU) -> set[str]:
    asked = [registry.experiment(name) for name in names]
    found = worth_compiling(asked, n_seeds, SomeFaces(), device)  # type: ignore[arg-type]
    return {item.name for item in asked if program_of(item) in found}


def test_weights_and_rates_share_a_program_and_stages_tasks_and_scaling_do_not() -> None:
    alike = [registry.experiment("mtl-vgg16-imagenet-full"),
             VGG16.adjusted({"recipe.learning_rate": 1e-5})]  # fmt: skip
    others = ("mtl-vgg16-imagenet-block5", "age_group-vgg16-none-full",
              "mtl-vgg16-none-full-published")  # fmt: skip
    assert {program_of(item) for item in alike} == {program_of(VGG16)}
    assert all(program_of(registry.experiment(name)) != program_of(VGG16) for name in others)


def test_one_run_does_not_pay_and_three_of_a_program_do_on_cuda_alone() -> None:
    one = steps_of(VGG16, 18_522)
    assert one == steps_of(VGG16, 18_521) == 30 * 579
    assert steps_of(registry.experiment("age_group-cnn-none-full-steps"), 18_522) == 500
    assert one < PAYS_FROM_STEPS <= 3 * one
    assert worth([VGG16.name]) == set()
    assert worth([VGG16.name], n_seeds=3) == {VGG16.name}
    alike = [VGG16.name, "mtl-vgg16-imagenet-full", "mtl-vgg16-vggface-full"]
    assert worth([*alike, "mtl-vgg16-imagenet-block5"]) == set(alike)
    exact = Device(torch.device("cuda"), "fp32", exact=True)
    for device in (Device(torch.device("cpu"), "fp32"), exact):
        assert worth([VGG16.name], n_seeds=99, device=device) == set()


def test_what_is_asked_for_is_done(tmp_path: Path) -> None:
    for asked, in_vain, worthwhile in ((True, True, True), (False, False, False), (None, 0, 1)):
        settings = Settings(tmp_path, tmp_path, GPU, speed=SpeedSettings(compile=asked))
        assert resolve_compile(settings, VGG16, frozenset()).speed.compile == in_vain
        found = resolve_compile(settings, VGG16, frozenset({program_of(VGG16)}))
        assert found.speed.compile == worthwhile
