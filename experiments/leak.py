"""The leak taken apart: from the study's protocol to ours, one condition after another.

Two small networks, each trained by one rule in every run group: until it knows its training faces
(99 % of each task, in eval mode), or for 40 epochs; on faces of 32 px, so that all sixty runs of a
sample of 4,000 faces are a matter of hours on one core without bf16. `published` is the study's
protocol (its split, fixed batches, input scaling and selection) under a recipe of ours; each
further model changes one thing more, down to `honest`, which is leak-free. The order is one of
many, and what a step is worth depends on it: the `only` run groups change a single condition of
`published` each. The suite `leak_vgg16` has the same ones for VGG16 from no weights, with the
study's recipe at 100 px: a matter for a GPU. The suite `headline` is the study's own network from
its own weights: its rows 2.2 and 2.6, replayed under `published` and honest.

Cost    1.4 to 8 s a run of the CNN, 11 to 31 s of SqueezeNet, six at a time on one NVIDIA H200
Expect  our replay of the CNN LEAKY 91.2 / 95.5 / 92.2 %, on the 70 faces it never met 60.5 / 81.0 /
        66.7 %, honest 57.1 / 82.2 / 70.1 % (age group / gender / race, three seeds, 4,000 faces of
        split 2: docs/notes/leak_cnn.md)
"""

from collections.abc import Iterator
from typing import Final

from benchmark.experiment import Backbone, Experiment, Head, Protocol, Recipe, Suite

STEPS: Final = {
    "published": Protocol("published-1", input_scaling="unit", shuffling="fixed_batches"),
    "split": Protocol("test-by-file-1", input_scaling="unit", shuffling="fixed_batches"),
    "duplicates": Protocol("clean-test-1", input_scaling="unit", shuffling="fixed_batches"),
    "batches": Protocol("clean-test-1", input_scaling="unit"),
    "scaling": Protocol("clean-test-1"),
    "honest": Protocol("leak-free-2"),
}
"""What each changes, cumulatively; `honest` also selects on validation faces not trained on."""
ALONE: Final = {
    "only_split": STEPS["split"],
    "only_duplicates": Protocol("unique-1", input_scaling="unit", shuffling="fixed_batches"),
    "only_batches": Protocol("published-1", input_scaling="unit"),
    "only_scaling": Protocol("published-1", shuffling="fixed_batches"),
    "only_selection": Protocol("clean-val-1", input_scaling="unit", shuffling="fixed_batches"),
}
"""One condition of `published` changed by itself; `only_split` is named `split`."""
ASKS: Final = {
    "published": "What does a network score on the study's split, batched, scaled and selected so?",
    "split": "What is left when no test file is in training?",
    "duplicates": "What is left when no picture of a test face's cluster is in training either?",
    "batches": "What changes when batches are drawn anew each epoch?",
    "scaling": "What changes when the input is scaled as the weights demand?",
    "honest": "What is left when selection does not see training faces either?",
    "only_duplicates": "What does the study's split score on one face per cluster?",
    "only_batches": "What does the study's protocol score with batches drawn anew each epoch?",
    "only_scaling": "What does the study's protocol score with the input the weights demand?",
    "only_selection": "What do the study's conditions score when selection is on clean faces?",
}

CNN = Experiment(
    name="mtl-cnn-none-full-until99-published",
    asks=ASKS["published"],
    backbone=Backbone("cnn", input_px=32),
    head=Head(),
    recipe=Recipe(
        learning_rate=1e-3,
        batch_size=64,
        max_epochs=40,
        until_train_accuracy=0.99,
        schedule="cosine",
    ),
    protocol=STEPS["published"],
)
SQUEEZENET = CNN.varied(
    name="mtl-squeezenet1_1-imagenet-full-until99-published",
    **{
        "backbone": Backbone("squeezenet1_1", weights="imagenet", input_px=32),
        "recipe.learning_rate": 5e-4,
        "recipe.batch_size": 32,
    },
)

VGG16 = CNN.varied(
    name="mtl-vgg16-none-full-published",
    backbone=Backbone("vgg16"),
    recipe=Recipe(learning_rate=1e-4),
)
"""The recipe of `mtl-vgg16-none-full`, 30 epochs: a network that the study used, as it used it."""


def experiments_of(first: Experiment) -> Iterator[Experiment]:
    """Give a network's run groups: the steps in their order, then each condition alone."""
    base = first.name.removesuffix("-published")
    for ending, protocol in (STEPS | ALONE).items():
        if ending != "only_split":
            yield first.varied(name=f"{base}-{ending}", asks=ASKS[ending], protocol=protocol)


SMALL = (*experiments_of(CNN), *experiments_of(SQUEEZENET))
STUDYS = tuple(item for item in experiments_of(VGG16) if item.protocol.leaky)
"""The honest one is a row that is there anyway, under its own name."""

EXPERIMENTS = (*SMALL, *STUDYS)

SUITE = Suite(
    name="leak",
    asks="How much of a leaky score is the leak, and how much each condition that made it?",
    experiments=tuple(item.name for item in SMALL),
)
HEADLINE = Suite(
    name="headline",
    asks="What the study printed for its own network: does it appear on its leaking split, and "
    "what is honest?",
    experiments=(
        "mtl-vgg16-imagenet-block5-published",
        "mtl-vgg16-imagenet-block5",
        "mtl-vgg16-imagenet-full-published",
        "mtl-vgg16-imagenet-full",
    ),
)
SUITE_VGG16 = Suite(
    name="leak_vgg16",
    asks="How much of a leaky score of the study's network, from nothing, is the leak?",
    experiments=(*(item.name for item in STUDYS), "mtl-vgg16-none-full"),
)
