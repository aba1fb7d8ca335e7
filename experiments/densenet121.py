"""DenseNet121 from ImageNet: how far does the smallest of the study's pretrained networks get?

Rows 8.1 and 8.2 of the study. It never trained the last dense block alone: that row, with the rate
and batch of its frozen one, is ours. Full is not compared with it: its rate differs.

Cost    not measured yet
Expect  not measured yet
"""

from benchmark.experiment import Backbone, Experiment, Head, Recipe, StudyRow

FROZEN = Experiment(
    name="mtl-densenet121-imagenet-frozen",
    asks="How much of a face do DenseNet121's features hold, as they are?",
    backbone=Backbone("densenet121", weights="imagenet", trainable_stages=0),
    head=Head(),
    recipe=Recipe(learning_rate=1e-4, batch_size=32),
    study=StudyRow("8.1", age_group=0.7230, gender=0.9398, race=0.7734),
)
DENSEBLOCK4 = FROZEN.varied(
    name="mtl-densenet121-imagenet-denseblock4",
    asks="What does training the last dense block add to frozen features?",
    compare_with=FROZEN.name,
    study=None,
    **{"backbone.trainable_stages": 1},
)
FULL = Experiment(
    name="mtl-densenet121-imagenet-full",
    asks="How accurate is DenseNet121 when all of it learns?",
    backbone=Backbone("densenet121", weights="imagenet"),
    head=Head(),
    recipe=Recipe(learning_rate=1e-5, batch_size=32),
    study=StudyRow("8.2", age_group=0.8986, gender=0.9601, race=0.9283),
)

EXPERIMENTS = (FROZEN, DENSEBLOCK4, FULL)
