"""Four small networks without pretrained weights, and the first one's tasks one by one.

`make demo` runs them on synthetic faces: a first look at every table and page, without a download.
Each differs from the first in one respect.

Cost    all seven on 3,000 synthetic faces: about two minutes of one CPU core
Expect  age group, gender and race well above the majority class, but from untrained features
"""

from benchmark.experiment import TASKS, Augmentation, Backbone, Experiment, Head, Recipe, Suite
from experiments.variations import seeing_gender

SMALL = Experiment(
    name="mtl-cnn-none-full-demo",
    asks="How far does a small network trained from scratch for five epochs get?",
    backbone=Backbone("cnn", input_px=64),
    head=Head(),
    recipe=Recipe(
        learning_rate=2e-3,
        batch_size=32,
        max_epochs=5,
        schedule="cosine",
        augmentation=Augmentation(flip=True),
    ),
)
(GATE,) = seeing_gender(SMALL, {"gate": None})
COARSE = SMALL.varied(
    name="mtl-cnn-none-full-demo-32px",
    asks="How much accuracy does a quarter of the pixels cost?",
    compare_with=SMALL.name,
    **{"backbone.input_px": 32},
)
FROZEN = SMALL.varied(
    name="mtl-cnn-none-frozen-demo",
    asks="What can be predicted from the features of a backbone that was not trained?",
    compare_with=SMALL.name,
    **{"backbone.trainable_stages": 0},
)
STL = tuple(
    SMALL.varied(
        name=SMALL.counterpart_name(task),
        asks=f"Is {task.replace('_', ' ')} predicted better by a network that learns nothing else?",
        compare_with=SMALL.name,
        **{"head.tasks": (task,)},
    )
    for task in TASKS
)

EXPERIMENTS = (SMALL, GATE, COARSE, FROZEN, *STL)

SUITE = Suite(
    name="demo",
    asks="In about two minutes and without a download: what does the benchmark show?",
    experiments=tuple(item.name for item in EXPERIMENTS),
)
