"""What a frozen trunk says of every face, read once for all the heads on it."""

from dataclasses import replace
from typing import Any

import torch

from benchmark.errors import RunError
from benchmark.experiment import Augmentation, Experiment
from benchmark.faces.batches import FaceBatches
from benchmark.faces.splits import Rows
from benchmark.models.heads import build_head
from benchmark.models.network import Network
from benchmark.training.device import Device
from benchmark.training.farm_steps import FarmFaces
from benchmark.training.prefix_cache import (
    CachedFaces,
    CacheSettings,
    PrefixRequest,
    open_prefix,
)


class FrozenFeatures:
    """One trunk's features of all faces, from the prefix cache: to train on, and to judge by.

    Training may read them in bf16; stored answers are of features read in fp32.
    """

    faces: FarmFaces
    report: dict[str, Any]
    """Where they come from and what they took, as plain values for a run's record."""

    def __init__(
        self,
        trunk: Network,
        on_device: FaceBatches,
        device: Device,
        cache: CacheSettings,
        request: PrefixRequest,
    ) -> None:
        """Find or make the features that are asked for; raise RunError where they cannot be kept.

        request: all rows, mirrored too where a head flips faces.
        """
        self._network, self._on_device, self._device = trunk, on_device, device
        self._cache, self._request = cache, request
        self._exact: dict[bytes, CachedFaces | None] = {}
        found = open_prefix(trunk, on_device, device, cache, request)
        if found is None:
            raise RunError(
                f"the features of {trunk.trunk.architecture} cannot be kept for a farm",
                allowed="a frozen trunk whose features fit into half of the free memory",
                fix="`facebench run` trains its experiments without keeping them",
            )
        other = found.views[1] if len(found.views) > 1 else None
        self.faces = FarmFaces(found.views[0], on_device.labels, other)
        self.report = found.report()
        self._found = found

    def exact(self, rows: Rows) -> CachedFaces | None:
        """Find or make fp32 features of `rows`, ascending, once; None: they are to be read live."""
        found = self._found
        if found.is_exact_fp32 and found.channels_last:
            return found
        key = rows.tobytes()
        if key not in self._exact:
            device = replace(self._device, precision="fp32", channels_last=True, probes=False)
            device.place(self._network)
            request = replace(
                self._request, augmentation=Augmentation(), rows=torch.from_numpy(rows)
            )
            self._exact[key] = open_prefix(
                self._network, self._on_device, device, self._cache, request
            )
        return self._exact[key]

    def network_of(self, experiment: Experiment) -> Network:
        """Give an experiment's network on this trunk, which is shared; its head has no values."""
        head = build_head(experiment.head, self.faces.n_features).to(self._device.torch_device)
        whole = self._network
        return Network(
            whole.scaling, whole.trunk, head, trained_stages=(), flattened=whole.flattened
        )
