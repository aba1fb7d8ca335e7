"""What timm knows of its models: names, stages, the tags of their weights, and how to build them.

Nothing else imports timm, and only an architecture that is in no table asks it. No weights are
loaded here, and nothing is ever fetched: finding weight files is for benchmark.models. Stages are
read off models on the meta device, which hold no values.
"""

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

import timm
import torch
from timm.models import VGG, PretrainedCfg, get_arch_pretrained_cfgs
from timm.models._manipulate import group_parameters
from torch import nn

from benchmark.errors import TIMM_REFUSALS, ExperimentError

TAIL_FRACTION: Final = 0.01
"""A last group with a smaller share of all parameters is no stage: a norm before the classifier."""

NOT_IMAGENET_ALONE: Final = frozenset({"ft", "jft", "swag", "ssld", "ijepa"})
"""Words of timm's tags: fine-tuned from other data, Google's and Instagram's pictures, a teacher
with unlabelled pictures of its own, and training without labels."""

REQUIRED: Final = ("group_matcher", "forward_features", "forward_head")


@functools.cache
def names() -> tuple[str, ...]:
    """List the architectures that timm has, without their tags."""
    return tuple(sorted(timm.list_models()))


def create(name: str) -> nn.Module:
    """Build a model without a classifier, with timm's own first values from torch's generator.

    Transformers that can are built for any input size, so that no parameter depends on it. timm's
    VGGs lose the two layers of 4,096 that it keeps as `pre_logits`: features are pooled instead.
    Raise ExperimentError where timm cannot build it.
    """
    model = _built(name, dynamic_img_size=True) if _takes_any_size(name) else _built(name)
    if isinstance(model, VGG):
        model.pre_logits = nn.Identity()  # type: ignore[assignment]
    return model


@functools.cache
def _takes_any_size(name: str) -> bool:
    with torch.device("meta"):
        return hasattr(_built(name), "dynamic_img_size")


def _built(name: str, **arguments: Any) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, **arguments)
    except TIMM_REFUSALS as error:
        raise _unusable(name, f"timm cannot build it without a classifier ({error})") from error


def _unusable(name: str, reason: str) -> ExperimentError:
    return ExperimentError(
        f"timm's {name} cannot be used here: {reason.rstrip('.')}",
        allowed=f"models of timm with {', '.join(REQUIRED[:2])} and {REQUIRED[2]}",
        fix="Choose another model: most of timm's have all three",
    )


@functools.cache
def stages_of(name: str) -> dict[str, tuple[str, ...]]:
    """Derive a model's stages, shallow to deep, each with the names of its parameters.

    They are timm's coarse groups, but: a tail group of less than TAIL_FRACTION goes to the stage
    before it; VGGs, which timm groups by layer, are cut at their pools. The first stage is the
    `stem`, every other is named by the shortest path that it shares with no other. Raise
    ExperimentError where timm has no groups.
    """
    with torch.device("meta"):
        model = cast(Any, create(name))
    if not all(hasattr(model, required) for required in REQUIRED):
        raise _unusable(name, f"it has no {', '.join(REQUIRED[:2])} or {REQUIRED[2]}")
    try:
        matcher = _by_pool(model.features) if isinstance(model, VGG) else model.group_matcher(True)
        by_depth: dict[int, list[str]] = group_parameters(model, matcher)
    except TIMM_REFUSALS as error:
        raise _unusable(name, f"timm does not group its parameters ({error})") from error
    groups = [by_depth[depth] for depth in sorted(by_depth) if by_depth[depth]]
    sizes = {path: parameter.numel() for path, parameter in model.named_parameters()}
    n_tail = sum(sizes[path] for path in groups[-1])
    if len(groups) > 1 and n_tail < TAIL_FRACTION * sum(sizes.values()):
        groups = [*groups[:-2], groups[-2] + groups[-1]]
    stages = {"stem": tuple(groups[0])}
    for group in groups[1:]:
        others = [path for paths in groups if paths is not group for path in paths]
        stages[_own_path(group[0], others, taken=stages)] = tuple(group)
    return stages


def _by_pool(features: Iterable[nn.Module]) -> Callable[[str], int]:
    """Give the matcher for timm's VGGs: how many pools lie before the layer `features.N`."""
    pools = [place for place, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)]
    return lambda path: sum(pool < int(path.split(".")[1]) for pool in pools)


def _own_path(path: str, others: Iterable[str], taken: Iterable[str]) -> str:
    """Name a stage by the shortest beginning of `path` that begins no path of another stage."""
    parts, name = path.split("."), ""
    for n_parts in range(1, len(parts) + 1):
        start = ".".join(parts[:n_parts])
        name = re.sub(r"[^a-z0-9]", "_", start.lower())
        if name not in taken and not any(f"{other}.".startswith(f"{start}.") for other in others):
            break
    return name


@functools.cache
def pretrained(name: str) -> PretrainedCfg | None:
    """Say what timm publishes about weights that saw ImageNet-1k and nothing else; None for none.

    The first in timm's order, which begins with timm's default. Tags are read as timm writes them:
    `augreg_in1k`, but not `augreg_in21k_ft_in1k`. Mean and std are of pixels in 0..1, RGB.
    """
    for full_name, published in get_arch_pretrained_cfgs(name).items():
        words = set(full_name.partition(".")[2].split("_"))
        others = [word for word in words - {"in1k"} if re.fullmatch(r"in\d+k", word)]
        is_alone = "in1k" in words and not others and not words & NOT_IMAGENET_ALONE
        if is_alone and published.num_classes == 1000 and published.hf_hub_id:
            return published
    return None


@functools.cache
def classifier_tensors(name: str) -> tuple[str, ...]:
    """Name the tensors of timm's weight files that `create` has no place for: the classifier's."""
    with torch.device("meta"):
        whole = timm.create_model(name, pretrained=False).state_dict()
        return tuple(sorted(whole.keys() - create(name).state_dict().keys()))
