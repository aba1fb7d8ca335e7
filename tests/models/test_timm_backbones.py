"""Models of timm freeze, start and compute as ours do, whichever model of timm it is."""

import pytest
import timm
import torch
from torch import Tensor, nn

from benchmark.errors import ExperimentError
from benchmark.experiment.architectures import architecture_named
from benchmark.experiment.definition import Backbone, Experiment, Head, Recipe
from benchmark.experiment.timm_models import classifier_tensors
from benchmark.models.backbone import build_backbone, feature_map_shape
from benchmark.models.network import build_network
from tests.models.steps import (
    backward,
    changed_stages,
    faces,
    snapshot,
    stages_that_require_gradients,
    train_a_step,
    with_gradients,
)

ANY_OTHERS = {
    "resnet18": 32,
    "vgg16_bn": 32,
    "mobilenetv3_small_100": 32,
    "regnety_002": 32,
    "swin_tiny_patch4_window7_224": 224,
    "deit_tiny_distilled_patch16_224": 32,
}
"""Named in no definition of ours, each a family of its own; and a size that it takes, in pixels."""


def an_experiment(architecture: str, depth: int | str = "all", input_px: int = 32) -> Experiment:
    return Experiment(
        name="any",
        asks="Does it work?",
        backbone=Backbone(architecture, trainable_stages=depth, input_px=input_px),  # type: ignore[arg-type]
        head=Head(hidden_units=8),
        recipe=Recipe(learning_rate=1e-2),
        ad_hoc=True,
    )


def test_any_model_of_timm_is_frozen_by_stages() -> None:
    for architecture, input_px in ANY_OTHERS.items():
        stages = architecture_named(architecture).stages
        for depth in (1, len(stages) - 1):
            with torch.device("meta"):
                defined = an_experiment(architecture, depth, input_px)
                network = build_network(defined, None, seed=0)
            trained = set(stages[len(stages) - depth :])
            assert stages_that_require_gradients(network.backbone) == trained, architecture
    network = build_network(an_experiment("resnet18", 2), None, seed=0)
    before = snapshot(network.backbone)
    train_a_step(network, faces())
    trained = set(network.trained_stages)
    assert changed_stages(network.backbone, before) == with_gradients(network.backbone) == trained


def test_any_model_of_timm_gives_one_vector_a_face() -> None:
    for architecture, input_px in ANY_OTHERS.items():
        with torch.device("meta"):
            backbone = build_backbone(architecture)
        shape = feature_map_shape(architecture, {}, input_px)
        assert shape == (backbone.n_features, 1, 1), architecture


def test_features_are_what_timms_own_classifier_reads() -> None:
    """Those of our definitions: test_published_layouts."""
    whole, seen = timm.create_model("resnet18", pretrained=False).eval(), list[Tensor]()
    whole.get_classifier().register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    backbone, state = build_backbone("resnet18").eval(), whole.state_dict()
    tensors = {name: state.pop(name.removeprefix("model.")) for name in backbone.state_dict()}
    assert set(state) == set(classifier_tensors("resnet18"))
    backbone.load_state_dict(tensors)
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        found = backbone(x)
        whole(x)
    assert found.shape == (2, backbone.n_features, 1, 1)
    assert torch.allclose(found.flatten(1), seen[0], atol=1e-5)


def test_loose_parameters_are_frozen_with_their_stage() -> None:
    network = build_network(an_experiment("vit_small_patch16_224", depth=12), None, seed=0)
    model = network.backbone.model
    assert not model.cls_token.requires_grad
    assert not model.pos_embed.requires_grad
    assert model.blocks[0].norm1.weight.requires_grad
    before = snapshot(network.backbone)
    train_a_step(network, faces())
    assert changed_stages(network.backbone, before) == set(network.trained_stages)


def test_frozen_stages_stay_in_eval_mode_with_all_that_is_in_them() -> None:
    # swin drops paths at random, in modules without a parameter, inside its blocks
    experiment = an_experiment("swin_tiny_patch4_window7_224", depth=2, input_px=224)
    model = build_network(experiment, None, seed=0).train().backbone.model
    modes = [{item.training for item in layer.modules()} for layer in model.layers]
    assert modes == [{False}, {False}, {True}, {True}]
    assert not model.patch_embed.training
    assert model.norm.training, "norm and head go with the last stage"


def test_frozen_batch_norm_of_timm_stays_in_eval_mode() -> None:
    network = build_network(an_experiment("efficientnet_b0", depth=1), None, seed=0).train()
    norms = {
        name: module.training
        for name, module in network.backbone.model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
    }
    trained = {name for name, mode in norms.items() if mode}
    assert trained == {name for name in norms if name.startswith(("blocks.6.", "bn2"))}
    assert len(trained) == 4


def test_a_stage_follows_its_model_when_parameters_are_replaced() -> None:
    with torch.device("meta"):
        network = build_network(an_experiment("mobilenetv3_small_100", depth=1), None, seed=0)
    network.to_empty(device="cpu")
    held = {id(item) for item in network.backbone.stages["stem"].parameters()}
    assert held <= {id(item) for item in network.backbone.parameters()}


def test_first_values_are_timms_own_and_depend_on_the_seed_alone() -> None:
    for architecture in ("mobilenetv4_conv_small", "vit_small_patch16_224"):
        experiment = an_experiment(architecture)
        networks = [build_network(experiment, None, seed) for seed in (3, 4)]
        first, other = (network.backbone.state_dict() for network in networks)
        gate = Experiment(**{**vars(experiment), "head": Head(conditioning="gate")})
        torch.manual_seed(9)
        again = build_network(gate, None, seed=3).backbone.state_dict()
        assert all(torch.equal(first[name], value) for name, value in again.items())
        convolution = next(name for name, value in first.items() if value.ndim == 4)
        assert not torch.equal(first[convolution], other[convolution])
    attention = networks[0].backbone.model.blocks[5].attn.qkv
    # timm, vision_transformer.py: truncated normal of deviation 0.02, zero bias
    assert attention.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not attention.bias.any()


def test_a_transformer_has_the_same_parameters_at_any_size_that_it_takes() -> None:
    for input_px in (32, 96, 112):
        with torch.device("meta"):
            defined = an_experiment("vit_small_patch16_224", input_px=input_px)
            network = build_network(defined, None, seed=0)
            backward(network, torch.empty(2, 3, 100, 100))
        # 196 patches of 224 px and the class token
        assert network.backbone.model.pos_embed.shape == (1, 197, 384)
    for name, size in (("vit_tiny_patch16_224", 100), ("mixer_s16_224", 112)):
        with pytest.raises(ExperimentError, match=f"{name} cannot take pictures of {size}"):
            build_network(an_experiment(name, input_px=size), None, seed=0)


def test_a_model_that_gives_no_features_is_refused() -> None:
    with pytest.raises(ExperimentError, match="does not support classification"):
        feature_map_shape("qwen3_vit_88m_enc", {}, 224)
