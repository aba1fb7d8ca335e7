"""Networks freeze what they should, start from their seed alone, and count themselves rightly."""

import dataclasses
import hashlib

import pytest
import torch
from torchvision.models import SqueezeNet1_1_Weights

from benchmark.errors import WeightsError, WeightsMissing
from benchmark.experiment.architectures import ARCHITECTURES
from benchmark.experiment.definition import Backbone, Experiment, Head, Protocol, Recipe
from benchmark.models.backbone import build_backbone
from benchmark.models.network import build_network, rebuild_network
from benchmark.models.preprocessing import CAFFE, CENTRED, UNIT
from benchmark.models.weights import LoadedWeights
from benchmark.tasks import TASKS
from benchmark.training.trainer import start
from tests.models.steps import (
    CPU,
    RECIPE,
    backward,
    changed_stages,
    faces,
    snapshot,
    stages_that_require_gradients,
    train_a_step,
    with_depth,
    with_gradients,
)

SIZE_OF_DEFINITIONS = {"vit_small_patch16_224": 112}
"""In pixels, where it is not 100."""


def experiment(
    architecture: str = "cnn",
    depth: int | str = "all",
    *,
    head: Head | None = None,
    **backbone: object,
) -> Experiment:
    return Experiment(
        name="any",
        asks="Does it work?",
        backbone=Backbone(architecture, trainable_stages=depth, **backbone),  # type: ignore[arg-type]
        head=head or Head(hidden_units=8),
        recipe=Recipe(learning_rate=1e-2),
        ad_hoc=True,
    )


def some_weights(pooling: str = "ceil") -> LoadedWeights:
    backbone = build_backbone("squeezenet1_1", pooling=pooling)
    return LoadedWeights(
        architecture="squeezenet1_1",
        source="imagenet",
        tensors={
            name: torch.full_like(value, 0.01) for name, value in backbone.state_dict().items()
        },
        preprocessing=CAFFE,
        options={"pooling": pooling},
    )


def every_depth(architecture: str) -> list[tuple[int | str, set[str]]]:
    """All that a definition may say of an architecture, and the stages it then trains."""
    stages = ARCHITECTURES[architecture].stages
    depths = [(n, set(stages[len(stages) - n :])) for n in range(len(stages))]
    return [*depths, ("all", set(stages))]


def test_a_step_changes_exactly_the_declared_stages() -> None:
    """Of three: ours, ours with weights, timm's; the test below asks all what they would train."""
    for architecture in ("cnn", "squeezenet1_1", "mobilenetv4_conv_small"):
        built = build_network(experiment(architecture, input_px=32), None, seed=0)
        for depth, declared in every_depth(architecture):
            network = with_depth(built, experiment(architecture, depth, input_px=32))
            before = snapshot(network.backbone)
            train_a_step(network, faces())
            here = (architecture, depth)
            assert changed_stages(network.backbone, before) == declared, here
            assert with_gradients(network.backbone) == declared, here
            assert all(item.grad is not None for item in network.head.parameters()), here


def test_frozen_stages_are_bit_equal_after_many_steps_through_train_and_eval() -> None:
    network = build_network(experiment("mobilenetv4_conv_small", 1, input_px=32), None, seed=0)
    before = snapshot(network.backbone)
    state = start(network, RECIPE, CPU)
    for number in range(3):
        state.network.eval()
        backward(network, faces(2 + number))
        state.optimiser.step()
    assert changed_stages(network.backbone, before) == set(network.trained_stages)


def test_a_definition_trains_what_its_depth_says() -> None:
    for architecture in ARCHITECTURES:
        input_px = SIZE_OF_DEFINITIONS.get(architecture, 100)
        for depth, declared in every_depth(architecture):
            with torch.device("meta"):
                defined = experiment(architecture, depth, input_px=input_px)
                network = build_network(defined, None, seed=0)
            trained = stages_that_require_gradients(network.backbone)
            assert trained == declared, (architecture, depth)
            n_trained = sum(
                parameter.numel()
                for part in (network.head, *(network.backbone.stages[name] for name in declared))
                for parameter in part.parameters()
            )
            assert network.parameter_counts()[1] == n_trained, (architecture, depth)


def test_frozen_batch_norm_stays_in_eval_mode_through_train_and_counting() -> None:
    network = build_network(experiment(depth=2), None, seed=0).eval().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.multiply_adds(100)
    modes = [stage.training for stage in network.backbone.stages.values()]
    assert modes == [False, False, False, True, True]
    assert not any(module.training for module in network.backbone.stages["block3"].modules())
    assert network.head.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_seed_gives_the_same_network_again_and_another_seed_another() -> None:
    for architecture in ("cnn", "squeezenet1_1", "mobilenetv4_conv_small"):
        first, again, other = (
            build_network(experiment(architecture), None, seed).state_dict() for seed in (1, 1, 2)
        )
        assert all(torch.equal(first[name], again[name]) for name in first), architecture
        drawn = [name for name, value in first.items() if value.ndim in (2, 4)]
        assert not any(torch.equal(first[name], other[name]) for name in drawn), architecture


FIRST_VALUES = {
    "cnn": "e38c931211402eb059e8ed7ca617f66855db3dd6cc23011c4d9cf0cf3861adf7",
    "squeezenet1_1": "55c4d98d64d0e63cfd1f9391b881dc2f730411d2b2bb165fbdf9b4431f73627e",
}
"""Of the networks that the first published results began with: a change would unmake them."""


def test_finished_runs_began_with_these_very_values() -> None:
    for architecture, wanted in FIRST_VALUES.items():
        digest = hashlib.sha256()
        network = build_network(experiment(architecture, head=Head()), None, seed=0)
        for name, value in network.state_dict().items():
            digest.update(name.encode())
            digest.update(value.numpy().tobytes())
        assert digest.hexdigest() == wanted, architecture


def test_building_neither_reads_nor_moves_the_global_generator() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = build_network(experiment(), None, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    second = build_network(experiment(), None, seed=0)
    weights = [network.backbone.stages["block5"].conv.weight for network in (first, second)]
    assert torch.equal(*weights)
    # He et al.: variance 2 / fan-in, of 9 * 192 = 1,728
    assert weights[0].std().item() == pytest.approx((2 / 1728) ** 0.5, rel=0.01)


def test_a_backbone_starts_from_its_weights_and_the_head_from_the_seed() -> None:
    defined = experiment("squeezenet1_1", 1, weights="imagenet")
    network, other = (build_network(defined, some_weights(), seed) for seed in (0, 1))
    assert all(bool((value == 0.01).all()) for value in network.backbone.state_dict().values())
    assert not torch.equal(network.head.race.hidden.weight, other.head.race.hidden.weight)
    assert network.backbone.options == {"pooling": "ceil"}
    with pytest.raises(WeightsMissing, match="starts from squeezenet1_1 with 'imagenet' weights"):
        build_network(defined, None, seed=0)
    with pytest.raises(WeightsError, match="was given squeezenet1_1 with 'imagenet' weights"):
        build_network(experiment("cnn"), some_weights(), seed=0)


def test_the_protocols_scaling_overrules_the_weights() -> None:
    defined = experiment("squeezenet1_1", weights="imagenet")
    found = []
    for scaling in ("weights", "unit", "weights_swapped"):
        protocol = Protocol(input_scaling=scaling)  # type: ignore[arg-type]
        network = build_network(dataclasses.replace(defined, protocol=protocol), some_weights(), 0)
        found.append(network.scaling.preprocessing)
    assert found == [CAFFE, UNIT, CAFFE.swapped()]
    assert build_network(experiment(), None, seed=0).scaling.preprocessing == CENTRED


def test_logits_are_float32_under_autocast_and_for_bytes_and_floats() -> None:
    network = build_network(experiment(), None, seed=0).eval()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = network(faces())
    with torch.inference_mode():
        exact = network(faces().float())
    assert {logits.dtype for logits in rounded.values()} == {torch.float32}
    for task in TASKS:
        assert torch.allclose(rounded[task], exact[task], atol=0.1)


def test_channels_last_gives_the_same_logits() -> None:
    network = build_network(experiment("squeezenet1_1"), None, seed=0).eval()
    with torch.inference_mode():
        wanted = network(faces())["race"]
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        found = network(faces().contiguous(memory_format=torch.channels_last))["race"]
    assert torch.allclose(found, wanted, atol=1e-4)


def test_features_are_pooled_or_flattened() -> None:
    network = build_network(experiment(input_px=48), None, seed=0).eval()
    with torch.inference_mode():
        features = network.features(faces())
        wanted = network.backbone(network.scaling(faces())).mean(dim=(2, 3))
    assert features.shape == (2, 256)
    assert torch.allclose(features, wanted)
    head = Head(hidden_units=8, features="flattened")
    of_ours = build_network(experiment(head=head), None, seed=0)
    defined = experiment("squeezenet1_1", head=head, weights="imagenet")
    for network, n_cells in ((of_ours, 9), (build_network(defined, some_weights(), seed=0), 36)):
        assert network.head.race.hidden.in_features == n_cells * network.backbone.n_features
        assert network(faces(2))["race"].shape == (2, 5)


def test_parameters_are_counted_in_all_and_trained() -> None:
    # cnn: 661,976 in the backbone, 442,880 of them in block 5 (192 * 256 * 9 + 2 * 256); head on
    # 256 features with 8 units: 3 * (256 * 8 + 8) + (8 * 5 + 5) * 2 + (8 * 2 + 2) = 6,276
    for depth, trained in (("all", 661_976), (1, 442_880), (0, 0)):
        network = build_network(experiment(depth=depth), None, seed=0)
        assert network.parameter_counts() == (661_976 + 6_276, trained + 6_276)


def test_multiply_adds_are_those_worked_by_hand() -> None:
    def head(n_features: int) -> int:
        return 3 * n_features * 8 + 8 * (5 + 2 + 5)

    # 9 * inputs * outputs * cells: 648 * 100², 10,368 * 50², 41,472 * 25², 165,888 * 12²,
    # 442,368 * 6²; the head multiplies once per weight
    cnn = 6_480_000 + 25_920_000 + 25_920_000 + 23_887_872 + 15_925_248
    network = build_network(experiment(), None, seed=0)
    assert network.multiply_adds(100) == cnn + head(256)
    assert network.multiply_adds(200) == cnn + head(256), "faces are resized to input_px first"
    # a transformer's 7 * 7 patches of 16 * 16 * 3 values and a class token: 50 tokens of 384
    patches, attention = 49 * 768 * 384, 2 * 50 * 50 * 384
    products = 50 * 384 * (3 * 384 + 384 + 2 * 1536)
    network = build_network(experiment("vit_small_patch16_224", input_px=112), None, seed=0)
    assert network.multiply_adds(100) == patches + 12 * (products + attention) + head(384)
    # torchvision's 0.349 G has a 1x1 convolution to 1,000 classes on 13x13 cells: 0.0865 G
    theirs = SqueezeNet1_1_Weights.IMAGENET1K_V1.meta["_ops"] * 1e9 - 512 * 1000 * 13 * 13
    defined = experiment("squeezenet1_1", weights="imagenet", input_px=224)
    found = build_network(defined, some_weights(), seed=0).multiply_adds(224)
    assert found == pytest.approx(theirs, rel=0.005)


def test_a_trained_network_is_rebuilt_without_its_weight_source() -> None:
    defined = experiment("squeezenet1_1", 1, weights="imagenet", input_px=48)
    network = build_network(defined, some_weights("floor"), seed=0)
    train_a_step(network, faces())
    rebuilt = rebuild_network(defined, network.describe(), network.state_dict())
    # As the trainer has laid the other out, so that both add in the same order.
    rebuilt.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        wanted, found = network.eval()(faces()), rebuilt.eval()(faces())
    assert all(torch.equal(wanted[task], found[task]) for task in TASKS)
    assert rebuilt.describe() == network.describe()
    other = dataclasses.replace(defined, head=Head(hidden_units=9))
    with pytest.raises(WeightsError, match="do not fit 'any'"):
        rebuild_network(other, network.describe(), network.state_dict())
    with pytest.raises(WeightsError, match="schema 2"):
        rebuild_network(defined, {"schema": 2}, network.state_dict())
