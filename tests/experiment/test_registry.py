"""Every definition is held to the registry's rules; the study's rows are as it printed them.

Definitions from outside the project: the very examples of CONTRIBUTING.md, installed.
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmark import registry
from benchmark.cli.main import app
from benchmark.errors import ExperimentError
from benchmark.experiment.architectures import ARCHITECTURES
from benchmark.experiment.definition import CONDITIONINGS, Experiment, Protocol, Suite
from benchmark.experiment.parts import flattened
from benchmark.identity import Ingredients, identity_of, steering_content
from benchmark.registry import named, tuned_folder
from benchmark.tasks import TASKS
from tests.conftest import ROOT, shared_file

ALL = tuple(registry.experiments().values())
FULL = registry.experiment("mtl-squeezenet1_1-imagenet-full")


def test_no_two_experiments_are_the_same_training() -> None:
    trainings = [
        (item.backbone, item.head, item.recipe, item.protocol, item.subset) for item in ALL
    ]
    assert len(set(trainings)) == len(trainings)


def test_what_bears_the_name_of_a_counterpart_differs_in_tasks_alone() -> None:
    for experiment in ALL:
        # Replays of the study are let off: it trained its single tasks otherwise.
        if len(experiment.head.tasks) == 1 or experiment.protocol.leaky:
            continue
        for task, stl in registry.counterparts_of(experiment).items():
            name = experiment.counterpart_name(task)
            assert (stl is None) == (name not in registry.experiments()), name
            alone = replace(experiment.head, tasks=(task,), conditioning="none")
            assert stl is None or stl.head == alone, name
    replayed = registry.experiment("mtl-vgg16-imagenet-block5-published")
    assert registry.experiment(replayed.counterpart_name("race")).recipe != replayed.recipe
    assert set(registry.counterparts_of(replayed).values()) == {None}


def test_compared_experiments_differ_in_one_respect_and_share_their_recipe() -> None:
    for experiment in ALL:
        if experiment.compare_with is None:
            continue
        other = registry.experiment(experiment.compare_with)
        standardised = experiment.recipe.standardise_features
        recipe = replace(other.recipe, standardise_features=standardised)
        assert experiment.recipe == recipe, experiment.name
        ours, others = (
            dict(flattened(steering_content(of.as_dict()))) for of in (experiment, other)
        )
        differing = [path for path in ours | others if ours.get(path) != others.get(path)]
        assert len(differing) == 1, (experiment.name, differing)


def test_a_mistyped_name_is_answered_with_the_nearest() -> None:
    for look_up, name, said in (
        (registry.experiment, "mtl-cnn-none-ful-short", "Did you mean mtl-cnn-none-full-short"),
        (registry.suite, "studdy", r"unknown suite 'studdy' .*quick.*Did you mean study\?"),
        (registry.suite, "fast", r"unknown suite 'fast' \(allowed: .*quick, study"),
        (registry.grid, "grid-nobody", "unknown grid 'grid-nobody'"),
        (registry.suite, "tuned", "nothing has been tuned here"),
    ):
        with pytest.raises(ExperimentError, match=said):
            look_up(name)


def test_modules_that_contradict_each_other_are_refused() -> None:
    lost = replace(FULL, name=f"{FULL.name}-lost", compare_with="nobody")
    second = SimpleNamespace(__name__="two", EXPERIMENTS=(FULL,))
    no_tuple, suite = "EXPERIMENTS of one is {}.*a tuple of Exp", Suite("s", "Why?", ("nobody",))
    for said, defined in (
        ("one and two", {"EXPERIMENTS": (FULL,)}),
        ("suite 's' lists 'nobody'", {"SUITES": (suite,)}),
        ("compares itself with 'nobody'", {"EXPERIMENTS": (lost,)}),
        (no_tuple.format(r"Experiment\("), {"EXPERIMENTS": FULL}),
        (no_tuple.format(r"\["), {"EXPERIMENTS": [FULL.name]}),
        (no_tuple.format("None"), {"EXPERIMENTS": None}),
    ):
        with pytest.raises(ExperimentError, match=said):
            registry.collect([SimpleNamespace(__name__="one", **defined), second])  # type: ignore


def test_reading_definitions_loads_no_heavy_package() -> None:
    heavy = ("torch", "mlflow", "optuna", "timm", "numpy", "pandas")
    code = (
        "import sys; from benchmark import registry; assert len(registry.experiments()) >= 200; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_every_leak_free_experiment_has_folds_that_its_name_finds() -> None:
    for experiment in ALL:
        if not experiment.protocol.leaky:
            fold = experiment.in_fold(4)
            assert registry.experiment(fold.name) == fold, experiment.name
            assert registry.folds_of([experiment.name, fold.name]) == {fold.name: fold}
    for name in ("mtl-cnn-none-full-fold5", "mtl-none-full-fold1", "fold1"):
        assert registry.folds_of([name]) == {}
        with pytest.raises(ExperimentError, match="unknown experiment"):
            registry.experiment(name)


def written(runs_dir: Path, tuned: Experiment, untuned: Experiment | None = None) -> Path:
    path = tuned_folder(runs_dir) / f"{FULL.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = untuned.as_dict() if untuned else None
    recipe = {"schema": 1, "base": FULL.name, "tuned": tuned.as_dict(), "untuned": beside}
    path.write_text(json.dumps(recipe), encoding="utf-8")
    return path


def tuned(base: Experiment = FULL, **settings: object) -> Experiment:
    return named(FULL, base.adjusted(settings), "tuned")


def test_a_tuned_recipe_is_registered_beside_its_base_where_it_is_asked_for(tmp_path: Path) -> None:
    here = tmp_path / "one"
    # Its name says where it began, since the depth moved.
    found = tuned(**{"backbone.trainable_stages": 2})
    assert found.name == "mtl-squeezenet1_1-imagenet-fire4_5-tuned_from_full"
    written(here, found)
    with registry.with_tuned(here):
        assert registry.suite("tuned").experiments == (found.name, FULL.name)
        assert registry.experiment(found.name) == replace(found, compare_with=FULL.name)
        with registry.with_tuned(tmp_path / "two"):
            assert found.name not in registry.experiments()
    shown = CliRunner().invoke(app, ["list", "--runs-dir", str(here), "--json"])
    assert found.name in shown.stdout
    assert found.name not in registry.experiments()


def test_a_recipe_that_changed_is_read_again_with_what_was_changed_besides(tmp_path: Path) -> None:
    with registry.with_tuned(tmp_path):
        for decay in (0.5, 0.25):
            short = FULL.adjusted({"recipe.max_epochs": 2})
            found = tuned(short, **{"recipe.decay": decay})
            path = written(tmp_path, found, named(FULL, short, "untuned"))
            os.utime(path, ns=(0, int(decay * 1e9)))
            names = registry.suite("tuned").experiments
            assert names == (f"{FULL.name}-tuned", f"{FULL.name}-untuned")
            assert registry.experiment(names[0]).recipe.decay == decay
            assert registry.experiment(names[1]).recipe.max_epochs == 2


def test_a_damaged_recipe_is_refused_by_itself(tmp_path: Path) -> None:
    for number, text in enumerate(("no json", "{}", '{"schema": 9}', '{"schema": 1, "tuned": {}}')):
        path = tuned_folder(tmp_path / str(number)) / "broken.json"
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
        with registry.with_tuned(tmp_path / str(number)):
            (refused,) = registry.refused()
            assert str(path) in refused.source
            assert FULL.name in registry.experiments()


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
    demo = list(registry.experiments_of("demo"))
    assert {item.backbone.weights for item in demo} == {"none"}
    assert sum(all(registry.counterparts_of(item).values()) for item in demo) >= 3
    for suite in ("study", "matrix", "modern"):
        for experiment in registry.experiments_of(suite):
            if not experiment.name.endswith("-short"):  # six epochs: no row of the comparison
                assert None not in registry.counterparts_of(experiment).values(), experiment.name


def test_plan35_without_weights_is_still_thirty_five_different_runs() -> None:
    plan = [item.adjusted({"backbone.weights": "none"})
            for item in registry.experiments_of("plan35")]  # fmt: skip
    assert {item.backbone.weights for item in plan} == {"none"}
    ingredients = Ingredients(None, "ab" * 32, "cd" * 32, trainer_version=1)
    assert len({identity_of(item, ingredients, 0) for item in plan}) == 35


EXAMPLES = re.findall(
    r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL
)


def install(folder: Path, name: str, module: str) -> None:
    """Lay a package with one definition module into `folder`, as pip would."""
    package = folder / name
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "experiments.py").write_text(module)
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        f"[facebench.experiments]\n{name} = {name}.experiments\n"
    )


def facebench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command where the packages in `folder` are installed, outside the project."""
    path = os.pathsep.join([str(folder), str(ROOT)])
    code = "from benchmark.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": path}, check=False,
    )  # fmt: skip


def listed(folder: Path) -> dict[str, Any]:
    answer = facebench(folder, "list", "--json")
    assert answer.returncode == 0, answer.stderr
    content: dict[str, Any] = json.loads(answer.stdout)
    return content


@pytest.mark.slow
def test_the_documented_ten_lines_add_experiments(tmp_path: Path) -> None:
    install(tmp_path, "my_gates", EXAMPLES[0])
    install(tmp_path, "my_faces", EXAMPLES[1])
    # Packages may build on each other in any order.
    suite = "Suite('gates', 'Do gates help?', ('mtl-vgg19-imagenet-block5-gate',))"
    install(tmp_path, "earlier", f"from benchmark.experiment import Suite\nSUITES = ({suite},)\n")
    answer = listed(tmp_path)
    assert answer["warnings"] == []
    assert "gates" in {item["name"] for item in answer["data"]["suites"]}
    names = {item["name"] for item in answer["data"]["experiments"]}
    assert {"mtl-vgg19-imagenet-block5-gate", "mtl-resnet18-imagenet-full"} <= names


BROKEN = {
    "imports": ("import nothing_of_the_kind\n", "No module named 'nothing_of_the_kind'"),
    "empty": ("X = 1\n", "empty.experiments defines nothing"),
    "contradicts": ("from benchmark.experiment import Backbone\nBackbone('cnn', 'imagenet')\n",
                    "cnn has no 'imagenet' weights"),
    "clashes": ("from experiments.vgg16 import FULL\nEXPERIMENTS = (FULL,)\n",
                "experiments.vgg16 and clashes.experiments"),
}  # fmt: skip
"""Definition modules that cannot be used, and what is said of each."""


def test_broken_packages_are_refused_by_name_and_hide_nothing(tmp_path: Path) -> None:
    for name, (module, _) in BROKEN.items():
        install(tmp_path, name, module)
    install(tmp_path, "sound", EXAMPLES[0])
    answer = listed(tmp_path)
    assert len(answer["warnings"]) == len(BROKEN)
    for name, (_, reason) in BROKEN.items():
        where = f"entry point '{name}' ({name}.experiments)"
        (warning,) = [text for text in answer["warnings"] if where in text]
        assert reason in warning
    names = {item["name"] for item in answer["data"]["experiments"]}
    assert {"mtl-vgg16-imagenet-full", "mtl-vgg19-imagenet-block5-gate"} <= names
    unknown = facebench(tmp_path, "show", "mtl-vgg19-imagenet-block6-gate")
    assert unknown.returncode == 2
    assert "which installed package was refused" in " ".join(unknown.stderr.split())
