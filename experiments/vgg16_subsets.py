"""VGG16 for the age group of a subset: seven specialists, and women by the network trained on all.

These eight are the subset part of the timed workload, suite `plan35`. The controlled comparison, in
which every experiment takes the same number of steps, is experiments/subsets.py.

Cost    not measured yet
Expect  not measured yet
"""

from benchmark.experiment import Subset
from experiments.vgg16_stl import ALONE_FULL

AGE_GROUP = next(item for item in ALONE_FULL if item.head.tasks == ("age_group",))
SUBSETS = (
    ("women", Subset(gender="female")),
    ("men", Subset(gender="male")),
    ("White faces", Subset(race="White")),
    ("Black faces", Subset(race="Black")),
    ("Asian faces", Subset(race="Asian")),
    ("Indian faces", Subset(race="Indian")),
    ("faces of other races", Subset(race="Others")),
)


WOMEN_BY_ALL_FACES = AGE_GROUP.varied(
    name=f"{AGE_GROUP.stem}-women-everyone",
    asks="How well does a network trained on all faces predict the age group of women?",
    compare_with=None,
    study=None,
    subset=Subset(gender="female", training="everyone"),
)
SPECIALISTS = tuple(
    AGE_GROUP.varied(
        name=f"{AGE_GROUP.stem}-{subset.ending}",
        asks=f"How well does training on {people} alone predict the age group of {people}?",
        # The only subset here that the network of all faces is tested on too.
        compare_with=WOMEN_BY_ALL_FACES.name if subset.gender == "female" else None,
        study=None,
        subset=subset,
    )
    for people, subset in SUBSETS
)

EXPERIMENTS = (*SPECIALISTS, WOMEN_BY_ALL_FACES)
