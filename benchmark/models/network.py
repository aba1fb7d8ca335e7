"""The network of an experiment: input scaling, backbone and head, frozen as deep as it says.

Training it, and moving it to a device, is for benchmark.training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Self, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from benchmark.errors import WeightsError, WeightsMissing
from benchmark.experiment.definition import Experiment
from benchmark.models.backbone import FeatureExtractor, StageChain
from benchmark.models.chains import build_backbone, feature_map_shape
from benchmark.models.heads import (
    StandardisedHead,
    build_head,
    initialise_backbone,
    initialise_head,
    seeded,
)
from benchmark.models.preprocessing import InputScaling, Preprocessing, preprocessing_for
from benchmark.models.weight_manifest import untrained_start
from benchmark.models.weights import LoadedWeights
from benchmark.tasks import TaskName

if TYPE_CHECKING:
    from benchmark.models.timm_backbone import TimmStage

SCHEMA: Final = 1
FEATURES: Final = "features"
"""The cut of a backbone that is frozen as a whole: between backbone and head."""


class Network(nn.Module):
    """Pictures in, logits per task out; frozen stages stay frozen and in eval mode."""

    def __init__(
        self,
        scaling: InputScaling,
        backbone: FeatureExtractor,
        head: nn.Module,
        *,
        trained_stages: tuple[str, ...],
        flattened: bool,
    ) -> None:
        super().__init__()
        self.scaling = scaling
        self.trunk = backbone
        self.head = head
        self.trained_stages = trained_stages
        """Names of the stages that are trained, shallow to deep."""
        self.flattened = flattened
        for stage in self._frozen():
            stage.requires_grad_(False)
        self.train()

    @property
    def backbone(self) -> FeatureExtractor:
        """The feature extractor; its tensors are called `trunk.…` in saved files."""
        return self.trunk

    def _frozen(self) -> list[nn.Module | TimmStage]:
        stages = self.trunk.stages
        return [stages[name] for name in stages if name not in self.trained_stages]

    def train(self, mode: bool = True) -> Self:
        """Switch mode, but for frozen stages: batch norm there stays in eval mode, else its
        statistics drift under frozen weights (as Keras's trainable=False does by itself)."""
        super().train(mode)
        for stage in self._frozen():
            stage.eval()
        if not self.trained_stages:
            self.trunk.eval()
        return self

    @property
    def cut(self) -> str | None:
        """Where the frozen part ends: `features` where the whole backbone is frozen, the first
        trained stage where a chain is frozen up to it, None where nothing is or it has no cut."""
        if not self.trained_stages:
            return FEATURES
        is_chain = isinstance(self.trunk, StageChain)
        return self.trained_stages[0] if is_chain and self._frozen() else None

    def prefix(self, images: Tensor) -> Tensor:
        """Map images as `forward` takes them to what is handed over at the cut, without gradients.

        At `features`: what the head reads, (n, n_features) float32, or the flattened last map in
        the backbone's own precision. Else the feature map that the first trained stage is given.
        """
        with torch.no_grad():
            scaled = self.scaling(images)
            if self.cut != FEATURES:
                return cast(Tensor, self.trunk(scaled, end=-len(self.trained_stages)))
            feature_map = self.trunk(scaled)
            return feature_map.flatten(1) if self.flattened else pooled(feature_map)

    def suffix(self, activations: Tensor) -> dict[TaskName, Tensor]:
        """Map what `prefix` gave to float32 logits per task: together they are `forward`."""
        if self.cut != FEATURES:
            return self.classify(self.trunk(activations, first=-len(self.trained_stages)))
        with torch.autocast(activations.device.type, enabled=False):
            return cast(dict[TaskName, Tensor], self.head(activations.float()))

    def forward(self, images: Tensor) -> dict[TaskName, Tensor]:
        """Map images (n, 3, h, w), RGB 0..255, uint8 or float, to float32 logits (n, classes)."""
        return self.classify(self.trunk(self.scaling(images)))

    def classify(self, feature_map: Tensor) -> dict[TaskName, Tensor]:
        """Map the last feature map (n, n_features, h', w') to float32 logits (n, classes) per task.

        Autocast is off from here on: the head costs next to nothing, and rounds nothing.
        """
        if feature_map.is_meta:  # torch 2.14 knows no autocast on the meta device
            return self._read(feature_map)
        with torch.autocast(feature_map.device.type, enabled=False):
            return self._read(feature_map)

    def _read(self, feature_map: Tensor) -> dict[TaskName, Tensor]:
        features = feature_map.float().flatten(1) if self.flattened else pooled(feature_map)
        return cast(dict[TaskName, Tensor], self.head(features))

    def features(self, images: Tensor) -> Tensor:
        """Map images as `forward` takes them to the backbone's pooled output (n, n_features)."""
        return pooled(self.trunk(self.scaling(images)))

    def parameter_counts(self) -> tuple[int, int]:
        """Count all parameters and the trained ones; running statistics are no parameters."""
        counts = [(parameter.numel(), parameter.requires_grad) for parameter in self.parameters()]
        return sum(n for n, _ in counts), sum(n for n, is_trained in counts if is_trained)

    def multiply_adds(self, image_px: int) -> int:
        """Count the multiply-adds of one face's forward pass: convolutions and matrices only."""
        # On the meta device, which works out shapes alone: the counter knows attention there, and
        # not as a CPU fuses it, so that the number is the same wherever the network is.
        tensors = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        shapes = {name: torch.empty_like(value, device="meta") for name, value in tensors.items()}
        faces = torch.empty(1, 3, image_px, image_px, device="meta")
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                functional_call(self, shapes, (faces,))
        finally:
            self.train(was_training)
        return int(counter.get_total_flops()) // 2

    def describe(self) -> dict[str, Any]:
        """Give what the state dict does not hold and `rebuild_network` needs; plain values."""
        return {
            "schema": SCHEMA,
            "preprocessing": self.scaling.preprocessing.as_dict(),
            "options": dict(self.trunk.options),
        }


def pooled(feature_map: Tensor) -> Tensor:
    """Average (n, c, h, w) over its cells in float32: (n, c)."""
    return feature_map.float().mean(dim=(2, 3))


def build_network(experiment: Experiment, weights: LoadedWeights | None, seed: int) -> Network:
    """Build an experiment's network; what no weights fix depends on `seed` alone.

    Raise WeightsMissing where the experiment starts from weights and none are given, WeightsError
    where they are another's.
    """
    backbone = experiment.backbone
    wanted = f"{backbone.architecture} with {backbone.weights!r} weights"
    fed, options = untrained_start(backbone.architecture)
    if weights is not None:
        if (weights.architecture, weights.source) != (backbone.architecture, backbone.weights):
            raise WeightsError(
                f"{experiment.name!r} was given {weights.architecture} with {weights.source!r} "
                "weights",
                allowed=wanted,
            )
        fed, options = weights.preprocessing, weights.options
    elif backbone.weights != "none":
        raise WeightsMissing(
            f"{experiment.name!r} starts from {wanted}, and none were given",
            fix=f"facebench weights list says where the {backbone.weights!r} weights are",
        )
    preprocessing = preprocessing_for(fed, experiment.protocol.input_scaling)
    network = _assembled(experiment, preprocessing, options, seed)
    if weights is not None:
        network.backbone.load_state_dict(weights.tensors)
    return network


def rebuild_network(
    experiment: Experiment, description: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Network:
    """Build a trained network again, from `Network.describe` and its state dict.

    Needs no weight source. Raise WeightsError where the three do not belong together.
    """
    if description.get("schema") != SCHEMA:
        raise WeightsError(
            f"a network description of schema {description.get('schema')!r}",
            allowed=str(SCHEMA),
            fix="Read it with the version of facebench that wrote it",
        )
    preprocessing = Preprocessing.from_dict(description["preprocessing"])
    network = _assembled(experiment, preprocessing, description["options"], seed=0)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise WeightsError(
            f"the trained weights do not fit {experiment.name!r}: {reason}",
            fix="Use the definition that the weights were trained with",
        ) from None
    return network


def _assembled(
    experiment: Experiment, preprocessing: Preprocessing, options: Mapping[str, str], seed: int
) -> Network:
    definition, input_px = experiment.backbone, experiment.backbone.input_px
    flattened = experiment.head.features == "flattened"
    n_features, height, width = feature_map_shape(definition.architecture, options, input_px)
    # seeded: constructors draw values too, which must neither disturb the caller nor, but for those
    # of a backbone that starts from them, show.
    with seeded(seed, "trunk"):
        backbone = build_backbone(definition.architecture, **options)
    if not backbone.draws_first_values:
        initialise_backbone(backbone, seed)
    n_inputs = n_features * (height * width if flattened else 1)
    with seeded(seed, "construction"):
        head = build_head(experiment.head, n_inputs)
    initialise_head(head, experiment.recipe.head_initialisation, seed)
    if experiment.recipe.standardise_features:
        head = StandardisedHead(head, n_inputs)
    return Network(
        InputScaling(preprocessing, input_px),
        backbone,
        head,
        trained_stages=definition.trained_stages,
        flattened=flattened,
    )
