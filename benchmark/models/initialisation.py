"""First values of trunks and heads, from the run's seed alone; the global generator is untouched.

Each part draws from a stream of its own, named by the part: the race branch of a network for
three tasks starts where the race branch of its single-task twin starts.
"""

import contextlib
import hashlib
from collections.abc import Iterator

import torch
from torch import nn


@contextlib.contextmanager
def seeded(seed: int, part: str) -> Iterator[None]:
    """Let torch's CPU generator draw from the stream of (seed, part), and put it back after."""
    key = hashlib.sha256(f"{seed}/{part}".encode()).digest()
    # devices=[] and the CPU generator itself: torch.manual_seed would reseed every GPU as well.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int.from_bytes(key[:7], "little"))
        yield


def initialise_trunk(trunk: nn.Module, seed: int) -> None:
    """He et al. 2015 (arXiv 1502.01852, eq. 10): normal, variance 2 / fan-in; biases 0.

    For our own chains, which are convolutions and batch norm; the latter starts as the identity,
    which is torch's own start.
    """
    with seeded(seed, "trunk"):
        for module in trunk.modules():
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
