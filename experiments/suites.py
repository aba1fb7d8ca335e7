"""The suites: named lists of experiments that are run and shown together."""

from collections.abc import Iterable

from benchmark.experiment import Experiment, Suite
from experiments import (
    cnn,
    demo,
    densenet121,
    leak,
    matrix,
    modern,
    published,
    resnet50,
    subsets,
    vgg16,
    vgg16_early,
    vgg16_stl,
    vgg16_subsets,
    vgg19,
)


def names(*groups: Iterable[Experiment]) -> tuple[str, ...]:
    """Name the experiments of some groups, in their order."""
    return tuple(item.name for group in groups for item in group)


SUITES = (
    demo.SUITE,
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
        asks="What does each further trained stage of one pretrained backbone buy?",
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
            "mtl-squeezenet1_1-imagenet-frozen-standardised-short",
            "mtl-squeezenet1_1-none-frozen-standardised-short",
        ),
    ),
    Suite(
        name="study",
        asks="What are the honest numbers of the study's rows, on a split that does not leak?",
        experiments=names(
            vgg16.EXPERIMENTS,
            cnn.STUDY,
            vgg16_stl.EXPERIMENTS,
            vgg19.EXPERIMENTS,
            resnet50.EXPERIMENTS,
            densenet121.EXPERIMENTS,
            vgg16_early.EXPERIMENTS,
        ),
    ),
    Suite(
        name="matrix",
        asks="Which architecture, from which weights, for one task or three, how deep?",
        experiments=tuple(matrix.cells()),
    ),
    Suite(
        name="modern",
        asks="Are newer architectures more accurate than the study's?",
        experiments=names(modern.EXPERIMENTS),
    ),
    Suite(
        name="plan35",
        asks="How long does the study's whole plan take on this machine (docs/PERFORMANCE.md)?",
        experiments=names(
            vgg16.EXPERIMENTS,
            vgg16_stl.ALONE_FULL,
            vgg19.EXPERIMENTS,
            resnet50.EXPERIMENTS,
            densenet121.EXPERIMENTS,
            cnn.STUDY,
            vgg16_subsets.EXPERIMENTS,
        ),
    ),
    subsets.SUITE,
    subsets.SUITE_VGG16,
    subsets.SUITE_VGG16_IMAGENET,
    published.SUITE,
    leak.HEADLINE,
    leak.SUITE,
    leak.SUITE_VGG16,
)
