"""Four networks of timm and MobileNetV2 from ImageNet: are they more accurate than VGG16?

Each frozen, with its deepest stage trained, and trained whole; its single-task counterparts are in
the suite `matrix`. Inputs are the 100 px of all others, but for ViT, whose patches need a multiple
of 16. Rates were chosen before any run, for the reasons given. MobileNetV2, the smallest, has short
rows for two CPU cores too, on SqueezeNet's short recipe.

Cost    not measured yet
Expect  not measured yet
"""

from benchmark.experiment import Backbone, Experiment, Head, Recipe
from experiments.squeezenet import FROZEN_SHORT as SQUEEZENET_FROZEN_SHORT
from experiments.vgg16 import FROZEN as VGG16_FROZEN

BACKBONES = (
    # As the two mobile networks below, of which it is the ancestor.
    ("mobilenet_v2", 3e-4, 100),
    # Liu et al. 2022 fine-tune it at 5e-5, with layer norm and in larger batches.
    ("convnext_tiny", 5e-5, 100),
    # Small, with batch norm: between the 1e-4 of a pretrained VGG16 and the 1e-3 of new layers.
    ("efficientnet_b0", 3e-4, 100),
    ("mobilenetv4_conv_small", 3e-4, 100),
    # Transformers bear less than convolutions: a third of VGG16's.
    ("vit_small_patch16_224", 3e-5, 112),
)
"""Architecture, learning rate where the backbone is trained, input in pixels."""


def depths_of(architecture: str, learning_rate: float, input_px: int) -> tuple[Experiment, ...]:
    """Give an architecture's three depths: frozen, deepest stage, full."""
    backbone = Backbone(architecture, "imagenet", trainable_stages=1, input_px=input_px)
    prefix = f"mtl-{architecture}-imagenet"
    deepest = Experiment(
        name=f"{prefix}-{backbone.depth_name}",
        asks=f"How accurate is {architecture} when only its deepest stage learns?",
        backbone=backbone,
        head=Head(),
        recipe=Recipe(learning_rate=learning_rate, batch_size=32),
    )
    full = deepest.varied(
        name=f"{prefix}-full",
        asks=f"Does training all of {architecture} beat training its deepest stage?",
        compare_with=deepest.name,
        **{"backbone.trainable_stages": "all"},
    )
    same_input = input_px == VGG16_FROZEN.backbone.input_px
    frozen = deepest.varied(
        name=f"{prefix}-frozen",
        asks=f"How much of a face do the features of {architecture} hold, as they are?",
        compare_with=VGG16_FROZEN.name if same_input else None,
        recipe=VGG16_FROZEN.recipe,
        **{"backbone.trainable_stages": 0},
    )
    return frozen, deepest, full


def shortened(frozen: Experiment, deepest: Experiment, full: Experiment) -> tuple[Experiment, ...]:
    """Vary an architecture's three depths for a short CPU budget: SqueezeNet's six epochs."""
    recipe = SQUEEZENET_FROZEN_SHORT.recipe
    frozen_short = frozen.varied(
        name=f"{frozen.name}-short",
        compare_with=SQUEEZENET_FROZEN_SHORT.name,
        recipe=recipe,
    )
    deepest_short = deepest.varied(
        name=f"{deepest.name}-short", compare_with=frozen_short.name, recipe=recipe
    )
    full_short = full.varied(
        name=f"{full.name}-short", compare_with=deepest_short.name, recipe=recipe
    )
    return frozen_short, deepest_short, full_short


EXPERIMENTS = tuple(item for backbone in BACKBONES for item in depths_of(*backbone))
MOBILENET_SHORT = shortened(
    *(item for item in EXPERIMENTS if item.backbone.architecture == "mobilenet_v2")
)
EXPERIMENTS = (*EXPERIMENTS, *MOBILENET_SHORT)
