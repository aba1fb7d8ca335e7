"""VGG16 for three tasks at once: from which weights, how far unfrozen, and does gender help?

The study's main table, rows 2.1 to 2.6 from ImageNet and 3.1 to 3.6 from VGGFace. What is not said
here is a default of benchmark/experiment/parts.py: `Recipe` has 30 epochs of Adam at a rate that
decays after 20 of them, with clipped gradients; `Backbone` 100 px; `Head` all three tasks, 128
hidden units each; `Protocol` the split leak-free-2 and selection by validation accuracy.

Cost    30 epochs on UTKFace, one core with native bf16: block 5 35 minutes;
        frozen under a minute once its features are computed
Expect  one seed, from ImageNet, test age group / gender / race: frozen 61 / 85 / 65 %, block 5
        68 / 91 / 82 % (docs/RESULTS.md); what the study printed is in each row's `study`, and was
        made on a split that leaks
"""

from benchmark.experiment import (
    AUGMENTATION,
    DEPTH,
    RATE,
    RATIO,
    Backbone,
    Choices,
    Experiment,
    Floats,
    Head,
    Integers,
    Recipe,
    SearchSpace,
    StudyRow,
)
from experiments.variations import seeing_gender

FROZEN = Experiment(
    name="mtl-vgg16-imagenet-frozen",
    asks="How much of a face do VGG16's ImageNet features hold, as they are?",
    backbone=Backbone("vgg16", weights="imagenet", trainable_stages=0),
    head=Head(),
    recipe=Recipe(learning_rate=1e-3, batch_size=32),
    study=StudyRow("2.1", age_group=0.6377, gender=0.8986, race=0.7213),
)
BLOCK5 = Experiment(
    name="mtl-vgg16-imagenet-block5",
    asks="How accurate is VGG16 when only its deepest block learns?",
    backbone=Backbone("vgg16", weights="imagenet", trainable_stages=1),
    head=Head(),
    recipe=Recipe(learning_rate=1e-4, batch_size=32),
    study=StudyRow("2.2", age_group=0.9028, gender=0.9758, race=0.9253),
)
SPACE = SearchSpace(
    (
        Floats(RATE, 1e-5, 1e-2),
        Integers(DEPTH, 0, 1),
        Floats(RATIO, 1e-3, 1.0),
        Choices("head.hidden_units", (64, 128, 256, 512)),
        Choices("recipe.weight_decay", (0.0, 1e-4, 1e-3, 1e-2, 1e-1)),
        Integers(AUGMENTATION, 0, 1),
    )
)
"""Of row 2.2: block 5 at most, mirrored at most, so that every trial reads features that are
computed once."""
SEEING_GENDER = tuple(
    seeing_gender(
        BLOCK5,
        {
            "embedding": StudyRow("2.3", age_group=0.8978, gender=0.9784, race=0.9393),
            "gate": StudyRow("2.4", age_group=0.9045, gender=0.9703, race=0.9385),
            "attention": StudyRow("2.5", age_group=0.9050, gender=0.9796, race=0.9385),
        },
    )
)
FULL = BLOCK5.varied(
    name="mtl-vgg16-imagenet-full",
    asks="Does training the whole backbone beat training its deepest block?",
    compare_with=BLOCK5.name,
    study=StudyRow("2.6", age_group=0.9245, gender=0.9818, race=0.9495),
    **{"backbone.trainable_stages": "all"},
)

FACE_FROZEN = FROZEN.varied(
    name="mtl-vgg16-vggface-frozen",
    asks="Do features learnt on faces hold more than ImageNet's, as they are?",
    compare_with=FROZEN.name,
    study=StudyRow("3.1", age_group=0.6525, gender=0.9313, race=0.7378),
    **{"backbone.weights": "vggface"},
)
FACE_BLOCK5 = BLOCK5.varied(
    name="mtl-vgg16-vggface-block5",
    asks="Do face weights beat ImageNet's when the deepest block learns?",
    compare_with=BLOCK5.name,
    study=StudyRow("3.2", age_group=0.9109, gender=0.9644, race=0.9440),
    **{"backbone.weights": "vggface"},
)
FACE_SEEING_GENDER = tuple(
    seeing_gender(
        FACE_BLOCK5,
        {
            "embedding": StudyRow("3.3", age_group=0.9003, gender=0.9771, race=0.9453),
            "gate": StudyRow("3.4", age_group=0.9181, gender=0.9754, race=0.9495),
            "attention": StudyRow("3.5", age_group=0.9168, gender=0.9741, race=0.9461),
        },
    )
)
FACE_FULL = FULL.varied(
    name="mtl-vgg16-vggface-full",
    asks="Do face weights beat ImageNet's when the whole backbone learns?",
    compare_with=FULL.name,
    study=StudyRow("3.6", age_group=0.9177, gender=0.9788, race=0.9559),
    **{"backbone.weights": "vggface"},
)

EXPERIMENTS = (
    FROZEN,
    # What is varied from it above is searched in its own architecture's space.
    BLOCK5.varied(name=BLOCK5.name, search=SPACE),
    *SEEING_GENDER,
    FULL,
    FACE_FROZEN,
    FACE_BLOCK5,
    *FACE_SEEING_GENDER,
    FACE_FULL,
)
