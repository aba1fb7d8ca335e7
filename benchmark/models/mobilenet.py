"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381, table 2) from torchvision's modules."""

from itertools import pairwise
from typing import Final

from benchmark.models.trunk import ChainTrunk, sequence

FIRST_LAYERS: Final = (0, 2, 4, 7, 14, 19)
"""Where each stage begins in torchvision's `features`: at the layer that halves the size."""


def mobilenet_v2() -> ChainTrunk:
    """Rearrange torchvision's MobileNetV2, a stage for each size: 100 px end as 4x4x1280."""
    # Imported here: torchvision takes a second, and most trunks do without.
    from torchvision.models import mobilenet_v2 as whole

    layers = whole(weights=None)
    stages = {
        f"stage{number}": sequence(
            **{f"layer{place}": layers.features[place] for place in range(first, end)}
        )
        for number, (first, end) in enumerate(pairwise(FIRST_LAYERS), start=1)
    }
    return ChainTrunk("mobilenet_v2", stages, layers.last_channel)
