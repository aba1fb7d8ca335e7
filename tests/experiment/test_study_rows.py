"""The study's rows as it printed them, and suites that hold what they promise."""

import json
from collections import Counter
from itertools import product

import pytest

from benchmark import registry
from benchmark.experiment.architectures import ARCHITECTURES
from benchmark.experiment.definition import CONDITIONINGS, Protocol
from benchmark.identity import Ingredients, family_of
from benchmark.tasks import TASKS
from tests.conftest import shared_file

STUDY = tuple(registry.experiments_of("study"))

PRINTED_BY_HAND = [
    # row, name, rate, batch, age group, gender, race: copied from the table of the notebooks
    ("2.1", "mtl-vgg16-imagenet-frozen", 1e-3, 32, 0.6377, 0.8986, 0.7213),
    ("2.4", "mtl-vgg16-imagenet-block5-gate", 1e-4, 32, 0.9045, 0.9703, 0.9385),
    ("2.6", "mtl-vgg16-imagenet-full", 1e-4, 32, 0.9245, 0.9818, 0.9495),
    ("3.5", "mtl-vgg16-vggface-block5-attention", 1e-4, 32, 0.9168, 0.9741, 0.9461),
    ("5.2a", "age_group-vgg16-imagenet-block5", 1e-4, 32, 0.8299, None, None),
    ("5.1b", "gender-vgg16-imagenet-full", 1e-4, 32, None, 0.9813, None),
    ("6.1", "mtl-vgg19-imagenet-block5", 1e-4, 32, 0.9041, 0.9775, 0.9431),
    ("7.1", "mtl-resnet50-imagenet-frozen", 1e-3, 16, 0.5091, 0.7832, 0.4943),
    ("7.3", "mtl-resnet50-imagenet-full", 1e-5, 16, 0.8931, 0.9593, 0.9330),
    ("8.1", "mtl-densenet121-imagenet-frozen", 1e-4, 32, 0.7230, 0.9398, 0.7734),
    ("8.2", "mtl-densenet121-imagenet-full", 1e-5, 32, 0.8986, 0.9601, 0.9283),
    ("R2", "mtl-vgg16-vggface-block5-embedding-flatten", 1e-4, 128, 0.9202, 0.9784, 0.9542),
    ("R6", "race-vgg16-vggface-block5-flatten", 1e-4, 128, None, None, 0.9627),
]


def test_a_study_row_is_as_the_notebook_printed_it() -> None:
    for printed in PRINTED_BY_HAND:
        experiment = registry.experiment(printed[1])
        study, recipe = experiment.study, experiment.recipe
        assert study is not None
        assert printed == (
            study.row, experiment.name, recipe.learning_rate, recipe.batch_size,
            study.age_group, study.gender, study.race,
        )  # fmt: skip


NOTEBOOKS = {
    **{f"2.{n}": f"MTL_based_VGGmodel_ImageNetweights_v{n}" for n in range(1, 6)},
    "2.6": "MTL_based_VGGmodel_ImageNetweights_with_fully_trainable_layers",
    **{f"3.{n}": f"MTL_based_VGGmodel_VGGFaceweights_v{n}" for n in range(1, 6)},
    "3.6": "MTL_based_VGGmodel_VGGFaceweights_with_fully_trainable_layers",
    "5.1": "1_STL_VGGmodel_imagenet_weights_for_gender_classification",
    "5.2": "2_STL_VGGmodel_imagenet_weights_for_age_group_classification_new",
    "5.3": "3_STL_VGGmodel_imagenet_weights_for_race_classification",
    "6.1": "MTL_based_frozen_VGG19model_with_ImageNetweights_v1",
    "6.2": "MTL_based_VGG19model_ImageNetweights_with_fully_trainable_layers",
    "7.1": "MTL_based_frozen_ResNet50_model_with_ImageNetweights_v1",
    "7.3": "MTL_based_fully_trainable_ResNet50_model_with_ImageNet_weights",
    "8.1": "MTL_frozen_DenseNet121_based_model_with_ImageNetweights_v1",
    "8.2": "MTL_fully_trainable_DenseNet121_based_model_with_ImageNetweights",
    "R1": "age_group_gender_race_classifications_using_multi_task_learning_v1",
    "R2": "age_group_gender_race_classifications_using_gender_embedding_multi_task_learning_v2",
    "R3": "age_group_gender_race_classifications_using_gender_embedding_multi_task_learning_v3",
    "R4": "age_group_classification_VGG16_transfer_learning_from_VGGFace_v1",
    "R5": "gender_classification_VGG16_transfer_learning_from_VGGFace_v1",
    "R6": "race_classification_VGG16_transfer_learning_from_VGGFace_v1",
}
"""The notebook of each row; those of 5.1 to 5.3 hold two models, a and b."""


@pytest.mark.real
def test_every_study_row_is_what_its_notebook_printed() -> None:
    notebooks = {
        item["notebook"].rpartition("/")[2].removesuffix(".ipynb"): item
        for item in json.loads(shared_file("reference", "thesis_results.json").read_text())
    }
    for experiment in STUDY:
        study, name = experiment.study, experiment.name
        if study is None:
            continue
        told = notebooks[NOTEBOOKS[study.row.rstrip("ab")]]
        test = told["variants"][0]["test"] if study.row.endswith("a") else told["test"]
        words = {"age_group": "age", "gender": "gender", "race": "race"}
        printed = {task: test[word]["accuracy"] for task, word in words.items() if word in test}
        assert {task: getattr(study, task) for task in experiment.head.tasks} == printed, name
        recipe, backbone = experiment.recipe, experiment.backbone
        assert (told["lr"], told["batch_size"]) == (recipe.learning_rate, recipe.batch_size), name
        assert told["backbone"].lower() == backbone.architecture, name
        assert told["weights"].lower().startswith(backbone.weights), name
        assert told["epochs"]["max"] == recipe.max_epochs or study.row in ("R5", "R6"), name


def test_every_row_of_the_study_is_there_once() -> None:
    rows = Counter(item.study.row for item in STUDY if item.study)
    stl = [f"5.{n}{model}" for n, model in product((1, 2, 3), "ab")]
    assert rows == Counter({*NOTEBOOKS, *stl} - {"5.1", "5.2", "5.3"})
    cnn = ["mtl-cnn-none-full", *(f"mtl-cnn-none-full-{c}" for c in CONDITIONINGS[1:])]
    ours = [*cnn, "mtl-resnet50-imagenet-conv5", "mtl-densenet121-imagenet-denseblock4"]
    assert [item.name for item in STUDY if item.study is None] == ours
    assert {item.protocol for item in STUDY} == {Protocol()}, "leak-free"
    assert {item.recipe.max_epochs for item in STUDY} == {30}
    honest = [item for item in registry.experiments().values() if item.protocol == Protocol()]
    assert Counter(item.study.row for item in honest if item.study) == rows, "no other has a number"


def test_the_matrix_holds_every_published_start_of_every_architecture() -> None:
    expected = {
        f"{task}-{name}-{source}-{depth}"
        for name, architecture in ARCHITECTURES.items()
        for task, source in product(("mtl", *TASKS), architecture.weight_sources)
        for depth in (["full"] if source == "none" else ["full", architecture.stages[-1]])
    }
    assert {item.name for item in registry.experiments_of("matrix")} == expected


def test_every_multi_task_row_has_its_three_counterparts() -> None:
    for suite in ("study", "matrix", "modern"):
        for experiment in registry.experiments_of(suite):
            if not experiment.name.endswith("-short"):  # six epochs: no row of the comparison
                assert None not in registry.counterparts_of(experiment).values(), experiment.name


def test_plan35_without_weights_is_still_thirty_five_different_runs() -> None:
    plan = [item.adjusted({"backbone.weights": "none"})
            for item in registry.experiments_of("plan35")]  # fmt: skip
    assert {item.backbone.weights for item in plan} == {"none"}
    ingredients = Ingredients(None, "ab" * 32, "cd" * 32, trainer_version=1)
    assert len({family_of(item, ingredients) for item in plan}) == 35
