"""ResNet50 from ImageNet: does it deserve the study's verdict when it is fed as it was trained?

Rows 7.1 and 7.3 of the study, which fed it plain RGB in 0 to 1. Its notebook of a partly frozen
ResNet50 is a copy of 7.1: conv5 has no printed number, its rate and batch are ours, after the
study's search (1e-5 at 16 was best there). Frozen and full are not compared: their rates differ.

Cost    not measured yet
Expect  not measured yet
"""

from benchmark.experiment import Backbone, Experiment, Head, Recipe, StudyRow

FROZEN = Experiment(
    name="mtl-resnet50-imagenet-frozen",
    asks="How much of a face do ResNet50's features hold when fed as they were trained?",
    backbone=Backbone("resnet50", weights="imagenet", trainable_stages=0),
    head=Head(),
    recipe=Recipe(learning_rate=1e-3, batch_size=16),
    study=StudyRow("7.1", age_group=0.5091, gender=0.7832, race=0.4943),
)
CONV5 = Experiment(
    name="mtl-resnet50-imagenet-conv5",
    asks="How accurate is ResNet50 when only its deepest stage learns?",
    backbone=Backbone("resnet50", weights="imagenet", trainable_stages=1),
    head=Head(),
    recipe=Recipe(learning_rate=1e-5, batch_size=16),
)
FULL = CONV5.varied(
    name="mtl-resnet50-imagenet-full",
    asks="Does training all of ResNet50 beat training its deepest stage?",
    compare_with=CONV5.name,
    study=StudyRow("7.3", age_group=0.8931, gender=0.9593, race=0.9330),
    **{"backbone.trainable_stages": "all"},
)

EXPERIMENTS = (FROZEN, CONV5, FULL)
