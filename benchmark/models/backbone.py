"""The interface of a backbone, and backbones built by timm.

A trunk of timm's, whole, with stages that can be frozen as those of our own trunks.

What the stages are is for benchmark.architectures to say; here they meet the modules of a model.

What every trunk is: pictures in, a feature map out, and stages that can be frozen one by one.

The architectures have files of their own; benchmark.models.chains lists them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Self

from torch import Tensor, nn

from benchmark import timm_models


class ScatteredStage:
    """A stage that is no module of its own: some parameters and some modules of a model.

    It answers to what networks ask of a stage, under the names that modules have for it. All is
    looked up by name each time: moving a model may put other parameters in the place of these.
    """

    def __init__(
        self, model: nn.Module, parameter_names: Sequence[str], module_names: Sequence[str]
    ) -> None:
        self._model = model
        self._parameter_names = tuple(parameter_names)
        self._module_names = tuple(module_names)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Give the stage's parameters, those that lie loose in a larger module too."""
        for name in self._parameter_names:
            yield self._model.get_parameter(name)

    def modules(self) -> Iterator[nn.Module]:
        """Give the modules that belong to this stage alone, and theirs."""
        for name in self._module_names:
            yield from self._model.get_submodule(name).modules()

    def state_dict(self) -> dict[str, Tensor]:
        """Give parameters and running statistics under the model's names."""
        inside = tuple(f"{name}." if name else "" for name in self._module_names)
        return {
            name: value
            for name, value in self._model.state_dict().items()
            if name in self._parameter_names or name.startswith(inside)
        }

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Say whether the stage's parameters are trained."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def eval(self) -> Self:
        """Put the stage's modules into eval mode."""
        for name in self._module_names:
            self._model.get_submodule(name).eval()
        return self


class Trunk(nn.Module):
    """Maps scaled pictures (n, 3, h, w) to a feature map (n, n_features, h', w')."""

    stages: nn.ModuleDict | Mapping[str, ScatteredStage]
    """By name, shallow to deep. They share nothing, and together hold every parameter."""

    draws_first_values = False
    """Whether its constructor draws the values to start from; else initialise_trunk does."""

    def __init__(self, architecture: str, n_features: int) -> None:
        super().__init__()
        self.architecture = architecture
        self.options: dict[str, str] = {}
        """What it was built with; set by build_trunk."""
        self.n_features = n_features


class ChainTrunk(Trunk):
    """Stages one after another: the output of one is the input of the next, and all there is.

    Any prefix can be cut. Down-sampling closes a stage: what is handed on is as small as it gets.
    """

    stages: nn.ModuleDict

    def __init__(self, architecture: str, stages: Mapping[str, nn.Module], n_features: int) -> None:
        super().__init__(architecture, n_features)
        self.stages = nn.ModuleDict(dict(stages))

    def forward(self, x: Tensor) -> Tensor:
        """Map scaled pictures (n, 3, h, w) to the last feature map (n, n_features, h', w')."""
        for stage in self.stages.values():
            x = stage(x)
        return x

    def before(self, name: str, x: Tensor) -> Tensor:
        """Map scaled pictures to what the stage called `name` is given."""
        for stage_name, stage in self.stages.items():
            if stage_name == name:
                break
            x = stage(x)
        return x

    def onwards(self, name: str, x: Tensor) -> Tensor:
        """Map what `before` gave to the last feature map, from the stage called `name` on."""
        stages = list(self.stages)
        for stage_name in stages[stages.index(name) :]:
            x = self.stages[stage_name](x)
        return x


def sequence(**modules: nn.Module) -> nn.Sequential:
    """Chain modules in the order given, under the names given."""
    chained = nn.Sequential()
    for name, module in modules.items():
        chained.add_module(name, module)
    return chained


class TimmTrunk(Trunk):
    """A model without its classifier, read as its weights were trained to be: pooled by timm."""

    stages: Mapping[str, ScatteredStage]
    draws_first_values = True

    def __init__(self, architecture: str) -> None:
        model = timm_models.create(architecture)
        super().__init__(architecture, timm_models.n_features(model))
        self.model = model
        self.stages = _stages(model, timm_models.stages_of(architecture))

    def forward(self, x: Tensor) -> Tensor:
        """Map scaled pictures (n, 3, h, w) to pooled features, as a map (n, n_features, 1, 1)."""
        return timm_models.pooled_features(self.model, x)[:, :, None, None]


def _stages(
    model: nn.Module, definitions: tuple[timm_models.Stage, ...]
) -> dict[str, ScatteredStage]:
    stage_of = {
        id(model.get_parameter(path)): stage.name
        for stage in definitions
        for path in stage.parameters
    }
    modules: dict[str, list[str]] = {stage.name: [] for stage in definitions}
    for path, name in _modules_by_stage(model, stage_of, definitions[0].name):
        modules[name].append(path)
    return {
        stage.name: ScatteredStage(model, stage.parameters, modules[stage.name])
        for stage in definitions
    }


def _modules_by_stage(
    model: nn.Module, stage_of: Mapping[int, str], first: str
) -> Iterator[tuple[str, str]]:
    """Give the outermost modules that lie in one stage, and the stage.

    The outermost, so that a block's dropout goes with the block. A module without parameters goes
    with what was registered before it, which is how timm's models are written down.
    """
    latest = first

    def visit(path: str, module: nn.Module) -> Iterator[tuple[str, str]]:
        nonlocal latest
        touched = {stage_of[id(parameter)] for parameter in module.parameters()}
        if len(touched) > 1:
            for name, child in module.named_children():
                yield from visit(f"{path}.{name}" if path else name, child)
        else:
            latest = touched.pop() if touched else latest
            yield path, latest

    yield from visit("", model)
