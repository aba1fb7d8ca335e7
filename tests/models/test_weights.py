"""The store keeps what was published or declared, whole, and says how to get what is not there."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import save_file
from timm.models import get_pretrained_cfg

from benchmark.errors import WeightsError, WeightsMissing
from benchmark.experiment.architectures import ARCHITECTURES, FROM_TIMM
from benchmark.files import sha256_of
from benchmark.models import weight_manifest, weights
from benchmark.models.weight_formats import content_sha256, convert, layouts_of, tensor_digest
from benchmark.models.weight_manifest import CAFFE, FILES, IMAGENET, UNIT, PublishedFile, files_for
from benchmark.models.weights import add_file, list_weights, load, resolve
from tests.conftest import shared_file
from tests.models import keras

KERAS, TORCHVISION = files_for("squeezenet1_1", "imagenet")
UNSUMMED = replace(KERAS, sha256=None)
"""As if no checksum were published."""
SOURCE = ("squeezenet1_1", "imagenet")
VGG16_H5 = files_for("vgg16", "imagenet")[0].file_name
MINE: dict[str, Any] = {"label": "mine", "preprocessing": UNIT}


def written(folder: Path, seed: int = 0, name: str = KERAS.file_name) -> Path:
    """A file in the published layout, with values of our own."""
    folder.mkdir(exist_ok=True)
    return keras.write_h5(folder / name, keras.squeezenet_kernels(seed))


@pytest.fixture
def h5(tmp_path: Path) -> Path:
    return written(tmp_path / "made")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def known(h5: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Let the manifest know that file's tensors, in our names; nothing else of it is right."""
    converted = convert(h5)
    monkeypatch.setitem(weight_manifest.DIGESTS, KERAS.file_name, tensor_digest(converted.tensors))
    return converted.tensors


def as_if_published(path: Path, known: PublishedFile = KERAS) -> tuple[PublishedFile, ...]:
    """The manifest's entry, had `path` been the published file, and at its own address."""
    return (replace(known, sha256=sha256_of(path), url=path.as_uri()),)


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()} - {".lock"}


def verified(folder: Path) -> list[Any]:
    return [here for _, here in list_weights(folder).values() if here is not None]


def test_an_added_file_is_found_loaded_and_says_where_it_came_from(h5: Path, store: Path) -> None:
    before = {source: here for source, (_, here) in list_weights(store).items()}
    assert before == dict.fromkeys((it.architecture, it.source) for it in FILES)
    added = add_file(h5, store, published=as_if_published(h5))
    found = resolve(*SOURCE, store, offline=True)
    assert (found, found.origin, found.published) == (added, KERAS.file_name, True)
    loaded = load(found)
    fed = (loaded.file.preprocessing, loaded.file.options)
    assert fed == (KERAS.preprocessing, KERAS.options)
    assert found.sha256 == content_sha256(loaded.tensors, fed[0], KERAS.options)
    with safe_open(added.path, framework="pt") as file:
        metadata = json.loads(file.metadata()["facebench"])
    assert (metadata["schema"], metadata["licence"]) == (1, "MIT")
    assert metadata["origin_sha256"] == sha256_of(h5)
    assert list_weights(store, SOURCE[0]) == {SOURCE: ((KERAS, TORCHVISION), found)}


def test_the_sum_changes_with_a_tensor_the_input_or_the_layout() -> None:
    tensors = {"a": torch.zeros(2), "b": torch.ones(2)}
    turned, ceil = dict(reversed(tensors.items())), {"pooling": "ceil"}
    sums = [content_sha256(summed, fed, options) for summed, fed, options in (
        (turned, CAFFE, ceil), (tensors, CAFFE, ceil), (tensors, CAFFE, {"pooling": "floor"}),
        (tensors | {"a": torch.tensor([0.0, 1e-9])}, CAFFE, ceil),
        ({"b": tensors["a"], "a": tensors["b"]}, CAFFE, ceil), (tensors, CAFFE.swapped(), ceil),
    )]  # fmt: skip
    assert sums[0] == sums[1]
    assert len(set(sums)) == 5


def test_every_container_and_layout_of_the_tensors_is_the_published_source(
    h5: Path, known: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    (torchvisions,) = [it for it in layouts_of("squeezenet1_1") if it.name == "torchvision"]
    theirs = {torchvisions.names[name]: tensor for name, tensor in known.items()}
    files = [h5, *(tmp_path / f"{name}.pth" for name in ("bare", "theirs", "double"))]
    save_file(known, files[1])
    save_file(theirs, files[2])
    torch.save({name: values.double() for name, values in theirs.items()}, files[3])
    added = [add_file(file, tmp_path / f"store_{file.stem}") for file in files]
    # Fed as Keras's, though torchvision's layout is otherwise fed red first; one identity for runs.
    assert {(it.source, it.published, it.origin, it.preprocessing, it.sha256) for it in added} == {
        ("imagenet", True, KERAS.file_name, CAFFE, added[0].sha256)
    }
    own = add_file(h5, tmp_path / "own", label="mine")
    assert (own.source, own.preprocessing, own.licence) == ("local:mine", CAFFE, "MIT")
    with pytest.raises(WeightsError, match="published as BGR, .* declared as RGB, 0 to 1"):
        add_file(h5, tmp_path / "own", label="other", preprocessing=UNIT)
    with h5py.File(h5, "r+") as file:
        file["conv1/uniform_conv1"][0, 0, 0, 0] += 1e-6
    with pytest.raises(WeightsError, match=r"of 50 tensors 49 are those of squ.*: conv1:kernel"):
        add_file(h5, tmp_path / "altered")
    assert not (tmp_path / "altered").exists()


@pytest.mark.weights
@pytest.mark.parametrize("name", [VGG16_H5, KERAS.file_name, "mobilenet_v2-b0353104.pth"])
def test_the_real_files_are_known_by_their_tensors(tmp_path: Path, name: str) -> None:
    tensors = convert(shared_file("weights", name)).tensors
    save_file(tensors, tmp_path / "any.safetensors")
    added = add_file(tmp_path / "any.safetensors", tmp_path / "store")
    assert (added.published, added.origin) == (True, name)
    if name == VGG16_H5:  # rebuilt; these values were printed of Keras's own
        first = tensors["stages.block1.conv1.weight"][0, :, 0, 0]
        assert torch.equal(first, torch.tensor([0.42947057, 0.55037946, 0.4800154]))
        assert tensors["stages.block5.conv3.bias"][0] == torch.tensor(0.18837857)


def test_a_file_is_published_by_its_checksum_or_where_there_is_none_by_its_name(
    h5: Path, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, md5 = written(tmp_path / "mine", name="mine.h5"), "9e107d9d372bb6826bd81d3542a419d6"
    for path, known, allowed in (
        (h5, KERAS, "17154246"),
        (h5, replace(UNSUMMED, md5=md5), md5),
        (mine, UNSUMMED, f"a file named {KERAS.file_name}"),
    ):
        # Else one's own fine-tuned network would pass for the published one.
        with pytest.raises(WeightsError, match=rf"allowed: {allowed}.*--label LABEL.*--any-check"):
            add_file(path, store, published=(known,))
        assert not store.exists()
    # Of a whole published sum none is remembered, a beginning is completed.
    for sum_ in (sha256_of(h5), sha256_of(h5)[:8], None):
        assert add_file(h5, store, published=(replace(KERAS, sha256=sum_),)).published
        assert (KERAS.file_name in weights.read_trusted(store)) == (sum_ != sha256_of(h5))
    insisted = add_file(mine, store, published=(KERAS,), any_checksum=True, replacing=True)
    assert not insisted.published
    # Once their tensors are known, the same weights become the published ones.
    monkeypatch.setitem(
        weight_manifest.DIGESTS, KERAS.file_name, tensor_digest(convert(mine).tensors)
    )
    found = add_file(mine, store)
    assert (found.published, found.sha256) == (True, insisted.sha256)


def test_the_first_copy_is_trusted_and_another_refused(tmp_path: Path, store: Path) -> None:
    first, second = written(tmp_path / "first"), written(tmp_path / "second", seed=1)
    published = (UNSUMMED,)
    assert add_file(first, store, published=published).published
    for insisting in (False, True):
        options = {"any_checksum": insisting, "replacing": insisting}
        with pytest.raises(WeightsError, match=r"another one is trusted .*remove the entry"):
            add_file(second, store, published=published, **options)
    assert weights.read_trusted(store)[KERAS.file_name]["sha256"] == sha256_of(first)
    assert [it.origin for it in verified(store)] == [KERAS.file_name]
    trusted = {KERAS.file_name: {"sha256": "0" * 64, "when": "2026-11-29"}}
    (store / "pins.json").write_text(json.dumps({"schema": 1, "pins": trusted}))
    assert "another one is trusted" in str(verified(store)[0])
    (store / "squeezenet1_1-imagenet.safetensors").unlink()
    published = (replace(UNSUMMED, url=second.as_uri()),)
    with pytest.raises(WeightsError, match="another one is trusted"):
        resolve(*SOURCE, store, offline=False, published=published)
    assert files_in(store) == {"pins.json"}


def test_a_file_in_the_other_order_than_its_first_layer_shows_is_refused(
    h5: Path, tmp_path: Path, store: Path
) -> None:
    """Caffe's first layer, blue first, in files that are published or declared as red first."""
    add_file(h5, store, published=as_if_published(h5))
    state = torchvision.models.squeezenet1_1().state_dict()
    blue_first = convert(h5).tensors["stages.conv1.conv.weight"]
    # Fine-tuned: a tenth of its size in other directions turns it by atan(0.1), 5.7 degrees.
    noise = torch.randn(blue_first.shape, generator=torch.Generator().manual_seed(0))
    tuned = blue_first + 0.1 * noise * blue_first.norm() / noise.norm()
    wrong, right, other = (tmp_path / f"{name}.pth" for name in ("wrong", "right", "other"))
    for path, kernel in ((wrong, tuned), (right, tuned.flip(1)), (other, noise)):
        torch.save(state | {"features.0.weight": kernel}, path)
    published: dict[str, Any] = {"published": as_if_published(wrong, TORCHVISION)}
    for options in (published, MINE):
        with pytest.raises(WeightsError, match=r"is fed RGB, but .* and expects BGR"):
            add_file(wrong, store, replacing=True, **options)
    for path in (right, other):
        published["published"] = as_if_published(path, TORCHVISION)
        assert add_file(path, store, replacing=True, **published).published
    assert not add_file(wrong, store, label="mine", preprocessing=UNIT.swapped()).published


def test_other_weights_do_not_replace_what_is_there_silently(tmp_path: Path, store: Path) -> None:
    h5, other = written(tmp_path / "made"), written(tmp_path / "made", 1, "other.h5")
    for options in ({"any_checksum": True}, MINE):
        first = add_file(h5, store, **options)
        assert add_file(h5, store, **options) == first
        with pytest.raises(WeightsError, match=r"already here, from .*--replace"):
            add_file(other, store, **options)
        assert weights.read_stored(first.path).file == first
        assert add_file(other, store, replacing=True, **options).sha256 != first.sha256
        with pytest.raises(WeightsError, match="changed since it was resolved"):
            load(first)


def test_missing_weights_say_where_to_get_them_and_an_address_is_asked_once(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing) as raised:
        resolve(*SOURCE, tmp_path, offline=True)
    for part in (KERAS.url, TORCHVISION.url, "facebench weights add FILE"):
        assert part in raised.value.fix
    assert not list(tmp_path.iterdir())
    with pytest.raises(WeightsMissing, match=r"no 'vggface2' weights of resnet50"):
        resolve("resnet50", "vggface2", tmp_path, offline=True)
    with pytest.raises(WeightsMissing, match=r"'local:yours' .*--label yours"):
        resolve("cnn", "local:yours", tmp_path, offline=True)
    published = (replace(KERAS, url="http://127.0.0.1:9/nothing.h5"),)
    asked: list[str] = []
    for _ in range(2):
        with pytest.raises(WeightsMissing, match=r"127\.0\.0\.1:9: .*refused"):
            resolve(*SOURCE, tmp_path, offline=False, published=published, on_download=asked.append)
    assert asked == [KERAS.file_name]


def test_what_is_published_is_downloaded_once_converted_and_not_kept_twice(
    h5: Path, store: Path
) -> None:
    asked: list[str] = []
    options: dict[str, Any] = {"published": as_if_published(h5), "on_download": asked.append}
    with ThreadPoolExecutor() as pool:
        begun = [pool.submit(resolve, *SOURCE, store, offline=False, **options) for _ in range(3)]
    assert (len({it.result().sha256 for it in begun}), asked) == (1, [KERAS.file_name])
    assert files_in(store) == {"squeezenet1_1-imagenet.safetensors"}
    # One that was put into the folder is converted.
    found = resolve(*SOURCE, h5.parent, offline=True, published=options["published"])
    assert found.path == h5.with_name("squeezenet1_1-imagenet.safetensors")


def test_a_download_that_is_not_the_published_file_is_refused_and_not_kept(
    h5: Path, tmp_path: Path, store: Path
) -> None:
    torch.save(torchvision.models.squeezenet1_1().state_dict(), tmp_path / "any.pth")
    whole = h5.read_bytes()
    contents: list[tuple[bytes, type[WeightsError], str]] = [
        ((tmp_path / "any.pth").read_bytes(), WeightsError, "no published file of this layout"),
        (b"<!DOCTYPE html><title>Sign in</title>", WeightsMissing, "an HTML page came"),
        (whole[: len(whole) // 2], WeightsError, "damaged or cut short"),
        (b"something else", WeightsError, "is no weight file"),
    ]
    for content, error, sentence in contents:
        served = tmp_path / f"{len(content)} bytes"
        served.write_bytes(content)
        published = (replace(UNSUMMED, url=served.as_uri()),)
        with pytest.raises(error, match=sentence):
            resolve(*SOURCE, store, offline=False, published=published)
        assert files_in(store) == set()
    # Another file of the same source would be other weights, which nobody asked for.
    published = (replace(KERAS, url=h5.as_uri()), *as_if_published(h5))
    with pytest.raises(WeightsError, match="but the sha256") as raised:
        resolve(*SOURCE, store, offline=False, published=published)
    assert not isinstance(raised.value, WeightsMissing)
    assert files_in(store) == set()


def test_what_is_damaged_or_cannot_be_written_is_found_out(h5: Path, store: Path) -> None:
    with pytest.raises(WeightsError, match="weights cannot be written to"):
        add_file(h5, h5, any_checksum=True)
    added = add_file(h5, store, any_checksum=True)
    content = added.path.read_bytes()
    added.path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for read in (lambda: resolve(*SOURCE, store, offline=True), lambda: load(added)):
        with pytest.raises(WeightsError, match="damaged .*content's sha256"):
            read()
    (store / "cnn-imagenet.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="it holds squeezenet1_1-imagenet"):
        weights.read_stored(store / "cnn-imagenet.safetensors")


def test_what_facebench_did_not_write_is_no_source(tmp_path: Path) -> None:
    foreign = tmp_path / "resnet18.a1_in1k.safetensors"
    save_file({"x": torch.zeros(1)}, foreign)
    assert verified(tmp_path) == []
    foreign.rename(tmp_path / "squeezenet1_1-imagenet.safetensors")
    with pytest.raises(WeightsError, match="allowed: a file written by facebench"):
        resolve(*SOURCE, tmp_path, offline=True)


def test_every_entry_of_the_manifest_fits_a_source_and_its_layout() -> None:
    sources = {(it.name, source) for it in ARCHITECTURES.values() for source in it.weight_sources}
    published = {(file.architecture, file.source) for file in FILES}
    assert sources - {(name, "none") for name in ARCHITECTURES} == published
    names = [file.file_name for file in FILES]
    assert len(set(names)) == len(names)
    assert set(weight_manifest.DIGESTS) <= set(names)
    for file in FILES:
        assert file.layout in [layout.name for layout in layouts_of(file.architecture)]


def test_published_files_are_as_torchvision_and_timm_say() -> None:
    for file in (file for file in FILES if file.layout == "torchvision"):
        theirs: Any = torchvision.models.get_model_weights(file.architecture)["IMAGENET1K_V1"]
        transforms = theirs.transforms()
        assert (file.url, file.preprocessing) == (theirs.url, IMAGENET), file.file_name
        assert (file.sha256 or "no sum") in theirs.url, file.file_name
        assert (tuple(transforms.mean), tuple(transforms.std)) == (IMAGENET.mean, IMAGENET.std)
    # What is written down of timm is what would be asked of it.
    for name in (*(it.name for it in FROM_TIMM), "resnet18"):
        (file,) = files_for(name, "imagenet")
        cfg: Any = get_pretrained_cfg(file.file_name.removesuffix(".safetensors"))
        fed = file.preprocessing
        assert file.url == f"https://huggingface.co/{cfg.hf_hub_id}/resolve/main/model.safetensors"
        assert (fed.mean, fed.std, fed.channels, fed.scale) == (cfg.mean, cfg.std, "RGB", 1 / 255)
        assert file.licence.lower() == cfg.license, name
    assert files_for("vit_small_patch14_dinov2", "imagenet") == ()
