"""What timm knows of its models: names, stages, the tags of their weights, and how to build them.

Nothing else imports timm. No weights are loaded here, and nothing is ever fetched: finding weight
files is for benchmark.models. Stages are read off models on the meta device, which hold no values.
"""

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import timm
import torch
from timm.models import VGG, get_arch_pretrained_cfgs
from timm.models._manipulate import group_parameters
from torch import Tensor, nn

from benchmark.errors import ExperimentError

TAIL_FRACTION: Final = 0.01
"""A last group with a smaller share of all parameters is no stage: a norm before the classifier."""

NOT_IMAGENET_ALONE: Final = frozenset({"ft", "jft", "swag", "ssld", "ijepa"})
"""Words of timm's tags: fine-tuned from other data, Google's and Instagram's pictures, a teacher
with unlabelled pictures of its own, and training without labels."""

NOT_BUILT: Final = (
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What timm's models were seen to raise, or can, where they do not support what they are asked."""


@dataclass(frozen=True)
class Stage:
    """A stage of a timm model: its name in definitions, and its parameters by timm's names."""

    name: str
    parameters: tuple[str, ...]


@dataclass(frozen=True)
class Pretrained:
    """What timm publishes about one of its weight files, by `architecture.tag`."""

    tag: str
    hub_id: str
    """Repository on the Hugging Face hub that holds the file."""
    licence: str
    """Empty where timm names none."""
    mean: tuple[float, float, float]
    """Of pixels in 0..1, RGB."""
    std: tuple[float, float, float]
    input_px: int
    """Side of the square input that the weights were trained with."""


@functools.cache
def _names() -> frozenset[str]:
    return frozenset(timm.list_models())


def names() -> list[str]:
    """List the architectures that timm has, without their tags."""
    return sorted(_names())


def is_known(name: str) -> bool:
    """Tell whether timm has an architecture of this very name; a name with a tag is none."""
    return name in _names()


def create(name: str) -> nn.Module:
    """Build a model without a classifier, with timm's own first values from torch's generator.

    Transformers that can are built for any input size, so that no parameter depends on it. timm's
    VGGs lose the two layers of 4,096 that it keeps as `pre_logits`: features are pooled instead.
    Raise ExperimentError where timm cannot build it.
    """
    model = _built(name, dynamic_img_size=True) if _takes_any_size(name) else _built(name)
    if isinstance(model, VGG):
        model.pre_logits = nn.Identity()  # type: ignore[assignment]
        model.head_hidden_size = model.num_features
    return model


@functools.cache
def _takes_any_size(name: str) -> bool:
    with torch.device("meta"):
        return hasattr(_built(name), "dynamic_img_size")


def _built(name: str, **arguments: Any) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, **arguments)
    except NOT_BUILT as error:
        raise _unusable(name, f"timm cannot build it without a classifier ({error})") from error


def _unusable(name: str, reason: str) -> ExperimentError:
    return ExperimentError(
        f"timm's {name} cannot be used here: {reason.rstrip('.')}",
        allowed="models of timm with group_matcher, forward_features and forward_head",
        fix="Choose another model: most of timm's have all three",
    )


def n_features(model: nn.Module) -> int:
    """Say how many features `pooled_features` gives: not always those of the last stage."""
    parts = cast(Any, model)
    return int(getattr(parts, "head_hidden_size", parts.num_features))


def pooled_features(model: nn.Module, x: Tensor) -> Tensor:
    """Map scaled pictures (n, 3, h, w) to (n, n_features), as timm's own classifier reads them."""
    parts = cast(Any, model)
    features: Tensor = parts.forward_head(parts.forward_features(x), pre_logits=True)
    return features


@functools.cache
def stages_of(name: str) -> tuple[Stage, ...]:
    """Derive a model's stages, shallow to deep: timm's coarse groups, with what they leave amiss.

    A tail group of less than TAIL_FRACTION goes to the stage before it; VGGs, which timm groups by
    layer, are cut at their pools. The first stage is the `stem`, every other is named by the
    shortest path that it shares with no other. Raise ExperimentError where timm has no groups.
    """
    with torch.device("meta"):
        model = create(name)
    if not all(hasattr(model, it) for it in ("group_matcher", "forward_features", "forward_head")):
        raise _unusable(name, "it has no group_matcher, forward_features or forward_head")
    sizes = {path: parameter.numel() for path, parameter in model.named_parameters()}
    groups = _folded(_groups(name, model), sizes)
    return tuple(
        Stage(stage_name, tuple(group))
        for stage_name, group in zip(_stage_names(groups), groups, strict=True)
    )


def _groups(name: str, model: Any) -> list[list[str]]:
    """Group a model's parameters by depth, shallow to deep."""
    try:
        matcher = _by_pool(model.features) if isinstance(model, VGG) else model.group_matcher(True)
        by_depth: dict[int, list[str]] = group_parameters(model, matcher)
    except NOT_BUILT as error:
        raise _unusable(name, f"timm does not group its parameters ({error})") from error
    return [by_depth[depth] for depth in sorted(by_depth) if by_depth[depth]]


def _by_pool(features: Iterable[nn.Module]) -> Callable[[str], int]:
    """Give the matcher for timm's VGGs: how many pools lie before the layer `features.N`."""
    pools = [place for place, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)]

    def depth(path: str) -> int:
        return sum(pool < int(path.split(".")[1]) for pool in pools)

    return depth


def _folded(groups: list[list[str]], sizes: dict[str, int]) -> list[list[str]]:
    n_tail = sum(sizes[path] for path in groups[-1])
    if len(groups) > 1 and n_tail < TAIL_FRACTION * sum(sizes.values()):
        return [*groups[:-2], groups[-2] + groups[-1]]
    return groups


def _stage_names(groups: list[list[str]]) -> list[str]:
    found = ["stem"]
    for number, group in enumerate(groups[1:], start=1):
        others = [path for place, paths in enumerate(groups) if place != number for path in paths]
        found.append(_own_path(group[0], others, taken=found))
    return found


def _own_path(path: str, others: list[str], taken: list[str]) -> str:
    """Name a stage by the shortest beginning of `path` that begins no path of another stage."""
    parts = path.split(".")
    for n_parts in range(1, len(parts) + 1):
        start = ".".join(parts[:n_parts])
        name = re.sub(r"[^a-z0-9]", "_", start.lower())
        if name not in taken and not any(f"{other}.".startswith(f"{start}.") for other in others):
            break
    return name


def imagenet_tag(name: str) -> str | None:
    """Choose the tag of weights that saw ImageNet-1k and nothing else; None where there is none.

    The first in timm's order, which begins with timm's default.
    """
    found = pretrained(name)
    return None if found is None else found.tag


@functools.cache
def pretrained(name: str) -> Pretrained | None:
    """Say what timm publishes about the weights of `imagenet_tag`; None where there are none."""
    for full_name, published in get_arch_pretrained_cfgs(name).items():
        tag = full_name.partition(".")[2]
        if _is_imagenet_1k(tag) and published.num_classes == 1000 and published.hf_hub_id:
            return Pretrained(
                tag=tag,
                hub_id=published.hf_hub_id,
                licence=published.license or "",
                mean=_triple(published.mean),
                std=_triple(published.std),
                input_px=published.input_size[-1],
            )
    return None


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def _is_imagenet_1k(tag: str) -> bool:
    """Read a tag as timm writes them: `augreg_in1k`, but `augreg_in21k_ft_in1k`."""
    words = set(tag.split("_"))
    other_data = words & NOT_IMAGENET_ALONE or any(
        re.fullmatch(r"in\d+k", word) for word in words - {"in1k"}
    )
    return "in1k" in words and not other_data


@functools.cache
def classifier_tensors(name: str) -> tuple[str, ...]:
    """Name the tensors of timm's weight files that `create` has no place for: the classifier's."""
    with torch.device("meta"):
        whole = timm.create_model(name, pretrained=False).state_dict()
        return tuple(sorted(whole.keys() - create(name).state_dict().keys()))
