"""Backbones by name: every architecture of ours as a chain of stages, every other from timm.

A backbone maps pictures to a feature map and has stages that can be frozen one by one, named as in
experiment.architectures. timm, which takes two seconds, is imported only for a model of timm's.
"""

import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from benchmark.errors import TIMM_REFUSALS, ExperimentError, WeightsError
from benchmark.experiment.architectures import Architecture, architecture_named

Stages = list[nn.Module]
"""Shallow to deep, as a builder gives them."""


class StageChain(nn.Module):
    """Stages one after another: the output of one is the input of the next, and all there is.

    Any prefix can be cut. Down-sampling closes a stage: what is handed on is as small as it gets.
    """

    stages: nn.ModuleDict
    """By name, shallow to deep. They share nothing, and together hold every parameter."""

    def __init__(self, known: Architecture, stages: Stages, options: Mapping[str, str]) -> None:
        super().__init__()
        self.architecture, self.options = known.name, dict(options)
        self.stages = nn.ModuleDict(dict(zip(known.stages, stages, strict=True)))

    def forward(self, x: Tensor, first: int = 0, end: int | None = None) -> Tensor:
        """Map scaled pictures (n, 3, h, w) to the last feature map (n, c, h', w').

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

        super().__init__()
        self.architecture, self.options = architecture, dict[str, str]()
        self.model = timm_models.create(architecture)
        self._parameters_of = timm_models.stages_of(architecture)
        every = self._parameters_of.items()
        stage_of = {id(self.model.get_parameter(it)): name for name, own in every for it in own}
        self._modules_of: dict[str, list[str]] = {name: [] for name in self._parameters_of}
        latest = next(iter(self._parameters_of))
        for path, module in self.model.named_modules(remove_duplicate=False):
            touched = {stage_of[id(parameter)] for parameter in module.parameters()}
            if len(touched) < 2:  # without parameters it goes with what was registered before it
                latest = touched.pop() if touched else latest
                self._modules_of[latest].append(path)

    @property
    def stages(self) -> Mapping[str, nn.Module]:
        """By name, shallow to deep: the modules of that stage alone, and every parameter of it.

        Made anew each time: moving a model may put other parameters in the place of these.
        """
        found: dict[str, nn.Module] = {}
        for name, paths in self._parameters_of.items():
            parameters = nn.ParameterList(map(self.model.get_parameter, paths))
            modules = map(self.model.get_submodule, self._modules_of[name])
            found[name] = nn.ModuleList([*modules, parameters])
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Map scaled pictures (n, 3, h, w) to pooled features, as a map (n, c, 1, 1)."""
        parts = cast(Any, self.model)
        features: Tensor = parts.forward_head(parts.forward_features(x), pre_logits=True)
        return features[:, :, None, None]


FeatureExtractor = StageChain | TimmModel
"""Maps scaled pictures (n, 3, h, w) to a feature map (n, c, h', w')."""


def small_cnn() -> Stages:
    """Build a small network of ours: five blocks, 661,976 parameters.

    98 million multiply-adds at 100 px. Each block: 3x3 convolution (padding 1, no bias), batch
    norm, ReLU, 2x2 maximum; 100 px end as 3x3x256. The study's own CNN is lost (notebooks, §1).
    """
    # ReLU after the maximum gives the same numbers as before it, on a quarter of the cells:
    # 401 to 409 images/s against 354 to 390 (forward and backward, 2 CPU cores, batch 32).
    return [
        sequence(
            conv=nn.Conv2d(n_inputs, width, 3, padding=1, bias=False),
            norm=nn.BatchNorm2d(width),
            pool=nn.MaxPool2d(2),
            relu=nn.ReLU(inplace=True),
        )
        for n_inputs, width in pairwise((3, 24, 48, 96, 192, 256))
    ]


def torchvisions(architecture: str) -> Any:
    """Build a model of torchvision's, with its classifier."""
    import torchvision.models  # takes a second, and most backbones do without

    return getattr(torchvision.models, architecture)(weights=None)


def squeezenet1_1(pooling: str) -> Stages:
    """Rearrange torchvision's SqueezeNet 1.1 (arXiv 1602.07360) up to its last fire module.

    722,496 parameters. `pooling` rounds the size of each 3x3/2 maximum: `floor` as Keras, `ceil` as
    Caffe and torchvision do. 100 px end as 5x5x512 or 6x6x512. Equal to rcmalli/keras-squeezenet's
    squeezenet.py (tested against both).
    """
    conv, relu, *parts = torchvisions("squeezenet1_1").features
    for place in (0, 3, 6):
        parts[place].ceil_mode = pooling == "ceil"
    pool, fire2, fire3, pool3, fire4, fire5, pool5, fire6, fire7, fire8, fire9 = parts
    return [
        # ReLU after the maximum gives the same numbers as before it, on a quarter of the cells.
        sequence(conv=conv, pool=pool, relu=relu),
        sequence(fire2=fire2, fire3=fire3, pool=pool3),
        sequence(fire4=fire4, fire5=fire5, pool=pool5),
        sequence(fire6=fire6, fire7=fire7, fire8=fire8, fire9=fire9),
    ]


VGG_WIDTHS: Final = (64, 128, 256, 512, 512)
VGG_CONVOLUTIONS: Final = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""Of each block: configurations D and E of table 1."""


def vgg(architecture: str) -> Stages:
    """Build VGG-16 or VGG-19 (Simonyan & Zisserman 2015, arXiv 1409.1556), cut after pool5.

    Five blocks of 3x3 convolutions (padding 1), each with a ReLU; 2x2 maxima end them. 100 px end
    as 3x3x512. Layout: torchvision's `vgg16().features`, equal to Keras's without top.
    """
    stages, n_inputs = list[nn.Module](), 3
    for width, n_convolutions in zip(VGG_WIDTHS, VGG_CONVOLUTIONS[architecture], strict=True):
        layers: dict[str, nn.Module] = {}
        for place in range(1, n_convolutions + 1):
            layers[f"conv{place}"] = nn.Conv2d(n_inputs, width, 3, padding=1)
            layers[f"relu{place}"] = nn.ReLU(inplace=True)
            n_inputs = width
        stages.append(sequence(**layers, pool=nn.MaxPool2d(2)))
    return stages


def resnet50() -> Stages:
    """Rearrange torchvision's ResNet-50 (He et al. 2016, arXiv 1512.03385, table 1), unpooled.

    100 px end as 4x4x2048. v1.5: a block that halves the size does so in its 3x3 convolution, where
    the paper and Keras do in the 1x1 before it.
    """
    layers = torchvisions("resnet50")
    first = sequence(conv=layers.conv1, norm=layers.bn1, relu=layers.relu, pool=layers.maxpool)
    return [first, layers.layer1, layers.layer2, layers.layer3, layers.layer4]


def densenet121() -> Stages:
    """Rearrange torchvision's DenseNet-121 (Huang et al. 2017, arXiv 1608.06993), unpooled.

    Each dense block with the transition that halves it; the last ends with the norm and the ReLU
    that come before pooling. 100 px end as 3x3x1024.
    """
    parts = torchvisions("densenet121").features
    conv1 = sequence(conv=parts.conv0, norm=parts.norm0, relu=parts.relu0, pool=parts.pool0)
    dense = [sequence(block=parts[2 + 2 * n], transition=parts[3 + 2 * n]) for n in (1, 2, 3)]
    last = sequence(block=parts.denseblock4, norm=parts.norm5, relu=nn.ReLU(inplace=True))
    return [conv1, *dense, last]


def mobilenet_v2() -> Stages:
    """Rearrange torchvision's MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381, table 2).

    A stage for each size, begun by the layer that halves it: 100 px end as 4x4x1280.
    """
    layers, first = torchvisions("mobilenet_v2").features, (0, 2, 4, 7, 14, 19)
    places = (range(*of_stage) for of_stage in pairwise(first))
    return [sequence(**{f"layer{place}": layers[place] for place in own}) for own in places]


BUILDERS: Final[dict[str, Callable[..., Stages]]] = {
    "cnn": small_cnn,
    "vgg16": functools.partial(vgg, "vgg16"),
    "vgg19": functools.partial(vgg, "vgg19"),
    "resnet50": resnet50,
    "densenet121": densenet121,
    "mobilenet_v2": mobilenet_v2,
    "squeezenet1_1": squeezenet1_1,
}
"""Of our own architectures' stages, named by experiment.architectures; all others are timm's."""

OPTIONS: Final = {"squeezenet1_1": {"pooling": ("floor", "ceil")}}
"""What weights may decide about a backbone, by architecture, with the values allowed."""


def first_options(architecture: str) -> Mapping[str, str]:
    """Give the options of a backbone without weights: those of its first published file, so that
    the two experiments differ in nothing else."""
    return {name: values[0] for name, values in OPTIONS.get(architecture, {}).items()}


def build_backbone(architecture: str, **options: str) -> FeatureExtractor:
    """Build a backbone with its library's own initialisation, with every option it has.

    Raise ExperimentError for an unknown architecture, WeightsError for options it does not have.
    """
    named, known = architecture_named(architecture), OPTIONS.get(architecture, {})
    if options.keys() != known.keys() or any(options[key] not in known[key] for key in known):
        allowed = "; ".join(f"{key}: {' or '.join(values)}" for key, values in known.items())
        found = f"options of the {architecture} backbone are {options}"
        raise WeightsError(found, allowed=allowed or "none")
    if architecture not in BUILDERS:
        return TimmModel(architecture)
    return StageChain(named, BUILDERS[architecture](**options), options)


@functools.cache
def feature_map_shape(architecture: str, input_px: int, **options: str) -> tuple[int, int, int]:
    """Give (channels, height, width) of the last feature map, without computing anything.

    Raise ExperimentError where the architecture does not take pictures of that size.
    """
    with torch.device("meta"), torch.no_grad():
        backbone = build_backbone(architecture, **options).eval()
        try:
            _, n_channels, height, width = backbone(torch.empty(1, 3, input_px, input_px)).shape
        except TIMM_REFUSALS as error:
            why = " ".join(str(error).split()).rstrip(".")
            found = f"{architecture} cannot take pictures of {input_px} x {input_px} pixels ({why})"
            allowed = "a size that its stages and patches divide"
            fix = "Set backbone.input_px to another size; most of timm's models take 224"
            raise ExperimentError(found, allowed=allowed, fix=fix) from None
    return n_channels, height, width
