"""The store keeps what was published, whole, and says how to get what is not there."""

import dataclasses
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision.models import squeezenet1_1

from benchmark.errors import ExperimentError, WeightsError, WeightsMissing
from benchmark.files import sha256_of
from benchmark.models.backbone import build_backbone
from benchmark.models.preprocessing import CAFFE
from benchmark.models.weight_adding import add_file, first_kernel_name, order_of
from benchmark.models.weight_formats import backbone_tensors
from benchmark.models.weight_manifest import FILES, PublishedFile, files_for
from benchmark.models.weight_store import (
    check_trusted,
    content_sha256,
    read_stored,
    read_trusted,
    trust,
)
from benchmark.models.weights import list_weights, load, resolve, verify
from tests.conftest import shared_file
from tests.models import keras_squeezenet

KERAS, TORCHVISION = files_for("squeezenet1_1", "imagenet")
UNSUMMED = dataclasses.replace(KERAS, sha256=None)
"""As if no checksum were published."""
SOURCE = ("squeezenet1_1", "imagenet")


def written(folder: Path, seed: int = 0, name: str = KERAS.file_name) -> Path:
    """A file in the published layout, with values of our own."""
    folder.mkdir(exist_ok=True)
    return keras_squeezenet.write_h5(folder / name, keras_squeezenet.random_kernels(seed))


@pytest.fixture
def h5(tmp_path: Path) -> Path:
    return written(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def as_if_published(path: Path, known: PublishedFile = KERAS) -> tuple[PublishedFile, ...]:
    """The manifest's entry, had `path` been the published file, and at its own address."""
    return (dataclasses.replace(known, sha256=sha256_of(path), url=path.as_uri()),)


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()} - {".lock"}


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_an_added_file_is_found_loaded_and_says_where_it_came_from(h5: Path, store: Path) -> None:
    added = add_file(h5, store, published=as_if_published(h5))
    found = resolve(*SOURCE, store, offline=True)
    assert (found, found.origin, found.published) == (added, KERAS.file_name, True)
    loaded = load(found)
    build_backbone("squeezenet1_1", **loaded.options).load_state_dict(loaded.tensors)
    assert loaded.preprocessing == KERAS.preprocessing
    assert found.sha256 == content_sha256(loaded.tensors, loaded.preprocessing, loaded.options)
    with safe_open(added.path, framework="pt") as file:
        metadata = json.loads(file.metadata()["facebench"])
    assert (metadata["schema"], metadata["licence"]) == (1, "MIT")
    assert metadata["origin_sha256"] == sha256_of(h5)
    assert metadata["preprocessing"] == KERAS.preprocessing.as_dict()
    assert metadata["options"] == dict(KERAS.options)


def test_the_sum_changes_with_a_tensor_the_input_or_the_layout() -> None:
    tensors = {"a": torch.zeros(2), "b": torch.ones(2)}
    sums = {
        content_sha256(tensors, CAFFE, {"pooling": "ceil"}),
        content_sha256({**tensors, "a": torch.tensor([0.0, 1e-9])}, CAFFE, {"pooling": "ceil"}),
        content_sha256({"b": tensors["a"], "a": tensors["b"]}, CAFFE, {"pooling": "ceil"}),
        content_sha256(tensors, CAFFE.swapped(), {"pooling": "ceil"}),
        content_sha256(tensors, CAFFE, {"pooling": "floor"}),
    }
    assert len(sums) == 5
    assert content_sha256(dict(reversed(tensors.items())), CAFFE, {"pooling": "ceil"}) in sums


def test_a_file_with_another_sum_is_refused_unless_insisted_upon(h5: Path, store: Path) -> None:
    with pytest.raises(WeightsError, match=r"sha256 [0-9a-f]{64} \(allowed: 17154246.*any-check"):
        add_file(h5, store)
    assert not store.exists()
    assert not add_file(h5, store, any_checksum=True).published


def test_other_weights_do_not_replace_what_is_there_silently(tmp_path: Path, store: Path) -> None:
    h5, other = written(tmp_path), written(tmp_path, 1, "other.h5")
    first = add_file(h5, store, any_checksum=True)
    assert add_file(h5, store, any_checksum=True) == first
    with pytest.raises(WeightsError, match=r"already here, from .*--replace"):
        add_file(other, store, any_checksum=True)
    assert read_stored(first.path)[0] == first
    second = add_file(other, store, replacing=True, any_checksum=True)
    assert second.sha256 != first.sha256
    with pytest.raises(WeightsError, match="changed since it was resolved"):
        load(first)


def test_missing_weights_say_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing) as raised:
        resolve(*SOURCE, tmp_path, offline=True)
    for part in (KERAS.url, TORCHVISION.url, "facebench weights add FILE"):
        assert part in raised.value.fix
    assert not list(tmp_path.iterdir())
    with pytest.raises(WeightsMissing, match=r"'vggface2' weights of resnet50: no published file"):
        resolve("resnet50", "vggface2", tmp_path, offline=True)
    with pytest.raises(ExperimentError, match="unknown architecture 'vgg61'"):
        list_weights(tmp_path, "vgg61")


def test_without_a_network_the_reason_is_said_and_an_address_asked_once(store: Path) -> None:
    published = (dataclasses.replace(KERAS, url="http://127.0.0.1:9/nothing.h5"),)
    asked: list[str] = []
    for _ in range(2):
        with pytest.raises(WeightsMissing, match=r"127\.0\.0\.1:9: .*refused"):
            resolve(*SOURCE, store, offline=False, published=published, on_download=asked.append)
    assert asked == [KERAS.file_name]


def test_what_is_published_is_downloaded_once_converted_and_not_kept_twice(
    h5: Path, store: Path
) -> None:
    published, asked = as_if_published(h5), list[str]()

    def resolved() -> str:
        return resolve(
            *SOURCE, store, offline=False, published=published, on_download=asked.append
        ).sha256

    with ThreadPoolExecutor() as pool:
        sums = {future.result() for future in [pool.submit(resolved) for _ in range(3)]}
    assert (len(sums), asked) == (1, [KERAS.file_name])
    assert files_in(store) == {"squeezenet1_1-imagenet.safetensors"}


def test_a_published_file_put_into_the_folder_is_converted(h5: Path, tmp_path: Path) -> None:
    found = resolve(*SOURCE, tmp_path, offline=True, published=as_if_published(h5))
    assert found.path == tmp_path / "squeezenet1_1-imagenet.safetensors"


def test_a_download_that_is_not_the_published_file_is_refused_and_not_kept(
    h5: Path, tmp_path: Path, store: Path
) -> None:
    torch.save(squeezenet1_1().state_dict(), tmp_path / "any.pth")
    whole = h5.read_bytes()
    for number, (content, error, sentence) in enumerate(
        [
            (b"<!DOCTYPE html><title>Sign in</title>", WeightsMissing, "an HTML page came"),
            (whole[: len(whole) // 2], WeightsError, "damaged or cut short"),
            (b"something else", WeightsError, "is no weight file"),
            ((tmp_path / "any.pth").read_bytes(), WeightsError, "no published file of this layout"),
        ]
    ):
        served = tmp_path / str(number)
        served.write_bytes(content)
        known = dataclasses.replace(UNSUMMED, url=served.as_uri())
        with pytest.raises(error, match=sentence):
            resolve(*SOURCE, store, offline=False, published=(known,))
        assert files_in(store) == set()
    known = dataclasses.replace(UNSUMMED, url=h5.as_uri())
    assert resolve(*SOURCE, store, offline=False, published=(known,)).published
    assert read_trusted(store)[KERAS.file_name].sha256 == hashlib.sha256(whole).hexdigest()


def test_a_download_with_another_sum_stops_the_run(h5: Path, store: Path) -> None:
    """Another file of the same source would be other weights, which nobody asked for."""
    wrong = dataclasses.replace(KERAS, url=h5.as_uri())
    with pytest.raises(WeightsError, match="but the sha256") as raised:
        resolve(*SOURCE, store, offline=False, published=(wrong, *as_if_published(h5)))
    assert not isinstance(raised.value, WeightsMissing)
    assert files_in(store) == set()


def test_what_is_damaged_is_found_out(h5: Path, tmp_path: Path, store: Path) -> None:
    added = add_file(h5, store, any_checksum=True)
    flip_last_byte(added.path)
    for read in (lambda: resolve(*SOURCE, store, offline=True), lambda: load(added)):
        with pytest.raises(WeightsError, match="damaged .*content's sha256"):
            read()
    added.path.write_bytes(added.path.read_bytes()[:-100])
    (state,) = verify(store)
    assert state.state == "damaged"
    assert "Delete it, then: facebench weights add FILE" in str(state.problem)
    again = add_file(h5, tmp_path / "again", any_checksum=True)
    renamed = again.path.rename(again.path.with_name("cnn-imagenet.safetensors"))
    with pytest.raises(WeightsError, match="it holds squeezenet1_1-imagenet"):
        read_stored(renamed)


def test_what_facebench_did_not_write_is_no_source(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "resnet18.a1_in1k.safetensors")
    assert verify(tmp_path) == []
    whole = (tmp_path / "resnet18.a1_in1k.safetensors").read_bytes()
    (tmp_path / "cnn-local-mine.safetensors").write_bytes(whole[:20])
    (state,) = verify(tmp_path)
    assert (state.architecture, state.source, state.state) == ("cnn", "local:mine", "damaged")
    save_file({"x": torch.zeros(1)}, tmp_path / "squeezenet1_1-imagenet.safetensors")
    with pytest.raises(WeightsError, match="a file written by facebench weights add"):
        resolve(*SOURCE, tmp_path, offline=True)


def test_a_folder_that_cannot_be_written_is_said_to_be_so(h5: Path, store: Path) -> None:
    store.write_text("a file, not a folder")
    with pytest.raises(WeightsError, match="weights cannot be written to"):
        add_file(h5, store, any_checksum=True)


def test_every_source_is_listed_with_its_state(h5: Path, store: Path) -> None:
    before = {(state.architecture, state.source): state for state in list_weights(store)}
    assert set(before) == {(file.architecture, file.source) for file in FILES}
    assert {state.state for state in before.values()} == {"missing"}
    add_file(h5, store, any_checksum=True)
    (state,) = list_weights(store, "squeezenet1_1")
    assert (state.architecture, state.source, state.state) == (*SOURCE, "here")
    assert state.published == (KERAS, TORCHVISION)


def test_the_first_copy_is_trusted_and_another_refused(tmp_path: Path, store: Path) -> None:
    first, second = written(tmp_path / "first"), written(tmp_path / "second", seed=1)
    assert add_file(first, store, published=(UNSUMMED,)).published
    for insisting in (False, True):
        with pytest.raises(WeightsError, match=r"another one is trusted .*remove the entry"):
            add_file(second, store, published=(UNSUMMED,), any_checksum=insisting,
                     replacing=insisting)  # fmt: skip
    assert read_trusted(store)[KERAS.file_name].sha256 == sha256_of(first)
    known = dataclasses.replace(UNSUMMED, url=second.as_uri())
    (store / "squeezenet1_1-imagenet.safetensors").unlink()
    with pytest.raises(WeightsError, match="another one is trusted"):
        resolve(*SOURCE, store, offline=False, published=(known,))
    assert files_in(store) == {"pins.json"}


def test_a_file_of_no_published_sum_has_to_bear_its_name(tmp_path: Path, store: Path) -> None:
    """Else one's own fine-tuned network would pass for the published one, and be trusted."""
    mine = written(tmp_path, name="mine.h5")
    with pytest.raises(WeightsError, match=rf"a file named {KERAS.file_name}.*--label LABEL"):
        add_file(mine, store, published=(UNSUMMED,))
    assert not add_file(mine, store, any_checksum=True, published=(UNSUMMED,)).published
    assert read_trusted(store) == {}


def test_a_published_beginning_of_a_sum_is_completed_by_a_trusted_one(
    h5: Path, store: Path
) -> None:
    known = dataclasses.replace(KERAS, sha256=sha256_of(h5)[:8])
    trust(known, f"{known.sha256}{'0' * 56}", store)
    with pytest.raises(WeightsError, match="another one is trusted"):
        add_file(h5, store, published=(known,))


def test_a_published_md5_is_checked(h5: Path, store: Path) -> None:
    other = dataclasses.replace(UNSUMMED, md5="0" * 32)
    with pytest.raises(WeightsError, match=f"allowed: {'0' * 32}"):
        add_file(h5, store, published=(other,))
    known = dataclasses.replace(UNSUMMED, md5=hashlib.md5(h5.read_bytes()).hexdigest())
    assert add_file(h5, store, published=(known,)).published
    assert read_trusted(store)[KERAS.file_name].sha256 == sha256_of(h5)


def test_trusted_checksums_that_cannot_be_read_are_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / "pins.json").write_text('{"schema": 1, "pins": {"a": {"sha')
    with pytest.raises(WeightsError, match=r"pins\.json cannot be read"):
        check_trusted(UNSUMMED, "0" * 64, tmp_path)
    (tmp_path / "pins.json").write_text('{"schema": 2, "pins": {}}')
    with pytest.raises(WeightsError, match="its schema is 2, not 1"):
        read_trusted(tmp_path)


def test_verify_compares_what_is_stored_with_its_trusted_checksum(
    tmp_path: Path, store: Path
) -> None:
    file = written(tmp_path, name=TORCHVISION.file_name)
    as_if = dataclasses.replace(UNSUMMED, file_name=TORCHVISION.file_name)
    add_file(file, store, published=(as_if,))
    assert verify(store)[0].problem is None
    trusted = json.loads((store / "pins.json").read_text())
    trusted["pins"][TORCHVISION.file_name]["sha256"] = "0" * 64
    (store / "pins.json").write_text(json.dumps(trusted))
    assert "another one is trusted" in str(verify(store)[0].problem)


def a_kernel(seed: int = 0) -> Tensor:
    return torch.randn(64, 3, 3, 3, generator=torch.Generator().manual_seed(seed))


def test_a_first_layer_is_told_in_either_order_and_another_one_tells_nothing() -> None:
    known, other = a_kernel(), a_kernel(1)
    grey = known[:, :1].expand(-1, 3, -1, -1).contiguous()
    # Fine-tuned: a tenth of its size in other directions turns it by atan(0.1), 5.7 degrees.
    tuned = known + 0.1 * other
    told = [order_of(kernel, known, "BGR") for kernel in (known, tuned, known.flip(1),
            tuned.flip(1), other, torch.zeros(96, 3, 7, 7), torch.zeros_like(known))]  # fmt: skip
    assert told == ["BGR", "BGR", "RGB", "RGB", None, None, None]
    assert order_of(grey, grey, "RGB") is None, "alike in both orders"


def test_the_kernel_that_reads_the_picture_is_found() -> None:
    for architecture in ("vgg16", "resnet50", "densenet121", "efficientnet_b0"):
        tensors = backbone_tensors(architecture)
        first = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
        assert first_kernel_name(tensors) == first, architecture


def test_a_file_in_the_other_order_than_its_publishers_is_refused(
    tmp_path: Path, store: Path
) -> None:
    """Caffe's first layer, blue first, in a file that is published with red first."""
    kernels = keras_squeezenet.random_kernels()
    h5 = written(tmp_path)
    add_file(h5, store, published=as_if_published(h5))
    state = squeezenet1_1().state_dict()
    blue_first = torch.from_numpy(np.ascontiguousarray(kernels["conv1"][0].transpose(3, 2, 0, 1)))
    for name, kernel in (("wrong", blue_first), ("right", blue_first.flip(1))):
        state["features.0.weight"] = kernel.float()
        torch.save(state, tmp_path / f"{name}.pth")
    wrong, right = tmp_path / "wrong.pth", tmp_path / "right.pth"
    with pytest.raises(WeightsError, match=r"RGB was declared, but .* and expects BGR"):
        add_file(wrong, store, replacing=True, published=as_if_published(wrong, TORCHVISION))
    published = as_if_published(right, TORCHVISION)
    assert add_file(right, store, replacing=True, published=published).published


def test_an_order_that_contradicts_the_publishers_is_refused(h5: Path, store: Path) -> None:
    with pytest.raises(WeightsError, match=r"RGB was declared for squ.*published as BGR"):
        add_file(h5, store, channels="RGB", published=as_if_published(h5))
    assert not store.exists()
    add_file(h5, store, channels="BGR", published=as_if_published(h5))


@pytest.mark.weights
def test_the_real_file_is_the_published_one(tmp_path: Path) -> None:
    added = add_file(shared_file("weights", KERAS.file_name), tmp_path)
    assert added.published
    assert sum(tensor.numel() for tensor in load_file(added.path).values()) == 722_496
