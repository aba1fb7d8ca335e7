"""VGG16 from ImageNet for one task at a time: does sharing a backbone between tasks help or hurt?

Rows 5.1a to 5.3b of the study. It trained these without clipping and stopped them early, unlike the
multi-task rows it set them against; here both sides have the multi-task rows' recipe.

Cost    not measured yet
Expect  not measured yet
"""

from benchmark.experiment import StudyRow
from experiments.variations import alone
from experiments.vgg16 import BLOCK5, FULL

ALONE_BLOCK5 = tuple(
    alone(
        BLOCK5,
        {
            "age_group": StudyRow("5.2a", age_group=0.8299),
            "gender": StudyRow("5.1a", gender=0.9805),
            "race": StudyRow("5.3a", race=0.9385),
        },
    )
)
ALONE_FULL = tuple(
    alone(
        FULL,
        {
            "age_group": StudyRow("5.2b", age_group=0.9224),
            "gender": StudyRow("5.1b", gender=0.9813),
            "race": StudyRow("5.3b", race=0.9431),
        },
    )
)

EXPERIMENTS = (*ALONE_BLOCK5, *ALONE_FULL)
