"""Specialists against all: does training on one subset alone predict its age group better?

Three experiments for each subset, equal in everything but the training faces: the subset's alone,
all, and a sample of all as large as the subset, which separates less data from narrower data.
Each takes the same 500 optimiser steps on faces of 32 px, is selected on the subset's validation
faces and tested on its test faces. Subsets have 1,000 training and 100 test faces or more (UTKFace,
leak-free-2): `Others` is too small to be divided by gender. Suite `subsets_vgg16` asks the same of
the study's network, from nothing, at 48 px and in 1,500 steps; `subsets_vgg16_imagenet` of women
and men alone, from the study's weights, block 5 trained, in 1,500 steps.

Cost    14 to 26 s a run on one core with bf16, nine at a time (`seconds` of the runs' done.json)
Expect  on split 1 the single network 61.9 %, and no specialist that is shown to be better
        (docs/notes/results_split_1.md)
"""

from collections.abc import Iterator
from itertools import product

from benchmark.experiment import (
    Augmentation,
    Backbone,
    Experiment,
    GenderName,
    Head,
    RaceName,
    Recipe,
    Subset,
    Suite,
)
from experiments.vgg16_stl import ALONE_BLOCK5

ALL_FACES = Experiment(
    name="age_group-cnn-none-full-steps",
    asks="How well does the single network, trained on all, predict age group?",
    backbone=Backbone("cnn", input_px=32),
    head=Head(tasks=("age_group",)),
    recipe=Recipe(
        learning_rate=1e-3,
        batch_size=32,
        max_epochs=10,
        steps_per_epoch=50,
        schedule="cosine",
        augmentation=Augmentation(flip=True),
    ),
)
VGG16 = ALL_FACES.varied(
    name="age_group-vgg16-none-full-steps",
    **{
        "backbone": Backbone("vgg16", input_px=48),
        # The rate of its other rows from nothing; at it, 500 steps would teach it little.
        "recipe.learning_rate": 1e-4,
        "recipe.steps_per_epoch": 150,
    },
)
VGG16_MTL = VGG16.varied(
    name="mtl-vgg16-none-full-steps",
    asks="Is one network for three tasks as accurate as the study's networks of one each?",
    head=Head(),
)
"""Its counterparts of one task are the single network and the routers; `facebench compare` pairs
them."""
VGG16_IMAGENET = next(item for item in ALONE_BLOCK5 if item.head.tasks == ("age_group",)).varied(
    name="age_group-vgg16-imagenet-block5-steps",
    asks="How well does VGG16 from ImageNet, trained on all, predict age group?",
    compare_with=None,
    study=None,
    **{"recipe.max_epochs": 10, "recipe.steps_per_epoch": 150, "recipe.schedule": "cosine"},
)

GENDERS: tuple[GenderName, ...] = ("female", "male")
RACES: tuple[RaceName, ...] = ("White", "Black", "Asian", "Indian", "Others")
SUBSETS = (
    *(Subset(gender=gender) for gender in GENDERS),
    *(Subset(race=race) for race in RACES),
    *(Subset(gender=gender, race=race) for gender, race in product(GENDERS, RACES[:-1])),
)


def routers_of(whole: Experiment, *tasks: str) -> Iterator[Experiment]:
    """Give the networks that would say to which specialist a face is sent."""
    for task in tasks:
        yield whole.varied(
            name=whole.name.replace("age_group", task),
            asks=f"How well would {task} route a face to the specialist for it?",
            **{"head.tasks": (task,)},
        )


def experiments_of(whole: Experiment, subset: Subset) -> tuple[Experiment, ...]:
    """Give the three experiments of a subset: specialist, all faces, size-matched."""
    people = subset.label.replace("_", " and ")
    prefix = whole.name
    specialist = whole.varied(
        name=f"{prefix}-{subset.ending}",
        asks=f"Does training on {people} alone predict the age group of {people} better?",
        compare_with=f"{prefix}-{subset.label}-everyone",
        subset=subset,
    )
    all_of_us = specialist.varied(
        name=f"{prefix}-{subset.label}-everyone",
        asks=f"How well does training on all faces predict the age group of {people}?",
        compare_with=None,
        **{"subset.training": "everyone"},
    )
    matched = specialist.varied(
        name=f"{prefix}-{subset.label}-matched",
        asks=f"What of the difference for {people} is merely less data?",
        compare_with=specialist.name,
        **{"subset.training": "size_matched"},
    )
    return specialist, all_of_us, matched


def study_of(whole: Experiment) -> tuple[Experiment, ...]:
    """Give the single network, the routers, and the experiments of every subset."""
    by_subset = (item for subset in SUBSETS for item in experiments_of(whole, subset))
    return (whole, *routers_of(whole, "gender", "race"), *by_subset)


WITH_CNN = study_of(ALL_FACES)
WITH_VGG16 = study_of(VGG16)
WITH_IMAGENET = (
    VGG16_IMAGENET,
    *routers_of(VGG16_IMAGENET, "gender"),
    *(item for gender in GENDERS for item in experiments_of(VGG16_IMAGENET, Subset(gender=gender))),
)

EXPERIMENTS = (*WITH_CNN, *WITH_VGG16, VGG16_MTL, *WITH_IMAGENET)

SUITE = Suite(
    name="subsets",
    asks="Does a specialist predict the age group of its subset better than a network of all?",
    experiments=tuple(item.name for item in WITH_CNN),
)
SUITE_VGG16 = Suite(
    name="subsets_vgg16",
    asks="The same with the study's network: does a specialist beat a network of all?",
    experiments=tuple(item.name for item in WITH_VGG16),
)
SUITE_VGG16_IMAGENET = Suite(
    name="subsets_vgg16_imagenet",
    asks="From the study's weights: does a specialist for women or men beat a network of all?",
    experiments=tuple(item.name for item in WITH_IMAGENET),
)
