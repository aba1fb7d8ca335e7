"""A model of timm as a backbone: its stages are parameters and modules of the model by name.

`experiment.timm_models` says which parameters make a stage. Imported only where a model of timm is
built: timm takes two seconds to load.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Self

from torch import Tensor, nn

from benchmark.experiment import timm_models
from benchmark.models.backbone import FeatureExtractor


class TimmStage:
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
        return map(self._model.get_parameter, self._parameter_names)

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


class TimmModel(FeatureExtractor):
    """A model without its classifier, read as its weights were trained to be: pooled by timm."""

    stages: Mapping[str, TimmStage]
    draws_first_values = True

    def __init__(self, architecture: str) -> None:
        model = timm_models.create(architecture)
        super().__init__(architecture, timm_models.n_features(model))
        self.model = model
        parameters = timm_models.stages_of(architecture)
        modules = _modules_by_stage(model, parameters)
        self.stages = {
            name: TimmStage(model, paths, modules[name]) for name, paths in parameters.items()
        }

    def forward(self, x: Tensor) -> Tensor:
        """Map scaled pictures (n, 3, h, w) to pooled features, as a map (n, n_features, 1, 1)."""
        return timm_models.pooled_features(self.model, x)[:, :, None, None]


def _modules_by_stage(
    model: nn.Module, stages: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Give for each stage the outermost modules that lie in it alone.

    The outermost, so that a block's dropout goes with the block. A module without parameters goes
    with what was registered before it, which is how timm's models are written down.
    """
    stage_of = {
        id(model.get_parameter(path)): name for name, paths in stages.items() for path in paths
    }
    found: dict[str, list[str]] = {name: [] for name in stages}
    latest = next(iter(stages))

    def visit(path: str, module: nn.Module) -> None:
        nonlocal latest
        touched = {stage_of[id(parameter)] for parameter in module.parameters()}
        if len(touched) > 1:
            for name, child in module.named_children():
                visit(f"{path}.{name}" if path else name, child)
        else:
            latest = touched.pop() if touched else latest
            found[latest].append(path)

    visit("", model)
    return found
