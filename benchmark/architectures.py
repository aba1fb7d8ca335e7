"""What a definition must know of an architecture without loading torch: stages, sources, input.

The modules themselves are in benchmark.models.backbones; a test compares the two, stage by stage.
"""

from dataclasses import dataclass
from typing import Final

from benchmark.errors import ExperimentError


@dataclass(frozen=True)
class Architecture:
    """An architecture by name, its stages shallow to deep, and its weight sources."""

    name: str
    stages: tuple[str, ...]
    weight_sources: tuple[str, ...]
    description: str


ARCHITECTURES: Final[dict[str, Architecture]] = {
    architecture.name: architecture
    for architecture in (
        Architecture(
            name="cnn",
            stages=("block1", "block2", "block3", "block4", "block5"),
            weight_sources=("none",),
            description="five blocks of 3x3 convolution, batch norm, ReLU, max pooling: "
            "24-48-96-192-256 channels (ours; the study's own CNN is lost)",
        ),
        Architecture(
            name="squeezenet1_1",
            stages=("conv1", "fire2_3", "fire4_5", "fire6_9"),
            weight_sources=("none", "imagenet"),
            description="SqueezeNet 1.1 (Iandola et al. 2016), fire modules, 722,496 parameters",
        ),
    )
}


def architecture_named(name: str) -> Architecture:
    """Look an architecture up; raise ExperimentError with the known names otherwise."""
    if name not in ARCHITECTURES:
        raise ExperimentError(
            f"unknown architecture {name!r}",
            allowed=", ".join(sorted(ARCHITECTURES)),
            fix="Choose one of these, or add it to benchmark/architectures.py "
            "and benchmark/models/backbones.py",
        )
    return ARCHITECTURES[name]
