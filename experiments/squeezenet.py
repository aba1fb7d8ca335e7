"""SqueezeNet 1.1 from ImageNet: what do real pretrained weights buy, and how deep to unfreeze?

Short rows for two cores, and two on the study's recipe for the suite `matrix`, at the same rate.

Cost    six epochs of UTKFace on two shared CPU cores (AMD EPYC, bf16): frozen 81 s, deepest stage
        133 s, full 254 s; on a GPU not measured yet
Expect  one seed on split 1 (docs/notes/results_split_1.md), test age group / gender / race: frozen
        59.1 / 80.8 / 63.5 %, deepest stage 67.2 / 88.5 / 78.3 %, full 69.1 / 90.4 / 81.3 %; frozen
        and random 45.9 / 71.2 / 47.6 %. Logistic regression on pooled features:
        docs/notes/channel_order.md
"""

from benchmark.experiment import (
    DECAY,
    DEPTH,
    RATE,
    RATIO,
    Augmentation,
    Backbone,
    Experiment,
    Floats,
    Head,
    Integers,
    Recipe,
    SearchSpace,
)

FROZEN_SHORT = Experiment(
    name="mtl-squeezenet1_1-imagenet-frozen-short",
    asks="How much of a face do features learnt on ImageNet hold, as they are?",
    backbone=Backbone("squeezenet1_1", weights="imagenet", trainable_stages=0),
    head=Head(),
    recipe=Recipe(
        learning_rate=5e-4,
        batch_size=32,
        max_epochs=6,
        schedule="cosine",
        augmentation=Augmentation(flip=True),
    ),
)
PARTLY_SHORT = FROZEN_SHORT.varied(
    name="mtl-squeezenet1_1-imagenet-fire6_9-short",
    asks="What does training only the deepest stage add to frozen features?",
    compare_with=FROZEN_SHORT.name,
    **{"backbone.trainable_stages": 1},
)
TWO_STAGES_SHORT = FROZEN_SHORT.varied(
    name="mtl-squeezenet1_1-imagenet-fire4_5-short",
    asks="What does training the two deepest stages add to training the deepest?",
    compare_with=PARTLY_SHORT.name,
    **{"backbone.trainable_stages": 2},
)
THREE_STAGES_SHORT = FROZEN_SHORT.varied(
    name="mtl-squeezenet1_1-imagenet-fire2_3-short",
    asks="What does training all but the first convolution add to training two stages?",
    compare_with=TWO_STAGES_SHORT.name,
    **{"backbone.trainable_stages": 3},
)
FULL_SHORT = FROZEN_SHORT.varied(
    name="mtl-squeezenet1_1-imagenet-full-short",
    asks="What does training the whole backbone add to training its deepest stage?",
    compare_with=PARTLY_SHORT.name,
    **{"backbone.trainable_stages": "all"},
)
RANDOM_FROZEN_SHORT = FROZEN_SHORT.varied(
    name="mtl-squeezenet1_1-none-frozen-short",
    asks="Control: how far do random weights come at this rate, their features unscaled?",
    compare_with=FROZEN_SHORT.name,
    **{"backbone.weights": "none"},
)
STANDARDISED_FROZEN_SHORT = FROZEN_SHORT.varied(
    name="mtl-squeezenet1_1-imagenet-frozen-standardised-short",
    asks="Control: what does putting ImageNet's frozen features on one scale change?",
    compare_with=FROZEN_SHORT.name,
    **{"recipe.standardise_features": True},
)
RANDOM_FROZEN_STANDARDISED_SHORT = STANDARDISED_FROZEN_SHORT.varied(
    name="mtl-squeezenet1_1-none-frozen-standardised-short",
    asks="Control: how much do the same frozen features hold when the weights are random?",
    compare_with=STANDARDISED_FROZEN_SHORT.name,
    **{"backbone.weights": "none"},
)
SWAPPED_FROZEN_SHORT = FROZEN_SHORT.varied(
    name="mtl-squeezenet1_1-imagenet-frozen-swapped-short",
    asks="Control: what does feeding red and blue exchanged cost the frozen features?",
    compare_with=FROZEN_SHORT.name,
    **{"protocol.input_scaling": "weights_swapped"},
)

PARTLY = Experiment(
    name="mtl-squeezenet1_1-imagenet-fire6_9",
    asks="How accurate is SqueezeNet when only its deepest stage learns?",
    backbone=Backbone("squeezenet1_1", weights="imagenet", trainable_stages=1),
    head=Head(),
    recipe=Recipe(learning_rate=5e-4, batch_size=32),
)
FULL = PARTLY.varied(
    name="mtl-squeezenet1_1-imagenet-full",
    asks="Does training all of SqueezeNet beat training its deepest stage?",
    compare_with=PARTLY.name,
    search=SearchSpace(
        (
            Floats(RATE, 1e-4, 1e-2),
            Integers(DEPTH, 0, 4),
            Floats(RATIO, 1e-2, 1.0),
            Floats(DECAY, 0.3, 1.0, log=False),
        )
    ),
    **{"backbone.trainable_stages": "all"},
)

EXPERIMENTS = (
    FROZEN_SHORT,
    PARTLY_SHORT,
    TWO_STAGES_SHORT,
    THREE_STAGES_SHORT,
    FULL_SHORT,
    RANDOM_FROZEN_SHORT,
    STANDARDISED_FROZEN_SHORT,
    RANDOM_FROZEN_STANDARDISED_SHORT,
    SWAPPED_FROZEN_SHORT,
    PARTLY,
    FULL,
)
