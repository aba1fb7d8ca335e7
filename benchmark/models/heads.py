"""Heads for one task or three on the backbone's features, and the first values of new layers.

Features come in as vectors, logits go out in float32; pooling and the loss are left to others. The
heads are the study's (notebooks, §3). First values depend on the run's seed alone, and each part
draws from a stream of its own, named by the part: the race branch of a network for three tasks
starts where that of its single-task counterpart starts.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from benchmark.experiment.parts import Conditioning, Head
from benchmark.tasks import TaskName, n_classes


@contextlib.contextmanager
def seeded(seed: int, part: str) -> Iterator[None]:
    """Let torch's CPU generator draw from the stream of (seed, part), and put it back after."""
    key = hashlib.sha256(f"{seed}/{part}".encode()).digest()
    # devices=[] and the CPU generator itself: torch.manual_seed would reseed every GPU as well.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int.from_bytes(key[:7], "little"))
        yield


def initialise_backbone(backbone: nn.Module, seed: int) -> None:
    """He et al. 2015 (arXiv 1502.01852, eq. 10): normal, variance 2 / fan-in; biases 0.

    For our own chains, which are convolutions and batch norm; the latter starts as the identity,
    which is torch's own start.
    """
    with seeded(seed, "trunk"):
        for module in backbone.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def initialise_head(head: nn.Module, initialisation: str, seed: int) -> None:
    """Initialise every Linear: `glorot` as Keras's Dense (uniform, bias 0), or `torch`'s default.

    A stream of its own for every top-level module: adding a gate leaves the branches alone.
    """
    for name, part in head.named_children():
        with seeded(seed, f"head.{name}"):
            for module in part.modules():
                if not isinstance(module, nn.Linear):
                    continue
                if initialisation == "glorot":
                    nn.init.xavier_uniform_(module.weight)
                    nn.init.zeros_(module.bias)
                else:
                    module.reset_parameters()


class TaskBranch(nn.Module):
    """Linear, ReLU, Linear: the study's Dense(128) and its softmax layer without the softmax."""

    def __init__(self, n_inputs: int, hidden_units: int, n_outputs: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(n_inputs, hidden_units)
        self.output = nn.Linear(hidden_units, n_outputs)

    def embed(self, features: Tensor) -> Tensor:
        """Map features (n, n_inputs) to the hidden layer (n, hidden_units), at least 0."""
        embedding: Tensor = self.hidden(features).relu()
        return embedding

    def classify(self, embedding: Tensor) -> Tensor:
        """Map a hidden layer (n, hidden_units) to logits (n, n_outputs)."""
        logits: Tensor = self.output(embedding)
        return logits

    def forward(self, features: Tensor) -> Tensor:
        """Map features (n, n_inputs) to logits (n, n_outputs)."""
        return self.classify(self.embed(features))


class PlainHead(nn.Module):
    """Separate branches that share nothing but the backbone; of one task, the single-task head."""

    def __init__(self, definition: Head, n_features: int) -> None:
        super().__init__()
        self.tasks = definition.tasks
        for task in self.tasks:
            branch = TaskBranch(n_features, definition.hidden_units, n_classes(task))
            self.add_module(task, branch)

    def forward(self, features: Tensor) -> dict[TaskName, Tensor]:
        """Map features (n, n_features) to logits (n, classes) per task."""
        return {task: self.get_submodule(task)(features) for task in self.tasks}


class StandardisedHead(nn.Module):
    """A head that reads features minus their mean, divided by their standard deviation.

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
        for batch in batches:
            values = batch.double()
            n += len(values)
            total = total + values.sum(0)
            squares = squares + values.square().sum(0)
        mean = total / n
        sd = (squares / n - mean.square()).clamp(min=0).sqrt()
        varies = sd > 1e-5 * mean.abs()
        self.mean.copy_(mean)
        self.sd.copy_(torch.where(varies, sd, torch.ones_like(sd)))

    def forward(self, features: Tensor) -> dict[TaskName, Tensor]:
        """Map features (n, n_features) to logits (n, classes) per task."""
        logits: dict[TaskName, Tensor] = self.head((features - self.mean) / self.sd)
        return logits


class GenderWeighting(nn.Module):
    """Scale a gender embedding: `gate` by one sigmoid scalar per face (notebooks, v4), `attention`
    by a softmax over its features, which sums to 1 (v5).

    Attention is not scaled up again: at the start the embedding is shrunk about hidden_units times,
    as there.
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


class GenderConditionedHead(nn.Module):
    """Age-group and race branches that see the gender branch's hidden layer beside the features.

    `embedding` joins [gender, features], `gate` and `attention` join [features, scaled gender]:
    the notebooks' order, which matters only for porting weights. Gradients of age group and race
    flow into the gender branch, as they did there.
    """

    def __init__(self, definition: Head, n_features: int) -> None:
        super().__init__()
        width = definition.hidden_units
        self.gender_first = definition.conditioning == "embedding"
        self.gender = TaskBranch(n_features, width, n_classes("gender"))
        self.age_group = TaskBranch(n_features + width, width, n_classes("age_group"))
        self.race = TaskBranch(n_features + width, width, n_classes("race"))
        self.gender_for_age_group, self.gender_for_race = (
            nn.Identity() if self.gender_first else GenderWeighting(definition.conditioning, width)
            for _ in range(2)
        )

    def forward(self, features: Tensor) -> dict[TaskName, Tensor]:
        """Map features (n, n_features) to logits (n, classes) per task."""
        gender = self.gender.embed(features)
        return {
            "age_group": self.age_group(self._join(features, self.gender_for_age_group(gender))),
            "gender": self.gender.classify(gender),
            "race": self.race(self._join(features, self.gender_for_race(gender))),
        }

    def _join(self, features: Tensor, gender: Tensor) -> Tensor:
        parts = [gender, features] if self.gender_first else [features, gender]
        return torch.cat(parts, dim=1)


def build_head(definition: Head, n_features: int) -> nn.Module:
    """Build the head that `definition` describes on features of length `n_features`."""
    if definition.conditioning == "none":
        return PlainHead(definition, n_features)
    return GenderConditionedHead(definition, n_features)
