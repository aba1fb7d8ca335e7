"""From a weight file to the tensors of our backbones: containers, wrappers, prefixes and layouts.

Files are read as tensors only: a pickle with code in it is refused and never run. A layout is how
a publisher names the tensors of an architecture. Whether a file is a published one, and where the
converted one is kept: benchmark.models.weights.
"""

import functools
import hashlib
import math
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeGuard

import h5py
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cosine_similarity

from benchmark.errors import WeightsError
from benchmark.experiment.architectures import ARCHITECTURES, architecture_named
from benchmark.files import canonical_json, digest_of
from benchmark.models.backbone import VGG_CONVOLUTIONS, build_backbone, first_options, torchvisions
from benchmark.models.weight_manifest import PRESETS, Channels, Preprocessing, TensorDigest

NOT_LOADABLE: Final = (
    SafetensorError, RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError,
    AttributeError, AssertionError, MemoryError, OverflowError, zlib.error, struct.error,
    zipfile.BadZipFile,
)  # fmt: skip
"""What readers were seen to raise, or can, on bytes that are no whole state dict."""

MAX_EXPANSION: Final = 100
"""Times its size that a file may unpack to: trained weights hardly shrink."""
READ: Final = "Keras HDF5 (.h5), torch's .pth or .pt, safetensors"
DECLARED: Final = f"--preprocessing {' | '.join(PRESETS)}, or JSON"
FETCH_AGAIN: Final = "Fetch it again: facebench weights list --json has the addresses"
_HDF5: Final = b"\x89HDF\r\n\x1a\n"
_ZIP: Final = b"PK\x03\x04"

STATE_DICTS: Final = (
    "state_dict", "model_state_dict", "model", "net", "network", "model_ema", "state_dict_ema",
    "ema",
)  # fmt: skip
"""Where training scripts keep the tensors in a checkpoint, the first to be taken first."""
PREFIXES: Final = ("module.", "_orig_mod.", "model.", "backbone.", "network.", "net.")
"""What DataParallel, torch.compile, Lightning and training scripts put before all names."""

_SAVE: Final = "torch.save(model.state_dict(), 'weights.pth')"
_SAVE_H5: Final = "model.save('weights.h5') in Keras, which writes its older HDF5 layout"
_NOT_READ: Final = (
    (r"^model\.weights\.h5$", "a Keras 3 file",
     f"Load it with keras.saving.load_model, then {_SAVE_H5}"),
    (r"^hdf5:layers$", "a Keras 3 weight file, which names layers by number",
     f"Build the model, model.load_weights(FILE), then {_SAVE_H5}"),
    (r"/code/", "a TorchScript program",
     f"Where you trust it: model = torch.jit.load(FILE), then {_SAVE}"),
    (r"exported_program|models/model\.json", "a program of torch.export",
     f"Where you trust it: model = torch.export.load(FILE), then {_SAVE}"),
    (r"\.npy$|\A\x93NUMPY", "numpy arrays",
     "safetensors.numpy.save_file(dict(numpy.load(FILE)), TARGET)"),
    (r"\A\x08[\x03-\xff][\x12:B]", "an ONNX graph",
     f"In the PyTorch code that it was exported from: {_SAVE}"),
)  # fmt: skip
"""Formats that are known and not read: what shows them (the first bytes, or the name of an entry),
what they are, and how to get a file that is read."""


class FileTensors(NamedTuple):
    """The tensors of a file, and which of its entries they are."""

    tensors: Mapping[str, Tensor]
    entry: str = "all entries"
    """The entry of a checkpoint that they are, quoted; or all, where the file is a state dict."""
    prefix: str = ""
    """What stood before all their names."""
    left: tuple[str, ...] = ()
    """The checkpoint's other entries, quoted, and tensors whose names do not begin with `prefix`:
    a head beside the backbone, a loss, a metric."""


def read_weight_file(path: Path) -> FileTensors:
    """Read a file's tensors under its own names; its first bytes say what it is.

    Raise WeightsError for a file without tensors, or in a format that is not read.
    """
    start = first_bytes(path)
    try:
        # Before pickles: the length that stands before the header may look like a pickle's start.
        if start[8:9] == b"{":
            return FileTensors(load_file(path))
        _check_is_read(path, [start[:8].decode("latin-1")])
        if start.startswith(_HDF5):
            with h5py.File(path) as file:
                names = () if "layer_names" in file.attrs else file
                _check_is_read(path, [f"hdf5:{name}" for name in names])
                root = file.get("model_weights", file)
                return FileTensors(dict(_keras_tensors(root, path.stat().st_size)))
        if start.startswith((_ZIP, b"\x80")):
            return _from_torch(path)
    except (*NOT_LOADABLE, RecursionError) as error:
        raise _damaged(path, error) from None
    kind = "an HTML page" if is_markup(start) else "no weight file" if start else "empty"
    raise refused(path, f"is {kind}", FETCH_AGAIN, READ)


def refused(path: Path, found: str, fix: str, allowed: str = "") -> WeightsError:
    """Give the error that refuses a file, which begins with its name."""
    return WeightsError(f"{path.name} {found}", allowed=allowed, source=str(path), fix=fix)


def first_bytes(path: Path) -> bytes:
    """Read what shows a file's format; raise WeightsError where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(512)
    except OSError as error:
        reason = error.strerror or error
        raise WeightsError(f"{path} cannot be read ({reason})", allowed=READ) from None


def is_markup(start: bytes) -> bool:
    return start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head"))


def _check_is_read(path: Path, shown: Sequence[str]) -> None:
    for pattern, what, fix in _NOT_READ:
        if re.search(pattern, "\n".join(shown), re.MULTILINE):
            raise refused(path, f"is {what}, which is not read", fix, READ)


def header_of(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file; empty for any other file, and where there are none.

    Only the header is read: a file cut short is found out, one with changed tensors is not.
    """
    if first_bytes(path)[8:9] != b"{":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> WeightsError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return refused(path, f"is damaged or cut short ({reason})", FETCH_AGAIN)


def _from_torch(path: Path) -> FileTensors:
    """Find the state dict: what is loaded, or one of the entries that training scripts write."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            _check_is_read(path, archive.namelist())
            unpacked = sum(info.file_size for info in archive.infolist())
        if unpacked > MAX_EXPANSION * path.stat().st_size:
            raise _damaged(path, ValueError(f"it unpacks to {unpacked:,} bytes"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols: what does not load is refused
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        names = re.findall(r"(?:GLOBAL|global|class) `?([\w.]+)", str(error))
        named = f" ({names[0]})" if names and "." in names[0] else ""
        found = f"holds code or objects besides tensors{named}, which are never loaded"
        fix = f"Fetch the published file, or where you trust it: {_SAVE}"
        raise refused(path, found, fix, "a state dict of tensors") from None
    if _is_state_dict(found):
        return FileTensors(found)
    entries = found if isinstance(found, Mapping) else {}
    for key in STATE_DICTS:
        inner = entries.get(key)
        if isinstance(inner, Mapping) and not _is_state_dict(inner):
            inner = inner.get("state_dict")
        if _is_state_dict(inner):
            left = tuple(repr(str(it)) for it in entries if it != key)
            return FileTensors(inner, f"the entry {key!r}", left=left)
    some = ", ".join(map(str, [*entries][:6]))
    what = f"holds no state dict but a {type(found).__name__} of more than tensors ({some})"
    allowed = f"tensors by name, alone or under {', '.join(STATE_DICTS)}"
    raise refused(path, what, f"Save the tensors alone: {_SAVE}", allowed)


def _is_state_dict(found: Any) -> TypeGuard[dict[str, Tensor]]:
    if not isinstance(found, dict) or not found:
        return False
    return all(isinstance(name, str) and isinstance(it, Tensor) for name, it in found.items())


def _keras_tensors(root: Any, n_bytes: int) -> Iterator[tuple[str, Tensor]]:
    """Give each layer's kernel as `layer:kernel`, turned from HWIO to OIHW, and its `layer:bias`.

    Layout of Keras 1 and 2's save_weights: attribute `layer_names`, a group per layer with an
    attribute `weight_names`, data sets under those names. A dense kernel keeps the file's name: no
    backbone has one. `n_bytes` is the file's size: HDF5 can name values in other files, and say of
    a few bytes that they are a million times as many; neither is how weights are published.
    """
    for layer in _texts(root.attrs["layer_names"]):
        group = root[layer]
        for name in _texts(group.attrs["weight_names"]):
            data = group[name]
            is_link = isinstance(group.get(name, getlink=True), h5py.ExternalLink)
            foreign = is_link or data.external or data.is_virtual
            if foreign or data.nbytes > MAX_EXPANSION * n_bytes:
                where = "another file" if foreign else f"{data.nbytes:,} bytes of this one"
                raise ValueError(f"{name} is said to lie in {where}")
            values = torch.from_numpy(np.asarray(data))
            if values.ndim == 4:
                yield f"{layer}:kernel", values.permute(3, 2, 0, 1)
            else:
                yield f"{layer}:{'bias' if values.ndim == 1 else name}", values


def _texts(names: Any) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


Rules = tuple[tuple[str, str], ...]
"""Regular expressions and their replacements, applied one after another."""
TORCHVISION: Final = "torchvision"
COUNTER: Final = ".num_batches_tracked"
"""Batch norm's count of steps: files older than torch 0.4.1 have none, and nothing reads it."""


@dataclass(frozen=True)
class Layout:
    """How one publisher names the tensors of an architecture."""

    name: str
    architecture: str
    rules: Rules = ()
    """From the name of a tensor of our backbone to its name in the file; torchvision is asked."""
    left: tuple[str, ...] = ()
    """How the names of the classifier's tensors begin, which no backbone has."""
    spellings: Rules = ()
    """Applied to the file's names first: older spellings, and what stands around a backbone."""

    @functools.cached_property
    def names(self) -> dict[str, str]:
        """Tensor of our backbone → tensor of the file."""
        every = backbone_tensors(self.architecture)
        if self.name != TORCHVISION:
            return {name: _renamed(name, self.rules) for name in every}
        with torch.device("meta"):
            state = torchvisions(self.architecture).state_dict()
        # In the same order: a test compares what the two compute.
        return dict(zip(every, [it for it in state if not it.startswith(self.left)], strict=True))

    def respelled(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the file's tensors under the names that this layout knows."""
        return {_renamed(name, self.spellings): tensor for name, tensor in found.items()}

    def score(self, found: Mapping[str, Tensor]) -> tuple[int, int, int]:
        """Count the tensors that this layout knows by name; of two equals the smaller one wins,
        then the one that expects more of the others."""
        here, known = self.respelled(found).keys(), set(self.names.values())
        n_unexpected = sum(not name.startswith(self.left) for name in here - known)
        return len(known & here), len(known & here) - len(self.names), -n_unexpected


def _renamed(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


@functools.cache
def backbone_tensors(architecture: str) -> dict[str, Tensor]:
    """Give a backbone's state on the meta device: names, shapes, types. No option changes them."""
    with torch.device("meta"):
        return build_backbone(architecture, **first_options(architecture)).state_dict()


_KERAS: Final[Rules] = ((r"\.weight$", ":kernel"), (r"\.bias$", ":bias"))
_KERAS_SPELLINGS: Final[Rules] = (
    (r"[./](?:kernel|weight)(?::0)?$", ":kernel"),
    (r"[./]bias(?::0)?$", ":bias"),
)
"""Keras's layers in another container: `block1_conv1/kernel:0`, `block1_conv1.weight`.
Not for VGG Face: its two layouts would then be one, and they differ in the channel order."""
_VGG: Final = r"^stages\.block(\d)\.conv(\d)"

# fmt: off
PUBLISHED: Final = (
    Layout(
        "keras", "squeezenet1_1",
        ((r"^stages\.conv1\.conv", "conv1"), (r"^stages\.\w+\.(fire\d)\.", r"\1/"),
         ("/squeeze", "/squeeze1x1"), *_KERAS),
        left=("conv10:",), spellings=_KERAS_SPELLINGS,
    ),
    *(Layout(TORCHVISION, it, left=("classifier.",))
      for it in ("squeezenet1_1", "vgg16", "vgg19", "mobilenet_v2")),
    Layout(TORCHVISION, "resnet50", left=("fc.",)),
    # `norm.1.weight`, as in the file that torchvision publishes and itself renames when it loads it
    # (torchvision/models/densenet.py, _load_state_dict).
    Layout(TORCHVISION, "densenet121", left=("classifier.",),
           spellings=((r"^(features\.denseblock\d\.denselayer\d+\.(?:norm|conv))\.", r"\1"),)),
    *(Layout("keras", vgg, ((_VGG, r"block\1_conv\2"), *_KERAS),
             left=("fc1:", "fc2:", "predictions:"), spellings=_KERAS_SPELLINGS)
      for vgg in VGG_CONVOLUTIONS),
    Layout("keras_vggface", "vgg16", ((_VGG, r"conv\1_\2"), *_KERAS),
           left=("fc6:", "fc7:", "fc8:")),
    Layout("vgg_face_dag", "vgg16", ((_VGG, r"conv\1_\2"),), left=("fc6.", "fc7.", "fc8.")),
)
# fmt: on
"""Those that are recognised by their names alone; timm's are built on demand."""


def ours(architecture: str) -> Layout:
    """Give our own layout: a bare backbone, or a network with its head."""
    return Layout("facebench", architecture, left=("head.",), spellings=((r"^trunk\.", ""),))


def layouts_of(architecture: str) -> tuple[Layout, ...]:
    """List the layouts in which files of an architecture come.

    Raise ExperimentError for an unknown architecture.
    """
    if architecture_named(architecture).from_timm:
        from benchmark.experiment import timm_models

        # `fc.weight` and `fc.1.weight`: a head of another make is left as well.
        names = timm_models.classifier_tensors(architecture)
        left = tuple(sorted({f"{name.rpartition('.')[0]}." for name in names}))
        by_timm = Layout("timm", architecture, ((r"^model\.", ""),), left=left)
        return (ours(architecture), by_timm)
    published = (layout for layout in PUBLISHED if layout.architecture == architecture)
    return (*published, ours(architecture))


class Converted(NamedTuple):
    """A file as the tensors of one of our backbones, floats as float32."""

    layout: Layout
    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()
    """What was taken of the file, and what was left in it, where that is more than a backbone."""


def convert(path: Path, architecture: str | None = None) -> Converted:
    """Read a file, recognise its layout, and turn its tensors into those of our backbone.

    Without an architecture the names of the tensors decide; of timm's models, among those that are
    in experiment.architectures. Raise WeightsError for what is not wholly in a known layout.
    """
    whole = read_weight_file(path)
    known = [architecture] if architecture else ARCHITECTURES
    layouts = [layout for name in known for layout in layouts_of(name)]
    # Layout and prefix by which most of the names are known; of equals the first.
    choices = ((it.score(file.tensors), it, file) for file in _inside(whole) for it in layouts)
    score, layout, file = max(choices, key=itemgetter(0))
    if not score[0]:
        some = ", ".join(sorted(whole.tensors)[:3]) or "none at all"
        found = f"holds tensors of no known layout ({some} ...)"
        fix = "Say what it is with --architecture; a new layout is added in "
        fix += "benchmark/models/weight_formats.py"
        raise refused(path, found, fix, f"weights of {architecture or ', '.join(ARCHITECTURES)}")
    tensors, notes = fitted(layout, file.tensors, path), []
    if (file.entry, file.prefix) != ("all entries", ""):
        prefix = f", without the prefix {file.prefix!r}" if file.prefix else ""
        notes.append(f"Taken: {file.entry}{prefix}.")
    taken = set(layout.names.values())
    if left := [*file.left, *(it for it in layout.respelled(file.tensors) if it not in taken)]:
        notes.append(f"Left: {', '.join([*left[:8], '...'] if left[8:] else left)}.")
    floats = {str(it.dtype) for it in file.tensors.values() if it.is_floating_point()}
    if kinds := sorted(kind.removeprefix("torch.") for kind in floats - {"torch.float32"}):
        notes.append(f"Values were stored as {', '.join(kinds)}; they are kept as float32.")
    return Converted(layout, tensors, tuple(notes))


def _inside(file: FileTensors) -> Iterator[FileTensors]:
    """Give a file's tensors as they are, then without each of the prefixes that most names have."""
    yield file
    for prefix in PREFIXES:
        starting = [name for name in file.tensors if name.startswith(prefix)]
        if 2 * len(starting) > len(file.tensors):
            others = [file.prefix + name for name in file.tensors if not name.startswith(prefix)]
            tensors = {name.removeprefix(prefix): file.tensors[name] for name in starting}
            left = (*file.left, *others)
            yield from _inside(FileTensors(tensors, file.entry, file.prefix + prefix, left))


def fitted(layout: Layout, found: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Turn a file's tensors into those of our backbone; raise WeightsError unless they fit."""
    here, misfits, tensors = layout.respelled(found), [], {}
    every = backbone_tensors(layout.architecture)
    for name, theirs in layout.names.items():
        wanted, value = every[name], here.pop(theirs, None)
        if value is None and name.endswith(COUNTER):
            value = torch.zeros((), dtype=torch.int64)
        if value is None:
            misfits.append(f"missing {theirs}")
            continue
        turned = value.permute(3, 2, 0, 1) if value.ndim == 4 else value
        if layout.name == "keras" and value.shape != wanted.shape == turned.shape:
            value = turned  # a kernel of Keras's, HWIO, that came in another container than Keras's
        is_float, value = value.is_floating_point(), value.detach()
        if value.shape != wanted.shape:
            shapes = f"{tuple(value.shape)} instead of {tuple(wanted.shape)}"
            misfits.append(f"{theirs} of shape {shapes}")
        elif is_float != wanted.is_floating_point():
            misfits.append(f"{theirs} of type {value.dtype} instead of {wanted.dtype}")
        elif is_float and not bool(torch.isfinite(value).all()):
            misfits.append(f"{theirs} with values that are not finite")
        tensors[name] = (value.float() if is_float else value).contiguous()
    misfits += [f"unexpected {name}" for name in sorted(here) if not name.startswith(layout.left)]
    if misfits:
        some = [*misfits[:4], "..."] if misfits[4:] else misfits
        what = f"holds tensors that do not fit {layout.architecture}: {'; '.join(some)}"
        allowed = f"exactly the {len(every)} tensors of the {layout.architecture} backbone"
        raise refused(path, what, FETCH_AGAIN, allowed)
    return tensors


SAME_LAYER_COSINE: Final = 0.9
"""Fine-tuning turns a first layer little; two that were trained apart have a cosine near 0."""
CLEARLY: Final = 2.0
"""So many times as large must the angle to the other channel order be."""


def order_of(
    tensors: Mapping[str, Tensor], known: Mapping[str, Tensor], channels: Channels
) -> Channels | None:
    """Say which order a backbone expects if its first layer is that of `known`, which expects
    `channels`, in one of the two orders; None if it is neither."""
    # The first layer reads the picture: a kernel (out, 3, h, w).
    name = next(name for name, it in tensors.items() if it.ndim == 4 and it.shape[1] == 3)
    kernel, theirs = tensors[name].double().flatten(), known[name].double()
    orders: tuple[Channels, Channels] = (channels, "BGR" if channels == "RGB" else "RGB")
    cosines = (cosine_similarity(kernel, it.flatten(), 0) for it in (theirs, theirs.flip(1)))
    angles = [math.acos(min(1.0, max(-1.0, float(cosine)))) for cosine in cosines]
    near, far = sorted(angles)
    is_this = near <= math.acos(SAME_LAYER_COSINE) and far >= CLEARLY * near + 1e-6
    return orders[angles.index(near)] if is_this else None


def tensor_digest(tensors: Mapping[str, Tensor]) -> TensorDigest:
    """Digest converted tensors: equal for equal weights, whatever file and layout they came in.

    Over each tensor's name and shape and its float32 values, little endian; batch norm's counters
    are no weights, and not every file has them.
    """
    lines: list[Any] = []
    for name in sorted(tensors):
        if not name.endswith(COUNTER):
            values = tensors[name].detach().cpu().float().contiguous().numpy().astype("<f4")
            lines.append([name, list(values.shape), hashlib.sha256(values.tobytes()).hexdigest()])
    whole = digest_of(lines)
    return {"whole": whole, "tensors": {name: sha256[:12] for name, _, sha256 in lines}}


def content_sha256(
    tensors: Mapping[str, Tensor], preprocessing: Preprocessing, options: Mapping[str, str]
) -> str:
    """Sum up what decides a backbone's function: every tensor's name, type, shape and bytes, and
    how it is fed and built. Part of a run's identity."""
    demands = {"preprocessing": asdict(preprocessing), "options": dict(options)}
    digest = hashlib.sha256(canonical_json(demands).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(canonical_json([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
