"""The suites: named lists of experiments that are run and shown together."""

from benchmark.experiment import Suite

SUITES = (
    Suite(
        name="quick",
        asks="In under an hour on two cores: one task or three, pretrained or not, how deep?",
        experiments=(
            "mtl-cnn-none-full-short",
            "age_group-cnn-none-full-short",
            "gender-cnn-none-full-short",
            "race-cnn-none-full-short",
            "mtl-squeezenet1_1-imagenet-frozen-short",
            "mtl-squeezenet1_1-imagenet-fire6_9-short",
            "mtl-squeezenet1_1-imagenet-full-short",
        ),
    ),
    Suite(
        name="depth",
        asks="What does each further trained stage of one pretrained trunk buy?",
        experiments=(
            "mtl-squeezenet1_1-imagenet-frozen-short",
            "mtl-squeezenet1_1-imagenet-fire6_9-short",
            "mtl-squeezenet1_1-imagenet-fire4_5-short",
            "mtl-squeezenet1_1-imagenet-fire2_3-short",
            "mtl-squeezenet1_1-imagenet-full-short",
        ),
    ),
    Suite(
        name="controls",
        asks="Do pretrained weights matter at all, and are they fed as they were trained?",
        experiments=(
            "mtl-squeezenet1_1-imagenet-frozen-short",
            "mtl-squeezenet1_1-imagenet-frozen-swapped-short",
            "mtl-squeezenet1_1-none-frozen-short",
        ),
    ),
)
