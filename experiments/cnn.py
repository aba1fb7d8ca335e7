"""The small CNN from scratch: what can be predicted from a face without any pretraining?

Eight short epochs; and the study's thirty, plain and with heads that see gender. The study's own
CNN is lost and printed no number: these four rows, at the usual 1e-3, are ours.

Cost    eight epochs of UTKFace: 318 to 658 s a run on two shared CPU cores (AMD EPYC, bf16);
        on a GPU not measured yet
Expect  one seed on split 1 (docs/notes/results_split_1.md), test: all three at once 70.7 / 91.5 /
        83.6 % for age group / gender / race, each alone 71.1 / 92.0 / 83.4 %
"""

from benchmark.experiment import TASKS, Augmentation, Backbone, Experiment, Head, Recipe
from experiments.variations import seeing_gender

MTL_SHORT = Experiment(
    name="mtl-cnn-none-full-short",
    asks="How far does a small network trained from scratch for eight epochs get?",
    backbone=Backbone("cnn"),
    head=Head(),
    recipe=Recipe(
        learning_rate=1e-3,
        batch_size=32,
        max_epochs=8,
        schedule="cosine",
        augmentation=Augmentation(flip=True),
    ),
)

STL_SHORT = tuple(
    MTL_SHORT.varied(
        name=MTL_SHORT.counterpart_name(task),
        asks=f"Is {task.replace('_', ' ')} predicted better by a CNN that learns nothing else?",
        compare_with=MTL_SHORT.name,
        **{"head.tasks": (task,)},
    )
    for task in TASKS
)

PLAIN = Experiment(
    name="mtl-cnn-none-full",
    asks="How far does a small network trained from scratch on the study's recipe get?",
    backbone=Backbone("cnn"),
    head=Head(),
    recipe=Recipe(learning_rate=1e-3, batch_size=32),
)
STUDY = (
    PLAIN,
    *seeing_gender(PLAIN, {"embedding": None, "gate": None, "attention": None}),
)

EXPERIMENTS = (MTL_SHORT, *STL_SHORT, *STUDY)
