"""VGG19 from ImageNet: are three more convolutions than VGG16's more accurate?

Rows 6.1 and 6.2 of the study; the notebook of 6.1 is called frozen and trains block 5.

Cost    not measured yet
Expect  not measured yet
"""

from benchmark.experiment import Backbone, Experiment, Head, Recipe, StudyRow
from experiments.vgg16 import BLOCK5 as VGG16_BLOCK5

BLOCK5 = Experiment(
    name="mtl-vgg19-imagenet-block5",
    asks="Do three more convolutions than VGG16's help when the deepest block learns?",
    backbone=Backbone("vgg19", weights="imagenet", trainable_stages=1),
    head=Head(),
    recipe=Recipe(learning_rate=1e-4, batch_size=32),
    compare_with=VGG16_BLOCK5.name,
    study=StudyRow("6.1", age_group=0.9041, gender=0.9775, race=0.9431),
)
FULL = BLOCK5.varied(
    name="mtl-vgg19-imagenet-full",
    asks="Does training all of VGG19 beat training its deepest block?",
    compare_with=BLOCK5.name,
    study=StudyRow("6.2", age_group=0.9096, gender=0.9801, race=0.9474),
    **{"backbone.trainable_stages": "all"},
)

EXPERIMENTS = (BLOCK5, FULL)
