"""Ninety-six heads on one cache: all at once, and one after another."""

import torch

from benchmark.experiment import Experiment
from benchmark.models.network import Network
from benchmark.speed.ways import Fresh, Job
from benchmark.training.head_farm import FarmedHead, FarmFaces, first_head, train_farm
from benchmark.training.prefix_cache import CachedFaces, CacheSettings, PrefixRequest, open_prefix
from benchmark.training.trainer import TrainingFaces, fit, start


class Heads:
    """The heads of a farm with the features that they read, computed once and not timed."""

    def __init__(self, job: Job, experiments: list[Experiment], seeds: range) -> None:
        self.job = job
        self.trunk = job.network(seed=0)
        sample = job.sample
        rows = torch.cat([sample.train_rows, sample.val_rows]).cpu().sort().values
        with job.device.arithmetic():
            found = open_prefix(
                self.trunk, sample.faces, job.device, CacheSettings(None),
                PrefixRequest("speed", rows=rows),
            )  # fmt: skip
        assert found is not None, "a frozen trunk can be cached"
        self.cached: CachedFaces = found
        places = found.places
        assert places is not None, "the rows were asked for"
        self.farm_faces = FarmFaces(
            found.views[0], {task: sample.faces.labels[task][rows.to(sample.faces.device)]
                             for task in job.experiment.head.tasks}
        )  # fmt: skip
        train, val = places[sample.train_rows].cpu(), places[sample.val_rows].cpu()
        self.heads = [
            FarmedHead(experiment, seed, train, val) for experiment in experiments for seed in seeds
        ]

    @property
    def n_parameters(self) -> int:
        """Of one head."""
        return sum(value.numel() for value in self.trunk.head.parameters())


class FarmAtOnce(Fresh):
    """All heads go through each step together, as many as the farm lets."""

    def __init__(self, heads: Heads) -> None:
        self._heads = heads

    def warm_up(self) -> None:
        """Nothing: a farm that records, records anew each time."""

    def measure(self) -> None:
        """Train all heads to their end."""
        heads = self._heads
        device = heads.job.device
        with device.arithmetic():
            for _ in train_farm(heads.heads, heads.farm_faces, device):
                pass
            device.synchronise()


class FarmOneByOne(Fresh):
    """The same heads one after another, each by our trainer on the same features."""

    def __init__(self, heads: Heads) -> None:
        self._heads = heads

    def warm_up(self) -> None:
        """Train the first head."""
        self._train(self._heads.heads[0])

    def measure(self) -> None:
        """Train all heads to their end."""
        for head in self._heads.heads:
            self._train(head)

    def _train(self, head: FarmedHead) -> None:
        heads, device = self._heads, self._heads.job.device
        whole, sample = heads.trunk, heads.job.sample
        own = first_head(head.experiment, heads.farm_faces.n_features, head.seed)
        network = Network(
            whole.scaling, whole.trunk, own, trained_stages=(), flattened=whole.flattened
        )
        data = TrainingFaces(sample.faces, sample.train_rows, sample.val_rows, heads.cached)
        with device.arithmetic():
            state = start(network, head.experiment.recipe, device)
            for _ in fit(state, data, head.experiment, head.seed, device):
                pass
            device.synchronise()
