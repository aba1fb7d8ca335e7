"""A trunk of timm's, whole, with stages that can be frozen as those of our own trunks.

What the stages are is for benchmark.timm_models to say; here they meet the modules of a model.
"""

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from benchmark import timm_models
from benchmark.models.trunk import ScatteredStage, Trunk


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
