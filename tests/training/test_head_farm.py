"""The head farm: heads trained together end where each, trained alone, would have ended."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from benchmark.errors import ExperimentError
from benchmark.experiment import Augmentation, Backbone, Experiment, Head, Protocol, Recipe
from benchmark.faces.batches import FaceBatches
from benchmark.models.network import Network, build_network
from benchmark.training.device import Device
from benchmark.training.farm_steps import Recorder
from benchmark.training.head_farm import (
    FarmedHead,
    FarmFaces,
    FarmStep,
    HeadEpoch,
    HeadFailed,
    HeadTrained,
    first_head,
    heads_at_once,
    stacks_of,
    train_farm,
)
from benchmark.training.steps import WARM_UPS
from benchmark.training.trainer import EpochResult, TrainingFaces, TrainingState, fit, start

CPU = Device(torch.device("cpu"), "fp32")
N_TRAIN, N_ALL = 44, 60


def an_experiment(head: dict[str, object] | None = None, **recipe: object) -> Experiment:
    changes = {"learning_rate": 3e-3, "batch_size": 8, "max_epochs": 3} | recipe
    return Experiment(
        name="mtl-squeezenet1_1-none-frozen",
        asks="Do heads learn together?",
        backbone=Backbone("squeezenet1_1", trainable_stages=0, input_px=32),
        head=Head(**({"hidden_units": 12} | (head or {}))),  # type: ignore[arg-type]
        recipe=Recipe(**changes),  # type: ignore[arg-type]
        ad_hoc=True,
    )


@pytest.fixture(scope="module")
def faces() -> FaceBatches:
    """Noise whose red channel tells every label, so that a head can learn it."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(N_ALL) % 2
    pixels = torch.randint(0, 100, (N_ALL, 32, 32, 3), generator=generator)
    pixels[..., 0] += (labels * 150).view(-1, 1, 1)
    truths = dict.fromkeys(("age_group", "gender", "race"), labels)
    return FaceBatches(pixels.to(torch.uint8), truths)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def network() -> Network:
    """The frozen trunk that all share; of seed 0, whatever the head's."""
    return build_network(an_experiment(), None, seed=0).eval()


@pytest.fixture(scope="module")
def farm_faces(network: Network, faces: FaceBatches) -> FarmFaces:
    """Every face's features, and those of its mirror image."""
    images = faces.images(torch.arange(N_ALL))
    with torch.no_grad():
        features = [network.features(view) for view in (images, images.flip(-1))]
    return FarmFaces(features[0], faces.labels, features[1])


def farmed(experiment: Experiment, seed: int = 0) -> FarmedHead:
    return FarmedHead(experiment, seed, torch.arange(N_TRAIN), torch.arange(N_TRAIN, N_ALL))


def grown(
    heads: Sequence[FarmedHead], faces: FarmFaces, at_once: int | None = None
) -> list[FarmStep]:
    return list(train_farm(heads, faces, CPU, at_once))


def endings(steps: Sequence[FarmStep]) -> dict[int, HeadTrained]:
    return {step.place: step for step in steps if isinstance(step, HeadTrained)}


def epochs_of(place: int, steps: Sequence[FarmStep]) -> list[EpochResult]:
    return [step.result for step in steps if isinstance(step, HeadEpoch) and step.place == place]


def alone(
    head: FarmedHead, network: Network, faces: FaceBatches
) -> tuple[TrainingState, list[EpochResult]]:
    """Train the same head with the trainer, from the pictures, on the same trunk."""
    own = build_network(head.experiment, None, head.seed)
    own.trunk.load_state_dict(network.trunk.state_dict())
    state = start(own, head.experiment.recipe, CPU)
    data = TrainingFaces(faces, head.train, head.val)
    steps = fit(state, data, head.experiment, head.seed, CPU)
    return state, [step for step in steps if isinstance(step, EpochResult)]


def check_alike(one: HeadTrained, state: TrainingState) -> None:
    assert one.best_epoch == state.best_epoch
    assert one.epochs == state.epochs_done
    expected = state.network.head.state_dict()
    assert one.parameters.keys() == expected.keys()
    for name, value in one.parameters.items():
        torch.testing.assert_close(value, expected[name], atol=2e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize(
    "head",
    [
        {},
        {"conditioning": "embedding"},
        {"conditioning": "gate"},
        {"conditioning": "attention"},
        {"tasks": ("race",)},
    ],
    ids=str,
)
def test_a_farmed_head_ends_as_the_same_head_trained_alone(
    head: dict[str, object], network: Network, faces: FaceBatches, farm_faces: FarmFaces
) -> None:
    """Different rates, decays, epsilons and seeds beside each other, clipped each by itself.

    The epsilons are large: with Keras's 1e-7 Adam takes a full step along a gradient that is all
    rounding, which two orders of summing do not share.
    """
    heads = [
        farmed(an_experiment(head, clip_norm=0.05, adam_epsilon=1e-4), seed=1),
        farmed(an_experiment(head, learning_rate=1e-2, weight_decay=0.3, adam_epsilon=1e-3), 2),
    ]
    steps = grown(heads, farm_faces)
    for place, planted in enumerate(heads):
        state, results = alone(planted, network, faces)
        check_alike(endings(steps)[place], state)
        for mine, theirs in zip(epochs_of(place, steps), results, strict=True):
            assert mine.train_loss == pytest.approx(theirs.train_loss, rel=1e-4)
            assert mine.val_accuracy == theirs.val_accuracy
            assert mine.train_accuracy == theirs.train_accuracy
            assert mine.is_best == theirs.is_best


@pytest.mark.parametrize(
    "recipe",
    [
        {"clipping": "global", "clip_norm": 0.05, "schedule": "cosine"},
        {"clipping": "none", "constant_epochs": 1, "decay": 0.5},
        {"steps_per_epoch": 3, "batch_size": 20},
        {"augmentation": Augmentation(flip=True)},
        {"early_stopping_epochs": 1, "max_epochs": 6},
        {"until_train_accuracy": 0.7, "max_epochs": 12},
        {"batch_size": 43},
    ],
    ids=str,
)
def test_a_recipe_means_in_a_farm_what_it_means_alone(
    recipe: dict[str, object], network: Network, faces: FaceBatches, farm_faces: FarmFaces
) -> None:
    """Beside a head that ends at another epoch, where the recipe lets it."""
    heads = [
        farmed(an_experiment(None, adam_epsilon=1e-3, **recipe), seed=3),
        farmed(an_experiment(None, adam_epsilon=1e-3, **recipe | {"learning_rate": 2e-2}), seed=4),
    ]
    steps = grown(heads, farm_faces)
    for place, planted in enumerate(heads):
        state, results = alone(planted, network, faces)
        check_alike(endings(steps)[place], state)
        assert [step.learning_rate for step in epochs_of(place, steps)] == [
            result.learning_rate for result in results
        ]
        assert [step.fitted_accuracy for step in epochs_of(place, steps)] == [
            result.fitted_accuracy for result in results
        ]


@pytest.mark.parametrize(
    "protocol", [Protocol(shuffling="fixed_batches"), Protocol(selection="last_epoch")], ids=str
)
def test_a_protocol_means_in_a_farm_what_it_means_alone(
    protocol: Protocol, network: Network, faces: FaceBatches, farm_faces: FarmFaces
) -> None:
    planted = farmed(replace(an_experiment(adam_epsilon=1e-3), protocol=protocol))
    state, _ = alone(planted, network, faces)
    check_alike(endings(grown([planted], farm_faces))[0], state)


class _Tape:
    """Records by keeping the work itself: what a CUDA graph does to the steps, without CUDA."""

    def __init__(self, *, works: bool = True) -> None:
        self.n_replays, self._works = 0, works

    def warm_up(self, work: Callable[[], None]) -> None:
        for _ in range(WARM_UPS):
            work()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        if not self._works:
            raise RuntimeError("no graph here")

        def replay() -> None:
            self.n_replays += 1
            work()

        return replay


def test_recorded_steps_are_the_same_steps(farm_faces: FarmFaces) -> None:
    """44 faces in batches of 8: five full steps an epoch, of which the first three warm up."""
    planted, tape, broken = farmed(an_experiment()), _Tape(), _Tape(works=False)
    said: list[str] = []
    plain = endings(grown([planted], farm_faces))[0].parameters
    for capture in (tape, broken):
        recorder = Recorder(capture, said.append)
        steps = list(train_farm([planted], farm_faces, CPU, None, recorder))
        recorded = endings(steps)[0].parameters
        assert all(torch.equal(recorded[name], value) for name, value in plain.items())
    assert tape.n_replays == 2 + 5 + 5
    assert "cannot be recorded as a CUDA graph (no graph here)" in said[0]
    assert len(said) == 1


def test_first_values_are_those_of_the_network() -> None:
    experiment = an_experiment({"conditioning": "attention"})
    head = first_head(experiment, 512, seed=5)
    expected = build_network(experiment, None, seed=5).head.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in head.state_dict().items())


def test_how_many_share_a_step_changes_no_head(farm_faces: FarmFaces) -> None:
    heads = [farmed(an_experiment(learning_rate=rate), seed=1) for rate in (1e-4, 1e-3, 1e-2)]
    together, each = (endings(grown(heads, farm_faces, at_once=n)) for n in (3, 1))
    for place in range(3):
        for name, value in together[place].parameters.items():
            torch.testing.assert_close(value, each[place].parameters[name], atol=1e-4, rtol=1e-3)


def test_heads_of_one_shape_and_rhythm_share_steps_and_others_do_not() -> None:
    heads = [
        farmed(an_experiment()),
        farmed(an_experiment({"hidden_units": 13})),
        farmed(an_experiment(learning_rate=1e-2), seed=8),
        farmed(an_experiment({"conditioning": "gate"})),
        farmed(an_experiment(batch_size=9)),
        farmed(an_experiment(clipping="none")),
        farmed(an_experiment(max_epochs=9)),
    ]
    assert stacks_of(heads, 512, CPU) == [[0, 2, 6], [1], [3], [4], [5]]
    # Four alike where two may share: two stacks of two, not three and one.
    assert stacks_of([heads[0]] * 4, 512, CPU, at_once=3) == [[0, 1], [2, 3]]


def test_a_cpu_lets_as_many_share_as_its_cache_holds() -> None:
    # 512 features, width 128, three tasks: 3 x (512 x 128 + 128) + 12 x 128 + 12 = 198,540
    # parameters, held four times in a step: 3.18 MB of 25.2.
    assert heads_at_once(an_experiment({"hidden_units": 128}), 512, CPU) == 7
    assert heads_at_once(an_experiment({"hidden_units": 4096}), 4608, CPU) == 1


def test_a_loss_that_is_not_finite_ends_one_head_alone(farm_faces: FarmFaces) -> None:
    wild = an_experiment(learning_rate=1e30, clipping="none")
    tame = an_experiment(clipping="none")
    steps = grown([farmed(wild), farmed(tame)], farm_faces)
    (failed,) = (step for step in steps if isinstance(step, HeadFailed))
    assert failed.place == 0
    assert "training loss" in str(failed.error)
    assert endings(steps)[1].epochs == 3
    (only,) = endings(grown([farmed(tame)], farm_faces)).values()
    for name, value in endings(steps)[1].parameters.items():
        torch.testing.assert_close(value, only.parameters[name])


@pytest.mark.parametrize(
    ("experiment", "said"),
    [
        (replace(an_experiment(), backbone=Backbone("cnn", input_px=32)), "more than its head"),
        (an_experiment(augmentation=Augmentation(brightness=0.1)), "endless ways"),
    ],
)
def test_what_is_no_head_on_fixed_features_is_refused(
    experiment: Experiment, said: str, farm_faces: FarmFaces
) -> None:
    with pytest.raises(ExperimentError, match=said):
        grown([farmed(experiment)], farm_faces)


def test_flipping_needs_the_mirror_images(farm_faces: FarmFaces) -> None:
    plain = FarmFaces(farm_faces.activations, farm_faces.labels)
    with pytest.raises(ExperimentError, match="mirror images have not been read"):
        grown([farmed(an_experiment(augmentation=Augmentation(flip=True)))], plain)
