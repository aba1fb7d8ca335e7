"""What the machine could do at best: its peaks, measured, and the least time that a row takes.

The bound of a layer is the larger of two times: its multiply-adds at the peak of a matrix product,
and its inputs, outputs and weights at the speed of a copy. Layers follow one another. Pointwise
layers count as fused into the one before, as a perfect compiler would; norms and poolings do not.
Operations are counted from the layers' shapes and not by torch's FlopCounterMode, which counts a
depthwise convolution's backward pass as if it were a dense one.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call

from benchmark.models.network import Network
from benchmark.speed.loops import Job
from benchmark.training.device import Device, cpu_has_bf16

ADAM_BYTES: Final = 28
"""A parameter in a step of Adam in fp32: value, gradient and two averages are read, all but the
gradient written."""
COUNTED: Final = (nn.Conv2d, nn.Linear, nn.modules.batchnorm._BatchNorm, nn.LayerNorm,
                  nn.MaxPool2d, nn.AvgPool2d)  # fmt: skip
Work = npt.NDArray[np.float64]
"""(operations, the least seconds that they take at the peaks)."""


@dataclass(frozen=True)
class Peaks:
    """The best this machine was seen to do: operations a second in a matrix product, by precision,
    and bytes a second, read and written, of a copy in the device's memory."""

    flops: dict[str, float]
    copy_bytes: float

    def better(self, other: "Peaks") -> "Peaks":
        """Keep the best of two measurements: a busy moment lowers a peak, nothing raises it."""
        flops = {name: max(value, other.flops[name]) for name, value in self.flops.items()}
        return Peaks(flops, max(self.copy_bytes, other.copy_bytes))

    def forward(self, layers: Iterable["LayerShape"], precision: str, batch_size: int) -> Work:
        """One batch through some layers."""
        total, rate = np.zeros(2), self.flops.get(precision, self.flops["fp32"])
        for layer in layers:
            flops = 2 * layer.multiply_adds * batch_size
            moved = (layer.n_inputs + layer.n_outputs) * batch_size + layer.n_weights
            n_bytes = moved * (2 if precision == "bf16" else 4)
            total += [flops, max(flops / rate, n_bytes / self.copy_bytes)]
        return total

    def training(
        self, layers: Iterable["LayerShape"], precision: str, batch_size: int, n_trained: int
    ) -> Work:
        """One batch forward, backward by inputs and by weights, and Adam's step."""
        adam = [0, n_trained * ADAM_BYTES / self.copy_bytes]
        return 3 * self.forward(layers, precision, batch_size) + adam


def measured_peaks(device: Device) -> Peaks:
    """Measure a matrix product in every precision that is native here, and a copy."""
    on_cuda, where = device.kind == "cuda", device.torch_device
    kinds = {"fp32": torch.float32}
    kinds |= {"bf16": torch.bfloat16} if on_cuda or cpu_has_bf16() else {}
    side, flops = (8192 if on_cuda else 512), {}

    def least_seconds(work: Callable[[], Tensor]) -> float:
        best = float("inf")
        for _ in range(6 if on_cuda else 31):
            device.synchronise()
            started = time.perf_counter()
            work()
            device.synchronise()
            best = min(best, time.perf_counter() - started)
        return best

    # CUDA rounds fp32 products as torch lets it in convolutions: else they outrun the peak.
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    for name, dtype in kinds.items():
        # Random and not zero: a GPU was seen to be faster on zeros.
        left = torch.randn(side, side, device=where).to(dtype)
        out = torch.empty_like(left)
        flops[name] = 2 * side**3 / least_seconds(lambda a=left, b=out: torch.mm(a, a, out=b))  # type: ignore[misc]
    torch.backends.cuda.matmul.allow_tf32 = before
    values = torch.randn((1 << 29) if on_cuda else (1 << 23), device=where)
    target = torch.empty_like(values)
    n_bytes = 2 * values.numel() * values.element_size()
    return Peaks(flops, n_bytes / least_seconds(lambda: target.copy_(values)))


@dataclass(frozen=True)
class LayerShape:
    """A layer's sizes for one face; stage: of the backbone that it belongs to, or `head`."""

    stage: str
    multiply_adds: int
    n_inputs: int
    n_outputs: int
    n_weights: int


def layers_of(network: Network, image_px: int) -> list[LayerShape]:
    """Read the layers that count off a forward pass on the meta device, which holds no values."""
    found: list[LayerShape] = []
    stages = {"head": network.head, **dict(network.backbone.stages)}
    stage_of = {
        id(module): name
        for name, stage in stages.items()
        if isinstance(stage, nn.Module)
        for module in stage.modules()
    }

    def note(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        n_weights = sum(value.numel() for value in module.parameters())
        stage, n_products = stage_of.get(id(module), "backbone"), multiply_adds(module, made)
        found.append(LayerShape(stage, n_products, given[0].numel(), made.numel(), n_weights))

    counted = [module for module in network.modules() if isinstance(module, COUNTED)]
    hooks = [module.register_forward_hook(note) for module in counted]
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


def multiply_adds(module: nn.Module, made: Tensor) -> int:
    """Count a layer's products for what it made; 0 for one without."""
    if isinstance(module, nn.Conv2d):
        height, width = module.kernel_size
        return made.numel() * height * width * module.in_channels // module.groups
    return made.numel() * module.in_features if isinstance(module, nn.Linear) else 0


def least_work(kind: str, job: Job, peaks: Peaks) -> list[Work]:
    """Say what a row of a kind does at the least: the plain loop in fp32, then ours in its own."""
    sample, size = job.sample, job.batch_size
    n, n_val = len(sample.train) / size, len(sample.val) / size
    if kind == "data":  # A byte of every pixel and colour is read, and four are written.
        n_values = len(sample.train) * sample.image_px**2 * 3
        return [np.array([0, n_values * 5 / peaks.copy_bytes])] * 2
    network = job.network()
    layers, n_trained = layers_of(network, sample.image_px), network.parameter_counts()[1]
    # Behind the cut of a run that caches; all of a network that is trained whole.
    trained = {*network.trained_stages, "head"}
    is_cut = kind == "run" and network.cut is not None
    behind = [layer for layer in layers if not is_cut or layer.stage in trained]
    before = [layer for layer in layers if is_cut and layer.stage not in trained]
    plain, ours = (
        peaks.training(behind, kind_, size, n_trained) * n
        + peaks.forward(behind, kind_, size) * n_val
        for kind_ in ("fp32", job.device.precision)
    )
    # The plain loop goes through the frozen part every epoch, ours once.
    plain += peaks.forward(before, "fp32", size) * (n + n_val)
    once = peaks.forward(before, job.device.precision, size) * (n + n_val)
    return [plain * job.epochs, once + ours * job.epochs]
