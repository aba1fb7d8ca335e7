"""The small CNN from scratch: what can be read from a face without any pretraining?

Cost    see docs/RESULTS.md, suite quick
Expect  see docs/RESULTS.md, suite quick. A pilot of 20 epochs on faces it had not seen
        (another split, one seed): 70.0 / 91.1 / 81.3 % for age group / gender / race.
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
