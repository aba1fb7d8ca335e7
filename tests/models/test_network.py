"""Networks freeze what they should, start from their seed, count themselves, and are fed rightly.

Every backbone, ours or timm's, has the stages and sizes that it says, and can be cut. What the
study printed: thesis notebooks, §1. Where Keras counts what torch does not have, the test says so.
"""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmark import registry
from benchmark.errors import DataError, ExperimentError, WeightsError
from benchmark.experiment import timm_models
from benchmark.experiment.architectures import ARCHITECTURES, FROM_TIMM, OURS, architecture_named
from benchmark.experiment.definition import Backbone, Experiment, Head, Protocol, Recipe
from benchmark.models import backbone as backbones
from benchmark.models import network as networks
from benchmark.models import weight_manifest as demands
from benchmark.models.backbone import FeatureExtractor, build_backbone, feature_map_shape
from benchmark.models.network import InputScaling, Network, TaskHead, build_network, initialise_head
from benchmark.models.weight_manifest import CAFFE, IMAGENET, UNIT, Preprocessing
from benchmark.models.weights import LoadedWeights, WeightFile
from benchmark.tasks import TASKS, n_classes
from benchmark.training.trainer import fit, start
from tests.training.small import CPU, FACES, epochs, some_data

OTHERS_OF_TIMM = {
    "resnet18": 32, "vgg16_bn": 32, "mobilenetv3_small_100": 32, "regnety_002": 32,
    "swin_tiny_patch4_window7_224": 224, "deit_tiny_distilled_patch16_224": 32,
}  # fmt: skip
"""Named in no definition of ours, each a family of its own; and a size that it takes, in pixels."""
PICTURES = FACES.images(torch.arange(2))


def experiment(
    architecture: str = "cnn", depth: int | str = "all", *, head: Head | None = None, **more: Any
) -> Experiment:
    return Experiment(
        "any", "Does it work?", Backbone(architecture, trainable_stages=depth, **more),  # type: ignore[arg-type]
        head or Head(hidden_units=8), Recipe(1e-2, max_epochs=2, steps_per_epoch=1), ad_hoc=True,
    )  # fmt: skip


def stages_that_require_gradients(backbone: FeatureExtractor) -> set[str]:
    found = set()
    for name in backbone.stages:
        flags = {parameter.requires_grad for parameter in backbone.stages[name].parameters()}
        assert len(flags) < 2, f"{name} is trained in part"
        found |= {name} if True in flags else set()
    return found


def snapshot(backbone: FeatureExtractor) -> dict[tuple[str, str], Tensor]:
    stages = backbone.stages.items()
    return {(name, key): value.clone() for name, stage in stages
            for key, value in stage.state_dict().items()}  # fmt: skip


def on_meta(defined: Experiment) -> Network:
    with torch.device("meta"):
        return build_network(defined, None, seed=0)


def some_weights(pooling: str = "ceil") -> LoadedWeights:
    state = build_backbone("squeezenet1_1", pooling=pooling).state_dict()
    tensors = {name: torch.full_like(value, 0.01) for name, value in state.items()}
    fed: dict[str, Any] = {"preprocessing": CAFFE, "options": {"pooling": pooling}}
    file = WeightFile("squeezenet1_1", "imagenet", Path(), "", "", **fed)
    return LoadedWeights(file, tensors)


def every_depth(architecture: str) -> list[tuple[int | str, set[str]]]:
    stages = architecture_named(architecture).stages
    depths = [(n, set(stages[len(stages) - n :])) for n in range(len(stages))]
    return [*depths, ("all", set(stages))]


def some_depths(architecture: str) -> list[tuple[int | str, set[str]]]:
    depths = every_depth(architecture)
    return depths if architecture == "cnn" else [depths[len(depths) // 2]]


@pytest.mark.parametrize("depths", [some_depths, pytest.param(every_depth, marks=pytest.mark.slow)])
def test_a_definition_trains_what_its_depth_says(depths: Callable[[str], Any]) -> None:
    sizes = {name: 112 if name == "vit_small_patch16_224" else 100 for name in ARCHITECTURES}
    for architecture, input_px in (sizes | OTHERS_OF_TIMM).items():
        for depth, declared in depths(architecture):
            network = on_meta(experiment(architecture, depth, input_px=input_px))
            trained = stages_that_require_gradients(network.backbone)
            assert trained == declared, (architecture, depth)
            parts = [network.head, *(network.backbone.stages[name] for name in declared)]
            n_trained = sum(it.numel() for part in parts for it in part.parameters())
            assert network.parameter_counts()[1] == n_trained, (architecture, depth)


@pytest.mark.parametrize("depths", [some_depths, pytest.param(every_depth, marks=pytest.mark.slow)])
def test_a_step_changes_exactly_the_declared_stages(depths: Callable[[str], Any]) -> None:
    # With and without batch norm; of timm's one with parameters that lie loose.
    for architecture in ("cnn", "squeezenet1_1", "mobilenetv4_conv_small", "vit_tiny_patch16_224"):
        for depth, declared in depths(architecture):
            defined = experiment(architecture, depth, input_px=32)
            network = build_network(defined, None, seed=0)
            before = snapshot(network.backbone)
            # Two epochs of a step: evaluation lies between them.
            epochs(fit(start(network, defined.recipe, CPU), some_data(), defined, 0, CPU))
            after = snapshot(network.backbone)
            changed = {key[0] for key in after if not torch.equal(after[key], before[key])}
            assert changed == declared, (architecture, depth)
            assert all(it.grad is not None for it in network.head.parameters()), architecture


def test_every_registered_network_answers_its_tasks() -> None:
    kinds = {(item.backbone.architecture, item.backbone.input_px, item.head.conditioning,
              item.head.features): item for item in registry.experiments().values()}  # fmt: skip
    for defined in kinds.values():
        network = on_meta(defined.adjusted({"backbone.weights": "none"}))
        logits = network(torch.empty(2, 3, 100, 100, device="meta"))
        wanted = {task: (2, n_classes(task)) for task in defined.head.tasks}
        assert {task: tuple(it.shape) for task, it in logits.items()} == wanted, defined.name


def modes(modules: Iterable[nn.Module]) -> list[set[bool]]:
    return [{item.training for item in module.modules()} for module in modules]


def test_frozen_stages_stay_in_eval_mode_with_all_that_is_in_them() -> None:
    network = build_network(experiment(depth=2), None, seed=0).eval().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    # Convolutions: 9 * inputs * outputs * cells; the head once per weight; 200 px are resized.
    assert network.multiply_adds(200) == 98_133_120 + 3 * 256 * 8 + 8 * (5 + 2 + 5)
    assert modes(network.backbone.stages.values()) == [{False}] * 3 + [{True}] * 2
    assert network.head.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    # swin drops paths at random, in modules without a parameter, inside its blocks
    defined = experiment("swin_tiny_patch4_window7_224", depth=2, input_px=224)
    model = on_meta(defined).train().backbone.model
    # norm and head go with the last stage
    assert modes([model.patch_embed, *model.layers, model.norm]) == [{False}] * 3 + [{True}] * 3


def test_a_stage_follows_its_model_when_parameters_are_replaced() -> None:
    network = on_meta(experiment("mobilenetv3_small_100", depth=1, input_px=32))
    network.to_empty(device="cpu")
    held = {id(item) for item in network.backbone.stages["stem"].parameters()}
    assert held <= {id(item) for item in network.backbone.parameters()}


def test_a_seed_gives_the_same_network_again_and_another_seed_another() -> None:
    head = Head(hidden_units=8, conditioning="gate")
    for architecture in ("cnn", "squeezenet1_1", "mobilenetv4_conv_small"):
        first = build_network(experiment(architecture), None, 1).state_dict()
        torch.manual_seed(9)
        state = torch.get_rng_state()
        again = build_network(experiment(architecture, head=head), None, 1).state_dict()
        assert torch.equal(torch.get_rng_state(), state)
        other = build_network(experiment(architecture), None, 2).state_dict()
        for name, value in first.items():
            assert "trunk" not in name or torch.equal(value, again[name]), name
            assert value.ndim not in (2, 4) or not torch.equal(value, other[name]), name


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


def test_a_branch_starts_alike_in_its_counterpart_and_with_every_conditioning() -> None:
    starts = []
    for defined in (Head(), Head(tasks=("gender",)), Head(conditioning="gate")):
        head = TaskHead(defined, 512)
        initialise_head(head, "glorot", seed=7)
        starts.append(head.get_submodule("gender").hidden)
    assert all(torch.equal(starts[0].weight, hidden.weight) for hidden in starts)
    # Keras's Dense: uniform on ± sqrt(6 / (fan-in + fan-out)); std = limit / sqrt(3)
    limit, hidden = (6 / (512 + 128)) ** 0.5, starts[0]
    assert hidden.weight.abs().max().item() == pytest.approx(limit, rel=1e-3)
    assert hidden.weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.01)
    assert not hidden.bias.any()
    initialise_head(head, "torch", seed=0)  # uniform on ± 1 / sqrt(fan-in), biases too
    assert 0 < starts[-1].bias.abs().max().item() <= 512**-0.5


def test_a_gate_is_one_sigmoid_scalar_per_face_and_attention_sums_to_one() -> None:
    embedding = torch.rand(3, 4) + 0.1
    gate, attention = (networks.GenderWeighting(kind, 4)(embedding) / embedding
                       for kind in ("gate", "attention"))  # fmt: skip
    assert torch.allclose(gate, gate[:, :1].expand(3, 4))
    assert bool(((gate > 0) & (gate < 1)).all())
    assert attention.sum(1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)


def test_gender_is_joined_in_the_notebooks_order_and_hears_the_race_loss() -> None:
    features, order = torch.randn(2, 512), {"embedding": True, "gate": False, "attention": False}
    for conditioning, gender_first in order.items():
        module, seen = TaskHead(Head(conditioning=conditioning), 512), list[Tensor]()  # type: ignore[arg-type]
        branch = module.get_submodule("race")
        branch.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
        module(features)["race"].sum().backward()
        assert torch.equal(seen[0][:, 128:] if gender_first else seen[0][:, :512], features)
        assert bool(module.gender.hidden.weight.grad.any()), conditioning


def test_a_backbone_starts_from_its_weights_fed_as_the_protocol_says() -> None:
    defined = experiment("squeezenet1_1", 1, weights="imagenet")
    network, other = (build_network(defined, some_weights(), seed) for seed in (0, 1))
    assert all(bool((value == 0.01).all()) for value in network.backbone.state_dict().values())
    assert not torch.equal(network.head.race.hidden.weight, other.head.race.hidden.weight)
    for wanted, given in ((defined, None), (experiment(), some_weights())):
        with pytest.raises(WeightsError, match="squeezenet1_1 with 'imagenet' weights"):
            build_network(wanted, given, seed=0)
    expected = {"weights": CAFFE, "unit": UNIT, "weights_swapped": CAFFE.swapped()}
    for scaling, fed in expected.items():
        protocol = Protocol(input_scaling=scaling)  # type: ignore[arg-type]
        network = build_network(dataclasses.replace(defined, protocol=protocol), some_weights(), 0)
        assert network.scaling.preprocessing == fed
    assert build_network(experiment(), None, seed=0).scaling.preprocessing == demands.CENTRED


VGG16_MTL = {
    # frozen, block 5, with embedding, gate, attention, full; from ImageNet, then from VGGFace
    "1": (14_913_228, 198_540), "2": (14_913_228, 7_277_964), "3": (14_945_996, 7_310_732),
    "4": (14_979_278, 7_344_014), "5": (15_012_044, 7_376_780), "6": (14_913_228, 14_913_228),
}  # fmt: skip
PRINTED = {f"{table}.{row}": counts for table in (2, 3) for row, counts in VGG16_MTL.items()} | {
    # one task: gender, age group, race; block 5 and full
    "5.1a": (14_780_610, 7_145_346), "5.1b": (14_780_610, 14_780_610),
    "5.2a": (14_780_997, 7_145_733), "5.2b": (14_780_997, 14_780_997),
    "5.3a": (14_780_997, 7_145_733), "5.3b": (14_780_997, 14_780_997),
    # VGG19: block 5, full
    "6.1": (20_222_924, 9_637_772), "6.2": (20_222_924, 20_222_924),
    # ResNet50: 24,376,076 in Keras, which has 26,560 biases that torch's has not, and counts the
    # 53,120 running statistics of batch norm; frozen, full
    "7.1": (24_296_396, 788_364), "7.3": (24_296_396, 24_296_396),
    # DenseNet121: 7,432,652 in Keras with 83,648 running statistics; frozen, full
    "8.1": (7_349_004, 395_148), "8.2": (7_349_004, 7_349_004),
    # flattened features: plain, embedding, gate; age group, gender, race alone
    "R1": (16_486_092, 8_850_828), "R2": (16_518_860, 8_883_596), "R3": (16_552_142, 8_916_878),
    "R4": (15_305_285, 7_670_021), "R5": (15_304_898, 7_669_634), "R6": (15_305_285, 7_670_021),
}  # fmt: skip
"""Row of the study → parameters in all, and those trained."""


def test_a_row_of_the_study_has_the_parameters_that_it_printed() -> None:
    built = [(defined.study.row, on_meta(defined.adjusted({"backbone.weights": "none"})))
             for defined in registry.experiments().values() if defined.study]  # fmt: skip
    assert {row for row, _ in built} >= PRINTED.keys()
    for row, network in built:
        assert network.parameter_counts() == PRINTED.get(row, network.parameter_counts()), row
    # The statistics that Keras counts.
    buffers = {row: network.backbone.named_buffers() for row, network in built}
    for row, n_statistics in (("7.3", 53_120), ("8.2", 83_648)):
        found = sum(it.numel() for name, it in buffers[row] if ".running_" in name)
        assert found == n_statistics, row


def test_a_trained_network_is_rebuilt_without_its_weight_source() -> None:
    defined = experiment("squeezenet1_1", 1, weights="imagenet", input_px=48)
    network = build_network(defined, some_weights("floor"), seed=3)
    described, tensors = network.describe(), network.state_dict()
    rebuilt = networks.rebuild_network(defined, described, tensors)
    with torch.inference_mode():
        wanted, found = network.eval()(PICTURES), rebuilt.eval()(PICTURES)
    assert all(torch.equal(wanted[task], found[task]) for task in TASKS)
    assert rebuilt.describe() == described
    other = dataclasses.replace(defined, head=Head(hidden_units=9))
    for wrong, said, why in ((other, described, "do not fit 'any'"), (defined, {"schema": 2}, "2")):
        with pytest.raises(WeightsError, match=why):
            networks.rebuild_network(wrong, said, tensors)


def one_colour(red: int, green: int, blue: int, image_px: int = 4) -> Tensor:
    colour = torch.tensor([red, green, blue], dtype=torch.uint8).view(1, 3, 1, 1)
    return colour.expand(1, 3, image_px, image_px)


def test_a_red_picture_becomes_what_is_demanded() -> None:
    for preprocessing, wanted in (
        # 255 / 255 = 1; 51 / 255 = 0.2; 0
        (UNIT, (1.0, 0.2, 0.0)),
        # 255 / 127.5 - 1 = 1; 51 / 127.5 - 1 = -0.6; 0 - 1 = -1
        (demands.CENTRED, (1.0, -0.6, -1.0)),
        # (1 - 0.485) / 0.229; (0.2 - 0.456) / 0.224; (0 - 0.406) / 0.225
        (IMAGENET, (2.248908, -1.142857, -1.804444)),
        # blue first: 0 - 104.006; 51 - 116.669; 255 - 122.679
        (CAFFE, (-104.006, -65.669, 132.321)),
        # the control: red first, and red still loses red's mean
        (CAFFE.swapped(), (132.321, -65.669, -104.006)),
    ):
        scaled = InputScaling(preprocessing, 4)(one_colour(255, 51, 0))
        assert (scaled.shape, scaled.dtype) == ((1, 3, 4, 4), torch.float32)
        assert scaled[0, :, 2, 2].tolist() == pytest.approx(wanted, abs=1e-4), preprocessing


def test_other_sizes_are_resized_with_antialiasing() -> None:
    # Columns 0 0 8 8 at half the size: each new column averages over four old ones with the
    # weights 1 3 3 1 of a triangle of width 4, cut at the border. First: (3*0 + 3*0 + 1*8) / 7.
    images = torch.tensor([0.0, 0.0, 8.0, 8.0]).expand(1, 3, 4, 4)
    scaling = InputScaling(Preprocessing("RGB", 1.0, (0.0,) * 3, (1.0,) * 3), 2)
    assert scaling(images)[0, 0, 0].tolist() == pytest.approx([8 / 7, 48 / 7], abs=1e-5)


def test_channels_last_stay_so_and_scaling_a_row_at_once_changes_no_bit() -> None:
    formats = (torch.channels_last, torch.contiguous_format)
    for preprocessing, faces, placed in product((IMAGENET, CAFFE), formats, formats):
        images = torch.randint(0, 256, (3, 3, 9, 9)).float().contiguous(memory_format=faces)
        given, own = images.clone(), InputScaling(preprocessing, 9)
        own.to(memory_format=placed)  # type: ignore[call-overload]
        mean, std = (torch.tensor(values) for values in (preprocessing.mean, preprocessing.std))
        factor, offset = ((values / std).view(3, 1, 1) for values in (preprocessing.scale, -mean))
        in_order = given.flip(1) if preprocessing.channels == "BGR" else given
        assert torch.equal(own(images), in_order * factor + offset)
        assert torch.equal(images, given)
        resized = InputScaling(preprocessing, 8)(images)
        assert own(images).is_contiguous(memory_format=faces)
        assert resized.is_contiguous(memory_format=faces)


def test_what_makes_no_sense_is_refused() -> None:
    assert not InputScaling(CAFFE, 100).state_dict(), "constants are not part of the state"
    assert Preprocessing.from_dict(dataclasses.asdict(CAFFE)) == CAFFE
    odd: list[dict[str, object]] = [
        {"channels": "GBR"}, {"scale": 0}, {"std": [1, 0, 1]}, {"mean": [1, 2]}, {"std": "red"},
    ]  # fmt: skip
    for change in odd:
        with pytest.raises(WeightsError, match="preprocessing"):
            Preprocessing.from_dict({**dataclasses.asdict(CAFFE), **change})
    with pytest.raises(DataError, match=r"shape \(2, 1, 8, 8\)"):
        InputScaling(UNIT, 8)(torch.zeros(2, 1, 8, 8))


def a_backbone(architecture: str) -> FeatureExtractor:
    return build_backbone(architecture, **backbones.first_options(architecture))


def test_the_stages_a_definition_knows_are_the_backbones_and_hold_all_of_it() -> None:
    assert list(backbones.BUILDERS) == [item.name for item in OURS]
    for architecture in ARCHITECTURES:
        with torch.device("meta"):
            backbone = a_backbone(architecture)
        assert tuple(backbone.stages) == ARCHITECTURES[architecture].stages
        held = [id(item) for name in backbone.stages for item in backbone.stages[name].parameters()]
        assert len(held) == len(set(held)), architecture
        assert set(held) == {id(parameter) for parameter in backbone.parameters()}, architecture
        n_states = sum(len({*stage.parameters(), *stage.buffers()})
                       for stage in backbone.stages.values())  # fmt: skip
        assert n_states == len(backbone.state_dict()), f"{architecture}: running statistics too"


def test_the_multiply_adds_a_definition_knows_are_those_that_are_counted() -> None:
    for architecture in ARCHITECTURES.values():
        px = 112 if architecture.input_multiple > 1 else 100
        with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
            a_backbone(architecture.name).eval()(torch.empty(1, 3, px, px))
        known = 1e6 * sum(architecture.mega_macs) * (px / 100) ** 2
        assert counter.get_total_flops() / 2 == pytest.approx(known, rel=0.02), architecture.name


def test_any_prefix_of_a_chain_can_be_cut() -> None:
    x = torch.randn(2, 3, 64, 64)
    for architecture in ("cnn", "squeezenet1_1", "densenet121", "mobilenet_v2"):
        backbone = a_backbone(architecture).eval()
        n_stages = len(backbone.stages)
        with torch.inference_mode():
            wanted = backbone(x.clone())
            for cut in range(n_stages + 1):
                middle = backbone(x.clone(), end=cut)
                before = middle.clone()
                assert torch.equal(backbone(middle, first=cut), wanted), (architecture, cut)
                assert cut == n_stages or torch.equal(middle, before), "nothing in place"


def test_what_is_not_known_is_refused() -> None:
    for options in ({}, {"pooling": "round"}, {"pooling": "ceil", "x": "1"}):
        with pytest.raises(WeightsError, match="allowed: pooling: floor or ceil"):
            build_backbone("squeezenet1_1", **options)
    for architecture in ("vgg16", FROM_TIMM[0].name):
        with pytest.raises(WeightsError, match="allowed: none"):
            build_backbone(architecture, pooling="floor")
    with pytest.raises(ExperimentError, match="cnn, convnext_tiny"):
        build_backbone("alexnet")
    with pytest.raises(ExperimentError, match="does not support classification"):
        feature_map_shape("qwen3_vit_88m_enc", 224)
    # 100 → 49, then maxima: 24, floor(11.5), floor(5.0) against ceil: 24, 12, 6
    for pooling, side in (("floor", 5), ("ceil", 6)):
        shape = feature_map_shape("squeezenet1_1", 100, pooling=pooling)
        assert shape == (512, side, side), pooling
    for name, size in (("vit_tiny_patch16_224", 100), ("mixer_s16_224", 112)):
        with pytest.raises(ExperimentError, match=f"{name} cannot take pictures of {size}"):
            feature_map_shape(name, size)


PARAMETERS = {
    # timm groups VGGs by layer; cut at the maxima instead, without the layers of 4,096
    "vgg16": [38_720, 221_440, 1_475_328, 5_899_776, 7_079_424],
    # two more per channel for each norm: 2 * (64 + 64) in the first block, and so on
    "vgg16_bn": [38_976, 221_952, 1_476_864, 5_902_848, 7_082_496],
    # the last group, norm5 with 2,048, is folded into the block before it
    "densenet121": [9_536, 368_320, 1_051_776, 3_364_096, 2_158_080 + 2_048],
    # likewise the 1,536 of head.norm
    "convnext_tiny": [4_896, 237_888, 992_256, 11_112_960, 15_470_592 + 1_536],
    # conv_head and its norm, 1.23 million, are a stage
    "mobilenetv4_conv_small": [928, 10_368, 34_112, 272_160, 819_296, 124_800, 1_231_360],
}


def test_stages_have_the_parameters_of_timms_groups() -> None:
    for name, wanted in PARAMETERS.items():
        with torch.device("meta"):
            model = timm_models.create(name)
        stages = timm_models.stages_of(name).values()
        found = [sum(model.get_parameter(it).numel() for it in paths) for paths in stages]
        assert found == wanted, name
    assert feature_map_shape("vgg16_bn", 64)[0] == 512, "built without its layers of 4,096"
    left_out = timm_models.classifier_tensors("vgg16")
    assert {name.split(".")[0] for name in left_out} == {"pre_logits", "head"}


def test_stages_of_any_family_are_named_by_their_place_and_hold_everything() -> None:
    stages = ("stem", "layers_0", "layers_1", "layers_2", "layers_3")
    assert architecture_named("swin_tiny_patch4_window7_224").stages == stages
    for name in ("inception_v3", "coat_tiny", "levit_128", "maxvit_tiny_rw_224"):
        stages = timm_models.stages_of(name)
        assert all(re.fullmatch("[a-z0-9_]+", stage) for stage in stages), name
        with torch.device("meta"):
            paths = [path for path, _ in timm_models.create(name).named_parameters()]
        assert sorted(path for own in stages.values() for path in own) == sorted(paths), name


def test_imagenet_means_imagenet_1k_alone() -> None:
    for name, tag in {
        "resnet18": "a1_in1k",
        # timm's own first choice, ns_jft_in1k, learnt from a teacher with pictures of Google's
        "tf_efficientnet_b0": "ap_in1k",
        # only with other pictures, or none published
        "vit_small_patch14_dinov2": None,
    }.items():
        found = timm_models.pretrained(name)
        assert (found.tag if found else None) == tag, name
        sources = ("none", "imagenet") if tag else ("none",)
        assert architecture_named(name).weight_sources == sources, name


def test_what_is_no_model_or_has_no_groups_is_refused() -> None:
    found = {"resnet18", "resnet18.a1_in1k", "resnet17"} & set(timm_models.names())
    assert found == {"resnet18"}
    for name, reason in (
        ("resnet17", "unknown architecture 'resnet17'.*resnet18"),
        ("rdnet_tiny", "cannot be used here: .*coarse grouping is not implemented"),
        ("poolformer_s12", "cannot be used here: .*no group_matcher"),
    ):
        with pytest.raises(ExperimentError, match=reason):
            Backbone(name)
