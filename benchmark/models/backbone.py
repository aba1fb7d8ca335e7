"""Backbones by name: every architecture of ours as a chain of stages, every other from timm.

A backbone maps pictures to a feature map and has stages that can be frozen one by one, named as in
experiment.architectures. timm, which takes two seconds, is imported only for a model of timm's.
"""

import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from benchmark.errors import TIMM_REFUSALS, ExperimentError, WeightsError
from benchmark.experiment.architectures import architecture_named


class StageChain(nn.Module):
    """Stages one after another: the output of one is the input of the next, and all there is.

    Any prefix can be cut. Down-sampling closes a stage: what is handed on is as small as it gets.
    """

    stages: nn.ModuleDict
    """By name, shallow to deep. They share nothing, and together hold every parameter."""

    def __init__(self, architecture: str, stages: Mapping[str, nn.Module], n_features: int) -> None:
        super().__init__()
        self.architecture, self.n_features = architecture, n_features
        self.options: dict[str, str] = {}
        """What it was built with; set by build_backbone."""
        self.stages = nn.ModuleDict(dict(stages))

    def forward(self, x: Tensor, first: int = 0, end: int | None = None) -> Tensor:
        """Map scaled pictures (n, 3, h, w) to the last feature map (n, n_features, h', w').

        first, end: the stages to go through, as of a slice, where it is not all of them.
        """
        for stage in list(self.stages.values())[first:end]:
            x = stage(x)
        return x


def sequence(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))


class TimmModel(nn.Module):
    """A model without its classifier, pooled by timm as its weights were trained to be.

    It starts from the values that its constructor draws; a StageChain from initialise_chain's.
    """

    def __init__(self, architecture: str) -> None:
        from benchmark.experiment import timm_models

        model = timm_models.create(architecture)
        super().__init__()
        self.architecture, self.n_features = architecture, timm_models.n_features(model)
        self.options: dict[str, str] = {}
        self.model = model
        self._parameters_of = timm_models.stages_of(architecture)
        self._modules_of = _modules_by_stage(model, self._parameters_of)

    @property
    def stages(self) -> Mapping[str, nn.Module]:
        """By name, shallow to deep: modules of the model, and parameters that lie loose in it.

        Made anew each time: moving a model may put other parameters in the place of these.
        """
        found: dict[str, nn.Module] = {}
        for name, paths in self._parameters_of.items():
            stage = nn.ModuleList(map(self.model.get_submodule, self._modules_of[name]))
            held = {id(parameter) for parameter in stage.parameters()}
            loose = (it for it in map(self.model.get_parameter, paths) if id(it) not in held)
            found[name] = stage.append(nn.ParameterList(loose))
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Map scaled pictures (n, 3, h, w) to pooled features, as a map (n, n_features, 1, 1)."""
        parts = cast(Any, self.model)
        features: Tensor = parts.forward_head(parts.forward_features(x), pre_logits=True)
        return features[:, :, None, None]


FeatureExtractor = StageChain | TimmModel
"""Maps scaled pictures (n, 3, h, w) to a feature map (n, n_features, h', w')."""


def _modules_by_stage(
    model: nn.Module, stages: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Give for each stage the outermost modules that lie in it alone: dropout goes with its block.

    A module without parameters goes with what was registered before it.
    """
    stage_of = {id(model.get_parameter(it)): name for name, own in stages.items() for it in own}
    found: dict[str, list[str]] = {name: [] for name in stages}
    latest, waiting = next(iter(stages)), [("", model)]
    while waiting:
        path, module = waiting.pop()
        touched = {stage_of[id(parameter)] for parameter in module.parameters()}
        if len(touched) > 1:
            prefix = f"{path}." if path else ""
            waiting += [(prefix + name, child) for name, child in module.named_children()][::-1]
        else:
            latest = touched.pop() if touched else latest
            found[latest].append(path)
    return found


CNN_CHANNELS: Final = (24, 48, 96, 192, 256)


def small_cnn() -> StageChain:
    """Build a small network of ours: five blocks, 661,976 parameters.

    98 million multiply-adds at 100 px. Each block: 3x3 convolution (padding 1, no bias), batch
    norm, ReLU, 2x2 maximum; 100 px end as 3x3x256. The study's own CNN is lost (notebooks, §1).
    """
    stages: dict[str, nn.Module] = {}
    for n_inputs, width in pairwise((3, *CNN_CHANNELS)):
        # ReLU after the maximum gives the same numbers as before it, on a quarter of the cells:
        # 401 to 409 images/s against 354 to 390 (forward and backward, 2 CPU cores, batch 32).
        stages[f"block{len(stages) + 1}"] = sequence(
            conv=nn.Conv2d(n_inputs, width, 3, padding=1, bias=False),
            norm=nn.BatchNorm2d(width),
            pool=nn.MaxPool2d(2),
            relu=nn.ReLU(inplace=True),
        )
    return StageChain("cnn", stages, CNN_CHANNELS[-1])


def torchvisions(architecture: str) -> Any:
    """Build a model of torchvision's, with its classifier."""
    import torchvision.models  # takes a second, and most backbones do without

    return getattr(torchvision.models, architecture)(weights=None)


def squeezenet1_1(pooling: str) -> StageChain:
    """Rearrange torchvision's SqueezeNet 1.1 (arXiv 1602.07360) up to its last fire module.

    722,496 parameters. `pooling` rounds the size of each 3x3/2 maximum: `floor` as Keras, `ceil` as
    Caffe and torchvision do. 100 px end as 5x5x512 or 6x6x512. Equal to rcmalli/keras-squeezenet's
    squeezenet.py (tested against both).
    """
    conv, relu, *parts = torchvisions("squeezenet1_1").features
    for place in (0, 3, 6):
        parts[place].ceil_mode = pooling == "ceil"
    pool, fire2, fire3, pool3, fire4, fire5, pool5, fire6, fire7, fire8, fire9 = parts
    stages = {
        # ReLU after the maximum gives the same numbers as before it, on a quarter of the cells.
        "conv1": sequence(conv=conv, pool=pool, relu=relu),
        "fire2_3": sequence(fire2=fire2, fire3=fire3, pool=pool3),
        "fire4_5": sequence(fire4=fire4, fire5=fire5, pool=pool5),
        "fire6_9": sequence(fire6=fire6, fire7=fire7, fire8=fire8, fire9=fire9),
    }
    return StageChain("squeezenet1_1", stages, 512)


VGG_WIDTHS: Final = (64, 128, 256, 512, 512)
VGG_CONVOLUTIONS: Final = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""Of each block: configurations D and E of table 1."""


def vgg(architecture: str) -> StageChain:
    """Build VGG-16 or VGG-19 (Simonyan & Zisserman 2015, arXiv 1409.1556), cut after pool5.

    Five blocks of 3x3 convolutions (padding 1), each with a ReLU; 2x2 maxima end them. 100 px end
    as 3x3x512. Layout: torchvision's `vgg16().features`, equal to Keras's without top.
    """
    stages: dict[str, nn.Module] = {}
    n_inputs = 3
    for width, n_convolutions in zip(VGG_WIDTHS, VGG_CONVOLUTIONS[architecture], strict=True):
        layers: dict[str, nn.Module] = {}
        for place in range(1, n_convolutions + 1):
            layers[f"conv{place}"] = nn.Conv2d(n_inputs, width, 3, padding=1)
            layers[f"relu{place}"] = nn.ReLU(inplace=True)
            n_inputs = width
        stages[f"block{len(stages) + 1}"] = sequence(**layers, pool=nn.MaxPool2d(2))
    return StageChain(architecture, stages, VGG_WIDTHS[-1])


def resnet50() -> StageChain:
    """Rearrange torchvision's ResNet-50 (He et al. 2016, arXiv 1512.03385, table 1), unpooled.

    100 px end as 4x4x2048. v1.5: a block that halves the size does so in its 3x3 convolution, where
    the paper and Keras do in the 1x1 before it.
    """
    layers = torchvisions("resnet50")
    first = sequence(conv=layers.conv1, norm=layers.bn1, relu=layers.relu, pool=layers.maxpool)
    blocks = (layers.layer1, layers.layer2, layers.layer3, layers.layer4)
    stages = {f"conv{number}": stage for number, stage in enumerate((first, *blocks), start=1)}
    return StageChain("resnet50", stages, layers.fc.in_features)


def densenet121() -> StageChain:
    """Rearrange torchvision's DenseNet-121 (Huang et al. 2017, arXiv 1608.06993), unpooled.

    Each dense block with the transition that halves it; the last ends with the norm and the ReLU
    that come before pooling. 100 px end as 3x3x1024.
    """
    layers = torchvisions("densenet121")
    parts = layers.features
    stages = {
        "conv1": sequence(conv=parts.conv0, norm=parts.norm0, relu=parts.relu0, pool=parts.pool0)
    }
    for n in (1, 2, 3):
        stages[f"denseblock{n}"] = sequence(block=parts[2 + 2 * n], transition=parts[3 + 2 * n])
    relu = nn.ReLU(inplace=True)
    stages["denseblock4"] = sequence(block=parts.denseblock4, norm=parts.norm5, relu=relu)
    return StageChain("densenet121", stages, layers.classifier.in_features)


MOBILENET_FIRST_LAYERS: Final = (0, 2, 4, 7, 14, 19)
"""Where each stage begins in torchvision's `features`: at the layer that halves the size."""


def mobilenet_v2() -> StageChain:
    """Rearrange torchvision's MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381, table 2).

    A stage for each size: 100 px end as 4x4x1280.
    """
    layers = torchvisions("mobilenet_v2")
    stages: dict[str, nn.Module] = {}
    for first, end in pairwise(MOBILENET_FIRST_LAYERS):
        own = {f"layer{place}": layers.features[place] for place in range(first, end)}
        stages[f"stage{len(stages) + 1}"] = sequence(**own)
    return StageChain("mobilenet_v2", stages, layers.last_channel)


BUILDERS: Final[dict[str, Callable[..., StageChain]]] = {
    "cnn": small_cnn,
    "vgg16": functools.partial(vgg, "vgg16"),
    "vgg19": functools.partial(vgg, "vgg19"),
    "resnet50": resnet50,
    "densenet121": densenet121,
    "mobilenet_v2": mobilenet_v2,
    "squeezenet1_1": squeezenet1_1,
}
"""Of our own architectures; what is not here is timm's."""

OPTIONS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "squeezenet1_1": {"pooling": ("floor", "ceil")}
}
"""What weights may decide about a backbone, by architecture, with the values allowed."""


def first_options(architecture: str) -> Mapping[str, str]:
    """Give the options of a backbone without weights: those of its first published file, so that
    the two experiments differ in nothing else."""
    return {name: values[0] for name, values in OPTIONS.get(architecture, {}).items()}


def build_backbone(architecture: str, **options: str) -> FeatureExtractor:
    """Build a backbone with its library's own initialisation, with every option it has.

    Raise ExperimentError for an unknown architecture, WeightsError for options it does not have.
    """
    known = OPTIONS.get(architecture_named(architecture).name, {})
    if options.keys() != known.keys() or any(options[key] not in known[key] for key in known):
        allowed = "; ".join(f"{key}: {' or '.join(values)}" for key, values in known.items())
        raise WeightsError(
            f"options of the {architecture} backbone are {options}", allowed=allowed or "none"
        )
    builder = BUILDERS.get(architecture)
    backbone: FeatureExtractor = builder(**options) if builder else TimmModel(architecture)
    backbone.options = dict(options)
    return backbone


@functools.cache
def feature_map_shape(architecture: str, input_px: int, **options: str) -> tuple[int, int, int]:
    """Give (n_features, height, width) of the last feature map, without computing anything.

    Raise ExperimentError where the architecture does not take pictures of that size.
    """
    with torch.device("meta"), torch.no_grad():
        backbone = build_backbone(architecture, **options).eval()
        try:
            _, n_features, height, width = backbone(torch.empty(1, 3, input_px, input_px)).shape
            problem = f"it gives {n_features} features instead of {backbone.n_features}"
        except TIMM_REFUSALS as error:
            n_features, problem = -1, " ".join(str(error).split()).rstrip(".")
    if n_features != backbone.n_features:
        raise ExperimentError(
            f"{architecture} cannot take pictures of {input_px} x {input_px} pixels ({problem})",
            allowed="a size that its stages and patches divide",
            fix="Set backbone.input_px to another size; most of timm's models take 224",
        )
    return n_features, height, width
