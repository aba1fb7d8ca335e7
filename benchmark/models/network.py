"""The network of an experiment: input scaling, backbone and heads, frozen as deep as it says.

Heads are the study's (notebooks, §3), for one task or three. First values depend on the run's seed
alone, and each part draws from a stream of its own, named by the part: the race branch of a network
for three tasks starts where that of its single-task counterpart starts.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final, Self, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmark.errors import DataError, WeightsError, WeightsMissing
from benchmark.experiment.definition import Experiment
from benchmark.experiment.parts import Conditioning, Head
from benchmark.models import backbone as backbones
from benchmark.models.weight_manifest import CENTRED, Preprocessing, preprocessing_for
from benchmark.models.weights import LoadedWeights
from benchmark.tasks import TaskName, n_classes


@contextlib.contextmanager
def seeded(seed: int, part: str) -> Iterator[None]:
    """Let torch's CPU generator draw from the stream of (seed, part), and put it back after."""
    key = hashlib.sha256(f"{seed}/{part}".encode()).digest()
    # devices=[] and the CPU generator itself: torch.manual_seed would reseed every GPU as well.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int.from_bytes(key[:7], "little"))
        yield


def initialise_chain(backbone: backbones.StageChain, seed: int) -> None:
    """He et al. 2015 (arXiv 1502.01852, eq. 10): normal, variance 2 / fan-in; biases 0.

    Batch norm starts as the identity by itself.
    """
    with seeded(seed, "trunk"):
        for module in (it for it in backbone.modules() if isinstance(it, nn.Conv2d)):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def initialise_head(head: nn.Module, initialisation: str, seed: int) -> None:
    """Initialise every Linear: `glorot` as Keras's Dense (uniform, bias 0), or `torch`'s default.

    A stream of its own for every top-level module: adding a gate leaves the branches alone.
    """
    for name, part in head.named_children():
        with seeded(seed, f"head.{name}"):
            for module in (it for it in part.modules() if isinstance(it, nn.Linear)):
                if initialisation == "glorot":
                    nn.init.xavier_uniform_(module.weight)
                    nn.init.zeros_(module.bias)
                else:
                    module.reset_parameters()


class InputScaling(nn.Module):
    """Map RGB pictures of 0..255 to what the weights demand, at the size the backbone takes.

    The constants are not part of the state dict: a network is described by `Network.describe`,
    and a state dict of another preprocessing must not change this one silently. They are as wide as
    a picture, (1, 3, 1, input_px): a processor multiplies a whole row at once, where three numbers,
    a pixel's, would be multiplied one by one.
    """

    factor: Tensor
    offset: Tensor

    def __init__(self, preprocessing: Preprocessing, input_px: int) -> None:
        super().__init__()
        self.preprocessing, self.input_px = preprocessing, input_px
        mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
        for name, values in {"factor": preprocessing.scale / std, "offset": -mean / std}.items():
            row = values.view(1, 3, 1, 1).expand(1, 3, 1, input_px)
            row = row.contiguous(memory_format=torch.channels_last)
            self.register_buffer(name, row, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Scale images (n, 3, h, w), RGB 0..255, uint8 or float, to (n, 3, input_px, input_px).

        The result is float32 and keeps the memory format. Faces of another size are resized
        bilinearly with antialiasing, before scaling.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            shape = tuple(images.shape)
            raise DataError(f"a batch of shape {shape}", allowed="(n, 3, height, width), RGB")
        if self.preprocessing.channels == "BGR":
            # flip, not indexing: it keeps channels_last, and moves one byte a value.
            images = images.flip(1)
        pixels, size = images.float(), (self.input_px, self.input_px)
        if pixels.shape[-2:] != size:
            pixels = nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)
        return (pixels * self.factor).add_(self.offset)


class TaskBranch(nn.Module):
    """Linear, ReLU, Linear: the study's Dense(128) and its softmax layer without the softmax.

    (n, n_inputs) to the embedding (n, hidden_units), at least 0, to logits (n, n_outputs).
    """

    def __init__(self, n_inputs: int, hidden_units: int, n_outputs: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(n_inputs, hidden_units)
        self.output = nn.Linear(hidden_units, n_outputs)

    def embed(self, features: Tensor) -> Tensor:
        """Map features (n, n_inputs) to the hidden layer (n, hidden_units), at least 0."""
        return cast(Tensor, self.hidden(features).relu())

    def forward(self, features: Tensor) -> Tensor:
        """Map features (n, n_inputs) to logits (n, n_outputs)."""
        return cast(Tensor, self.output(self.embed(features)))


class StandardisedHead(nn.Module):
    """A head on features minus their mean, divided by their standard deviation.

    Both are measured once, on the training faces, and kept with the weights.
    """

    mean: Tensor
    sd: Tensor

    def __init__(self, head: nn.Module, n_features: int) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("sd", torch.ones(n_features))

    def measure(self, batches: Iterable[Tensor]) -> None:
        """Take mean and standard deviation of features, given in batches (n, n_features).

        A feature that hardly varies is divided by 1: what there is of it would be rounding.
        """
        n, total = 0, torch.zeros_like(self.mean, dtype=torch.float64)
        squares = torch.zeros_like(total)
        for values in map(Tensor.double, batches):
            n, total = n + len(values), total + values.sum(0)
            squares = squares + values.square().sum(0)
        mean = total / n
        sd = (squares / n - mean.square()).clamp(min=0).sqrt()
        self.mean.copy_(mean)
        self.sd.copy_(torch.where(sd > 1e-5 * mean.abs(), sd, torch.ones_like(sd)))

    def forward(self, features: Tensor) -> dict[TaskName, Tensor]:
        """Map features (n, n_features) to logits (n, classes) per task."""
        return cast(dict[TaskName, Tensor], self.head((features - self.mean) / self.sd))


class GenderWeighting(nn.Module):
    """Scale a gender embedding: `gate` by one sigmoid scalar per face (notebooks, v4), `attention`
    by a softmax over its features, which sums to 1 (v5).

    Attention is not scaled up again, as there: at the start it shrinks about hidden_units times.
    """

    def __init__(self, conditioning: Conditioning, hidden_units: int) -> None:
        super().__init__()
        self.is_gate = conditioning == "gate"
        self.scores = TaskBranch(hidden_units, hidden_units, 1 if self.is_gate else hidden_units)

    def forward(self, embedding: Tensor) -> Tensor:
        """Map (n, hidden_units) to (n, hidden_units)."""
        scores = self.scores(embedding)
        weights = torch.sigmoid(scores) if self.is_gate else torch.softmax(scores, dim=1)
        return weights * embedding


class TaskHead(nn.Module):
    """A branch for each task; of one task, the single-task head.

    Without conditioning they share nothing but the backbone. Else age group and race see the gender
    branch's hidden layer beside the features: `embedding` joins [gender, features], `gate` and
    `attention` join [features, scaled gender], the notebooks' order, which matters only for porting
    weights. Gradients of age group and race flow into the gender branch, as they did there.
    """

    gender: TaskBranch

    def __init__(self, definition: Head, n_features: int) -> None:
        super().__init__()
        self.tasks, self.conditioning = definition.tasks, definition.conditioning
        width, is_plain = definition.hidden_units, self.conditioning == "embedding"
        are_told = self.conditioning != "none"
        self.others: tuple[TaskName, ...] = ("age_group", "race") if are_told else ()
        """Those that see the gender branch."""
        # Optimisers number parameters in this order.
        for task in sorted(self.tasks, key=self.others.__contains__):
            n_inputs = n_features + width * (task in self.others)
            self.add_module(task, TaskBranch(n_inputs, width, n_classes(task)))
        for task in self.others:
            weighting = nn.Identity() if is_plain else GenderWeighting(self.conditioning, width)
            self.add_module(f"gender_for_{task}", weighting)

    def forward(self, features: Tensor) -> dict[TaskName, Tensor]:
        """Map features (n, n_features) to logits (n, classes) per task."""
        gender = self.gender.embed(features) if self.others else None
        logits: dict[TaskName, Tensor] = {}
        for task in self.tasks:
            branch = cast(TaskBranch, self.get_submodule(task))
            if task in self.others:
                joined = [features, self.get_submodule(f"gender_for_{task}")(gender)]
                inputs = torch.cat(joined[::-1] if self.conditioning == "embedding" else joined, 1)
                logits[task] = branch(inputs)
            else:
                logits[task] = branch(features) if gender is None else branch.output(gender)
        return logits


SCHEMA: Final = 1
FEATURES: Final = "features"
"""The cut of a backbone that is frozen as a whole: between backbone and head."""


class Network(nn.Module):
    """Pictures in, logits per task out; frozen stages stay frozen and in eval mode."""

    def __init__(
        self, scaling: InputScaling, backbone: backbones.FeatureExtractor, head: nn.Module,
        trained_stages: tuple[str, ...], *, flattened: bool,
    ) -> None:  # fmt: skip
        """trained_stages: names of the stages that are trained, shallow to deep."""
        super().__init__()
        self.scaling, self.trunk, self.head = scaling, backbone, head
        self.trained_stages, self.flattened = trained_stages, flattened
        for stage in self.frozen.values():
            stage.requires_grad_(False)
        self.train()

    @property
    def backbone(self) -> backbones.FeatureExtractor:
        """The feature extractor; its tensors are called `trunk.…` in saved files."""
        return self.trunk

    @property
    def frozen(self) -> dict[str, nn.Module]:
        """Its stages that are not trained, by name."""
        stages = self.trunk.stages.items()
        return {name: it for name, it in stages if name not in self.trained_stages}

    def train(self, mode: bool = True) -> Self:
        """Switch mode, but for frozen stages: batch norm there stays in eval mode, else its
        statistics drift under frozen weights (as Keras's trainable=False does by itself)."""
        super().train(mode)
        for stage in self.frozen.values():
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
        is_chain = isinstance(self.trunk, backbones.StageChain)
        return self.trained_stages[0] if is_chain and self.frozen else None

    def prefix(self, images: Tensor) -> Tensor:
        """Map images as `forward` takes them to what is handed over at the cut, without gradients.

        At `features`: what the head receives, (n, n_features) float32, or the flattened last map in
        the backbone's own precision. Else the feature map that the first trained stage is given.
        """
        with torch.no_grad():
            scaled = self.scaling(images)
            if self.cut == FEATURES:
                return self._head_input(self.trunk(scaled))
            return cast(Tensor, self.trunk(scaled, end=-len(self.trained_stages)))

    def suffix(self, activations: Tensor) -> dict[TaskName, Tensor]:
        """Map what `prefix` gave to float32 logits per task: together they are `forward`."""
        if self.cut != FEATURES:
            feature_map = self.trunk(activations, first=-len(self.trained_stages))
            activations = self._head_input(feature_map)
        return self._logits(activations)

    def forward(self, images: Tensor) -> dict[TaskName, Tensor]:
        """Map images (n, 3, h, w), RGB 0..255, uint8 or float, to float32 logits (n, classes)."""
        return self._logits(self._head_input(self.trunk(self.scaling(images))))

    def _head_input(self, feature_map: Tensor) -> Tensor:
        return feature_map.flatten(1) if self.flattened else pooled(feature_map)

    def _logits(self, features: Tensor) -> dict[TaskName, Tensor]:
        """Autocast is off in the head: it costs next to nothing, and rounds nothing."""
        # torch 2.14 knows no autocast on the meta device.
        kind = "cpu" if features.is_meta else features.device.type
        with torch.autocast(kind, enabled=False):
            return cast(dict[TaskName, Tensor], self.head(features.float()))

    def features(self, images: Tensor) -> Tensor:
        """Map images as `forward` takes them to the backbone's pooled output (n, n_features)."""
        return pooled(self.trunk(self.scaling(images)))

    def parameter_counts(self) -> tuple[int, int]:
        """Count all parameters and the trained ones; running statistics are no parameters."""
        sizes = [(it.numel(), it.requires_grad) for it in self.parameters()]
        return sum(n for n, _ in sizes), sum(n for n, is_trained in sizes if is_trained)

    def multiply_adds(self, image_px: int) -> int:
        """Count the multiply-adds of one face's forward pass: convolutions and matrices only."""
        # On the meta device, which works out shapes alone: the counter knows attention there, and
        # not as a CPU fuses it, so that the number is the same wherever the network is.
        shapes = copy.deepcopy(self).to("meta").eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            shapes(torch.empty(1, 3, image_px, image_px, device="meta"))
        return int(counter.get_total_flops()) // 2

    def describe(self) -> dict[str, Any]:
        """Give what the state dict does not hold and `rebuild_network` needs; plain values."""
        fed = asdict(self.scaling.preprocessing)
        return {"schema": SCHEMA, "preprocessing": fed, "options": dict(self.trunk.options)}


def pooled(feature_map: Tensor) -> Tensor:
    """Average (n, c, h, w) over its cells in float32: (n, c)."""
    return feature_map.float().mean(dim=(2, 3))


def build_network(experiment: Experiment, weights: LoadedWeights | None, seed: int) -> Network:
    """Build an experiment's network; what no weights fix depends on `seed` alone.

    Raise WeightsMissing where weights are not given that it starts from, WeightsError for others.
    """
    backbone = experiment.backbone
    wanted = f"{backbone.architecture} with {backbone.weights!r} weights"
    fed, options = CENTRED, backbones.first_options(backbone.architecture)
    if weights is not None:
        fed, options = weights.file.preprocessing, weights.file.options
        given = f"{weights.file.architecture} with {weights.file.source!r} weights"
        if given != wanted:
            raise WeightsError(f"{experiment.name!r} was given {given}", allowed=wanted)
    elif backbone.weights != "none":
        raise WeightsMissing(f"{experiment.name!r} starts from {wanted}, and none were given")
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
    if (seen := description.get("schema")) != SCHEMA:
        raise WeightsError(f"a network description of schema {seen!r}", allowed=str(SCHEMA))
    preprocessing = Preprocessing.from_dict(description["preprocessing"])
    network = _assembled(experiment, preprocessing, description["options"], seed=0)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        found = f"the trained weights do not fit {experiment.name!r}: {reason}"
        fix = "Use the definition that the weights were trained with"
        raise WeightsError(found, fix=fix) from None
    return network


def _assembled(
    experiment: Experiment, preprocessing: Preprocessing, options: Mapping[str, str], seed: int
) -> Network:
    definition, flattened = experiment.backbone, experiment.head.features == "flattened"
    architecture, input_px = definition.architecture, definition.input_px
    shape = backbones.feature_map_shape(architecture, input_px, **options)
    # seeded: constructors draw values too, which must neither disturb the caller nor, but for those
    # of a backbone that starts from them, show.
    with seeded(seed, "trunk"):
        backbone = backbones.build_backbone(architecture, **options)
    if isinstance(backbone, backbones.StageChain):
        initialise_chain(backbone, seed)
    n_inputs = math.prod(shape) if flattened else shape[0]
    with seeded(seed, "construction"):
        head: nn.Module = TaskHead(experiment.head, n_inputs)
    initialise_head(head, experiment.recipe.head_initialisation, seed)
    if experiment.recipe.standardise_features:
        head = StandardisedHead(head, n_inputs)
    scaling = InputScaling(preprocessing, input_px)
    return Network(scaling, backbone, head, definition.trained_stages, flattened=flattened)
