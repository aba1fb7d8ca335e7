"""The small CNN from scratch: what can be read from a face without any pretraining?

Cost    eight epochs of UTKFace: 318 to 658 s a run on two shared CPU cores (AMD EPYC, bf16);
        on a GPU not measured yet
Expect  one seed, runs in docs/RESULTS.md, test: all three at once 70.7 / 91.5 / 83.6 % for age
        group / gender / race, each alone 71.1 / 92.0 / 83.4 %
"""

from benchmark.experiment import (
    TASKS,
    Augmentation,
    Backbone,
    Experiment,
    Head,
    Recipe,
)

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
        name=MTL_SHORT.twin_name(task),
        asks=f"Is {task.replace('_', ' ')} read better by a CNN that learns nothing else?",
        compare_with=MTL_SHORT.name,
        **{"head.tasks": (task,)},
    )
    for task in TASKS
)

EXPERIMENTS = (MTL_SHORT, *STL_SHORT)
