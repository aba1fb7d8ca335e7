"""What the machine could do at best: its peaks, measured, and the least time that a network takes.

The bound of a layer is the larger of two times: its multiply-adds at the peak of a matrix product,
and its inputs, outputs and weights at the speed of a copy. Layers follow one another. Pointwise
layers count as fused into the one before, as a perfect compiler would; norms and poolings do not.
Operations are counted from the layers' shapes and not by torch's FlopCounterMode, which counts a
depthwise convolution's backward pass as if it were a dense one.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from benchmark.models.network import Network
from benchmark.training.device import Device, Precision, cpu_has_bf16

ADAM_BYTES: Final = 28
"""A parameter in a step of Adam in fp32: value, gradient and two averages are read, all but the
gradient written."""
REPEATS: Final = {"cpu": 30, "cuda": 5}
"""On a CPU many short ones: where cores are shared, one of them is left alone."""
COUNTED: Final = (nn.Conv2d, nn.Linear, nn.modules.batchnorm._BatchNorm, nn.LayerNorm,
                  nn.MaxPool2d, nn.AvgPool2d)  # fmt: skip


@dataclass(frozen=True)
class Peaks:
    """The best this machine was seen to do."""

    flops: dict[str, float]
    """Operations a second in a matrix product, by precision."""
    copy_bytes: float
    """Bytes a second, read and written, of a copy in the device's memory."""

    def better(self, other: "Peaks") -> "Peaks":
        """Keep the best of two measurements: a busy moment lowers a peak, nothing raises it."""
        flops = {name: max(value, other.flops[name]) for name, value in self.flops.items()}
        return Peaks(flops, max(self.copy_bytes, other.copy_bytes))


def measured_peaks(device: Device) -> Peaks:
    """Measure a matrix product in every precision that is native here, and a copy."""
    on_cuda = device.kind == "cuda"
    kinds: dict[str, torch.dtype] = {"fp32": torch.float32}
    if on_cuda or cpu_has_bf16():
        kinds["bf16"] = torch.bfloat16
    side = 8192 if on_cuda else 512
    flops = {}
    for name, dtype in kinds.items():
        # Random and not zero: a GPU was seen to be faster on zeros.
        left = torch.randn(side, side, device=device.torch_device).to(dtype)
        out = torch.empty_like(left)
        with _tf32_allowed():
            seconds = _best_of(lambda a=left, b=out: torch.mm(a, a, out=b), device)
        flops[name] = 2 * side**3 / seconds
    values = torch.randn((1 << 29) if on_cuda else (1 << 23), device=device.torch_device)
    target = torch.empty_like(values)
    copied = _best_of(lambda: target.copy_(values), device)
    return Peaks(flops, 2 * values.numel() * values.element_size() / copied)


@contextlib.contextmanager
def _tf32_allowed() -> Iterator[None]:
    """Let CUDA round fp32 products as torch lets it in convolutions: else they outrun the peak."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _best_of(work: Any, device: Device) -> float:
    best = float("inf")
    for _ in range(1 + REPEATS.get(device.kind, 5)):
        device.synchronise()
        started = time.perf_counter()
        work()
        device.synchronise()
        best = min(best, time.perf_counter() - started)
    return best


@dataclass(frozen=True)
class Layer:
    """A layer's shapes, for one face."""

    stage: str
    """The trunk's stage that it belongs to, or `head`."""
    multiply_adds: int
    n_inputs: int
    n_outputs: int
    n_weights: int


@dataclass(frozen=True)
class Work:
    """What is to be done: operations, and the least seconds that they take at the peaks."""

    flops: float
    seconds: float

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.seconds + other.seconds)

    def times(self, factor: float) -> "Work":
        """Do it so many times."""
        return Work(self.flops * factor, self.seconds * factor)


def layers_of(network: Network, image_px: int) -> list[Layer]:
    """Read the layers that count off a forward pass on the meta device, which holds no values."""
    found: list[Layer] = []
    stage_of = {
        id(module): name
        for name, stage in dict(network.trunk.stages).items()
        if isinstance(stage, nn.Module)
        for module in stage.modules()
    }

    def note(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        inside = stage_of.get(id(module), "head" if id(module) in in_head else "trunk")
        found.append(
            Layer(
                inside,
                _multiply_adds(module, made),
                given[0].numel(),
                made.numel(),
                sum(value.numel() for value in module.parameters()),
            )
        )

    in_head = {id(module) for module in network.head.modules()}
    hooks = [
        module.register_forward_hook(note)
        for module in network.modules()
        if isinstance(module, COUNTED)
    ]
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    shapes = {name: torch.empty_like(value, device="meta") for name, value in tensors.items()}
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            faces = torch.empty(1, 3, image_px, image_px, device="meta")
            functional_call(network, shapes, (faces,))
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return found


def _multiply_adds(module: nn.Module, made: Tensor) -> int:
    if isinstance(module, nn.Conv2d):
        height, width = module.kernel_size
        return made.numel() * height * width * module.in_channels // module.groups
    if isinstance(module, nn.Linear):
        return made.numel() * module.in_features
    return 0


@dataclass(frozen=True)
class Bound:
    """The machine's peaks under one precision, for batches of one size."""

    peaks: Peaks
    precision: Precision
    batch_size: int

    def forward(self, layers: Iterable[Layer]) -> Work:
        """One batch through some layers."""
        return self._all(layers, passes=1)

    def training(self, layers: Iterable[Layer], n_trained: int) -> Work:
        """One batch forward, backward by inputs and by weights, and Adam's step."""
        adam = Work(0, n_trained * ADAM_BYTES / self.peaks.copy_bytes)
        return self._all(layers, passes=3) + adam

    def _all(self, layers: Iterable[Layer], passes: int) -> Work:
        total = Work(0, 0)
        for layer in layers:
            total += self._one(layer).times(passes)
        return total

    def _one(self, layer: Layer) -> Work:
        flops = 2 * layer.multiply_adds * self.batch_size
        moved = (layer.n_inputs + layer.n_outputs) * self.batch_size + layer.n_weights
        n_bytes = moved * (2 if self.precision == "bf16" else 4)
        rate = self.peaks.flops.get(self.precision, self.peaks.flops["fp32"])
        return Work(flops, max(flops / rate, n_bytes / self.peaks.copy_bytes))


def cut_layers(network: Network, layers: Iterable[Layer]) -> tuple[list[Layer], list[Layer]]:
    """Divide layers into those before a network's cut, which are frozen, and those behind it."""
    trained = {*network.trained_stages, "head"}
    if network.cut is None:
        return [], list(layers)
    layers = list(layers)
    return (
        [layer for layer in layers if layer.stage not in trained],
        [layer for layer in layers if layer.stage in trained],
    )
