"""What is measured: the rows, the goal of each, and how many faces fit into the time."""

from dataclasses import dataclass
from typing import Final, Literal

from benchmark.errors import ExperimentError
from benchmark.experiment.definition import Backbone, Experiment, Head, Recipe
from benchmark.training.device import Device, cpu_has_bf16

FEWEST: Final = 32
MOST_ON_CPU: Final = 2048


@dataclass(frozen=True)
class Goal:
    """How many times faster than what it is compared with."""

    at_least: float
    aim: float | None = None

    def verdict(self, ratio: float) -> str:
        """Compare a median ratio with the goal: `met`, `aim met` or `missed`."""
        if self.aim is not None and ratio >= self.aim:
            return "aim met"
        return "met" if ratio >= self.at_least else "missed"


@dataclass(frozen=True)
class SpeedRow:
    """One thing that is measured by several loops.

    share: of the time that there is. on_cpu: the goal on two cores with native bf16; on_gpu: on an
    H100. loops: whose loops are measured too, where they are installed.
    """

    name: str
    title: str
    kind: Literal["data", "epoch", "run", "cost"]
    architecture: str
    share: float
    trainable_stages: int | Literal["all"] = "all"
    on_cpu: Goal | None = None
    on_gpu: Goal | None = None
    loops: tuple[str, ...] = ()

    @property
    def compared(self) -> tuple[str, str]:
        """The slower loop, then ours."""
        return ("deterministic", "fast") if self.kind == "cost" else ("plain", "ours")

    def experiment(self, image_px: int, epochs: int) -> Experiment:
        """Define what is trained: random weights, whose values cost what trained ones cost."""
        return Experiment(
            name=f"speed-{self.name}",
            asks="How fast?",
            backbone=Backbone(
                self.architecture, trainable_stages=self.trainable_stages, input_px=image_px
            ),
            head=Head(),
            recipe=Recipe(
                learning_rate=1e-4, max_epochs=epochs, schedule="constant", clipping="global"
            ),
            ad_hoc=True,
        )


OTHERS: Final = ("timm", "lightning")
ROWS: Final = (
    SpeedRow("data", "data path alone, one pass", "data", "cnn", 0.03, on_cpu=Goal(4, 8)),
    SpeedRow(
        "cnn", "small CNN, an epoch", "epoch", "cnn", 0.12,
        on_cpu=Goal(2, 3), on_gpu=Goal(6), loops=OTHERS,
    ),
    SpeedRow(
        "vgg16", "VGG16, an epoch", "epoch", "vgg16", 0.28,
        on_cpu=Goal(1.8, 2.2), on_gpu=Goal(3.5), loops=OTHERS,
    ),
    SpeedRow("resnet50", "ResNet50, an epoch", "epoch", "resnet50", 0.09),
    SpeedRow(
        "densenet121", "DenseNet121, an epoch", "epoch", "densenet121", 0.11,
        on_cpu=Goal(1.5), on_gpu=Goal(6),
    ),
    SpeedRow("block5", "VGG16, block 5, a run", "run", "vgg16", 0.17, 1, Goal(4, 8), Goal(15)),
    SpeedRow("frozen", "VGG16, frozen, a run", "run", "vgg16", 0.12, 0, Goal(8, 15), Goal(40)),
    SpeedRow("deterministic", "--deterministic, CNN epoch", "cost", "cnn", 0.08),
)  # fmt: skip


def rows_named(names: str | None) -> tuple[SpeedRow, ...]:
    """Give the rows named in `data,cnn`, in our order; raises ExperimentError for another name."""
    known = [row.name for row in ROWS]
    asked = known if names is None else [name.strip() for name in names.split(",")]
    if unknown := [name for name in asked if name not in known]:
        raise ExperimentError(f"there is no row {unknown[0]!r}", allowed=", ".join(known))
    return tuple(row for row in ROWS if row.name in asked)


def why_not_judged(device: Device) -> str | None:
    """Say why ratios have no verdict; None on such machines as the goals were set for."""
    if device.kind == "cuda":
        is_fast = any(name in device.description for name in ("H100", "H200"))
        return None if is_fast else "the goals are an H100's"
    if device.kind == "cpu":
        missing = "the goals are for a CPU that multiplies bf16 by itself (avx512_bf16)"
        return None if cpu_has_bf16() else missing
    return "there are no goals for this kind of device"


def images_for(device: Device, seconds: float, per_image: float, cap: int) -> int:
    """Say how many faces a row trains on: what fits into `seconds`, in whole batches of 32.

    per_image: seconds that all rounds of all loops take for a face; 0 where that is little.
    """
    most = cap if device.kind == "cuda" else min(cap, MOST_ON_CPU)
    fitting = int(seconds / per_image) if per_image > 0 else most
    return max(FEWEST, min(most, fitting) // 32 * 32)
