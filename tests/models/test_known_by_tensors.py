"""Weights are known by their tensors, in whatever container and layout these come."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import h5py
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmark.errors import WeightsError
from benchmark.models import weight_manifest
from benchmark.models.preprocessing import CAFFE, UNIT
from benchmark.models.weight_adding import Declaration, add_file, add_own
from benchmark.models.weight_formats import convert, layouts_of, tensor_digest
from benchmark.models.weight_manifest import FILES, files_for
from benchmark.models.weight_store import read_trusted, trust
from benchmark.models.weights import resolve, verify
from tests.conftest import shared_file
from tests.models import keras_squeezenet

KERAS = files_for("squeezenet1_1", "imagenet")[0]
VGG16_H5 = files_for("vgg16", "imagenet")[0].file_name
MOBILENET_PTH = "mobilenet_v2-b0353104.pth"


@pytest.fixture
def h5(tmp_path: Path) -> Path:
    """A file in Keras's layout, with values of our own."""
    (tmp_path / "made").mkdir()
    kernels = keras_squeezenet.random_kernels()
    return keras_squeezenet.write_h5(tmp_path / "made" / KERAS.file_name, kernels)


@pytest.fixture
def known(h5: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Tensor]:
    """Let the manifest know that file's tensors, in our names; nothing else of it is right."""
    _, tensors, _ = convert(h5)
    monkeypatch.setitem(weight_manifest.DIGESTS, KERAS.file_name, tensor_digest(tensors))
    return tensors


def altered(h5: Path, target: Path, data_set: str) -> Path:
    target.write_bytes(h5.read_bytes())
    with h5py.File(target, "r+") as file:
        values = file[data_set]
        values[(0,) * values.ndim] += 1e-6
    return target


def test_every_container_and_layout_of_the_tensors_is_the_published_source(
    h5: Path, known: Mapping[str, Tensor], tmp_path: Path
) -> None:
    (torchvision,) = [it for it in layouts_of("squeezenet1_1") if it.name == "torchvision"]
    theirs = {torchvision.names[name]: tensor for name, tensor in known.items()}
    files = [h5, *(tmp_path / f"{name}.pth" for name in ("bare", "theirs", "double", "zip"))]
    save_file(dict(known), files[1])
    save_file(theirs, files[2])
    torch.save({name: values.double() for name, values in theirs.items()}, files[3])
    torch.save(theirs, files[4])
    added = [add_file(file, tmp_path / f"store_{file.stem}") for file in files]
    # Fed as Keras's, though torchvision's layout is otherwise fed red first.
    assert {item.preprocessing for item in added} == {CAFFE}
    assert {(item.source, item.published, item.origin) for item in added} == {
        ("imagenet", True, KERAS.file_name)
    }
    assert len({item.sha256 for item in added}) == 1, "one identity for the runs from all of them"
    assert not any(read_trusted(item.path.parent) for item in added)


def test_a_trusted_checksum_of_one_container_does_not_refuse_another(
    h5: Path, known: Mapping[str, Tensor], tmp_path: Path
) -> None:
    trust(dataclasses.replace(KERAS, sha256=None), "0" * 64, tmp_path)
    assert add_file(h5, tmp_path).published
    (state,) = verify(tmp_path)
    assert state.problem is None


def test_one_altered_tensor_is_named_and_refused(
    h5: Path, known: Mapping[str, Tensor], tmp_path: Path
) -> None:
    with h5py.File(h5, "r") as file:
        data_set = f"conv1/{file['conv1'].attrs['weight_names'][0].decode()}"
    file_name = altered(h5, tmp_path / KERAS.file_name, data_set)
    with pytest.raises(
        WeightsError, match=r"49 of its 50 tensors are those of squ.*altered: conv1:kernel"
    ):
        add_file(file_name, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_weights_that_were_insisted_upon_become_the_published_ones_once_known(
    h5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = add_file(h5, tmp_path, any_checksum=True)
    assert not first.published
    digest = tensor_digest(convert(h5).tensors)
    monkeypatch.setitem(weight_manifest.DIGESTS, KERAS.file_name, digest)
    found = add_file(h5, tmp_path)
    assert (found.published, found.sha256) == (True, first.sha256)


def test_a_download_and_an_own_label_are_known_by_their_tensors_too(
    h5: Path, known: Mapping[str, Tensor], tmp_path: Path
) -> None:
    served = dataclasses.replace(KERAS, url=h5.as_uri())
    found = resolve("squeezenet1_1", "imagenet", tmp_path, offline=False, published=(served,))
    assert found.published
    added = add_own(h5, tmp_path, Declaration("mine"))
    assert (added.source, added.preprocessing) == ("local:mine", CAFFE)
    with pytest.raises(WeightsError, match="RGB was declared .* published as BGR"):
        add_own(h5, tmp_path, Declaration("other", preprocessing=UNIT))


def test_the_digest_is_of_float32_values_names_and_shapes_alone() -> None:
    tensors = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.bias": torch.ones(2)}
    counted = {**tensors, "a.num_batches_tracked": torch.tensor(7)}
    turned = dict(reversed([(name, values.double()) for name, values in tensors.items()]))
    assert tensor_digest(tensors) == tensor_digest(counted) == tensor_digest(turned)
    others = [
        {**tensors, "a.weight": tensors["a.weight"].reshape(3, 2)},
        {"c.weight": tensors["a.weight"], "b.bias": tensors["b.bias"]},
        {**tensors, "b.bias": torch.tensor([1.0, 1.0 + 2**-23])},
    ]
    assert len({tensor_digest(item).whole for item in (tensors, *others)}) == 4


def test_every_digest_is_of_a_file_in_the_manifest() -> None:
    assert set(weight_manifest.DIGESTS) <= {file.file_name for file in FILES}
    assert {len(digest.whole) for digest in weight_manifest.DIGESTS.values()} == {64}


@pytest.mark.weights
@pytest.mark.parametrize("name", [VGG16_H5, KERAS.file_name, MOBILENET_PTH])
def test_the_real_files_are_known_by_their_tensors(tmp_path: Path, name: str) -> None:
    tensors = convert(shared_file("weights", name)).tensors
    save_file(tensors, tmp_path / "any.safetensors")
    added = add_file(tmp_path / "any.safetensors", tmp_path / "store")
    assert (added.published, added.origin) == (True, name)
    if name == VGG16_H5:  # rebuilt; these values were printed of Keras's own
        first = tensors["stages.block1.conv1.weight"][0, :, 0, 0]
        assert torch.equal(first, torch.tensor([0.42947057, 0.55037946, 0.4800154]))
        assert tensors["stages.block5.conv3.bias"][0] == torch.tensor(0.18837857)


@pytest.mark.weights
def test_the_real_vgg16_with_one_value_altered_is_refused(tmp_path: Path) -> None:
    real = shared_file("weights", VGG16_H5)
    file = altered(real, tmp_path / real.name, "block5_conv3/block5_conv3_b_1:0")
    with pytest.raises(WeightsError, match=r"25 of its 26 .*altered: block5_conv3:bias"):
        add_file(file, tmp_path / "store")
