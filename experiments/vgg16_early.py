"""The study's early notebooks: VGG16 from VGGFace with every cell of its last feature map.

Rows R1 to R6: batches of 128, and the 3 x 3 x 512 features flattened instead of pooled. Their age
group and race are the best the study printed. It trained R4 to R6 without clipping, with a schedule
of their own and an early stop; here all six have one recipe.

Cost    not measured yet
Expect  not measured yet
"""

from benchmark.experiment import Backbone, Experiment, Head, Recipe, StudyRow
from experiments.variations import alone, seeing_gender

FLATTENED = Experiment(
    name="mtl-vgg16-vggface-block5-flatten",
    asks="How accurate is VGG16 when its heads see where each feature lies?",
    backbone=Backbone("vgg16", weights="vggface", trainable_stages=1),
    head=Head(features="flattened"),
    recipe=Recipe(learning_rate=1e-4, batch_size=128),
    study=StudyRow("R1", age_group=0.9270, gender=0.9805, race=0.9482),
)
SEEING_GENDER = tuple(
    seeing_gender(
        FLATTENED,
        {
            "embedding": StudyRow("R2", age_group=0.9202, gender=0.9784, race=0.9542),
            "gate": StudyRow("R3", age_group=0.9253, gender=0.9767, race=0.9550),
        },
    )
)
ALONE = tuple(
    alone(
        FLATTENED,
        {
            "age_group": StudyRow("R4", age_group=0.9262),
            "gender": StudyRow("R5", gender=0.9818),
            "race": StudyRow("R6", race=0.9627),
        },
    )
)

EXPERIMENTS = (FLATTENED, *SEEING_GENDER, *ALONE)
