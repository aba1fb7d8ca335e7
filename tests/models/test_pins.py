"""What has no published sum is pinned when it is first met, and refused when it comes otherwise."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch
from torchvision.models import squeezenet1_1

from benchmark.errors import WeightsError, WeightsMissing
from benchmark.files import sha256_of
from benchmark.models.weight_adding import Adding, add_file
from benchmark.models.weight_manifest import PublishedFile, files_for
from benchmark.models.weight_store import check_pin, pin, read_pins
from benchmark.models.weights import resolve, verify
from tests.models import keras_squeezenet

KERAS = files_for("squeezenet1_1", "imagenet")[0]
UNSUMMED = dataclasses.replace(KERAS, sha256=None)


def written(folder: Path, seed: int = 0, name: str = KERAS.file_name) -> Path:
    """A file in the published layout, with values of our own."""
    folder.mkdir(exist_ok=True)
    return keras_squeezenet.write_h5(folder / name, keras_squeezenet.random_kernels(seed))


def test_the_first_copy_is_pinned_and_another_refused(tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = written(tmp_path / "first")
    added = add_file(first, store, published=(UNSUMMED,))
    assert added.published
    assert read_pins(store)[KERAS.file_name].sha256 == sha256_of(first)
    second = written(tmp_path / "second", seed=1)
    for how in (Adding(), Adding(any_checksum=True, replacing=True)):
        with pytest.raises(WeightsError, match=r"pinned to another .*remove the entry"):
            add_file(second, store, how, published=(UNSUMMED,))
    assert read_pins(store)[KERAS.file_name].sha256 == sha256_of(first)


def test_a_file_of_no_published_sum_has_to_bear_its_name(tmp_path: Path) -> None:
    """Else one's own fine-tuned network would pass for the published one, and be pinned."""
    mine, store = written(tmp_path, name="mine.h5"), tmp_path / "store"
    with pytest.raises(WeightsError, match=rf"a file named {KERAS.file_name}.*--label LABEL"):
        add_file(mine, store, published=(UNSUMMED,))
    added = add_file(mine, store, Adding(any_checksum=True), published=(UNSUMMED,))
    assert not added.published
    assert read_pins(store) == {}


def test_a_published_beginning_of_a_sum_is_completed_by_a_pin(tmp_path: Path) -> None:
    file, store = written(tmp_path), tmp_path / "store"
    known = dataclasses.replace(KERAS, sha256=sha256_of(file)[:8])
    pin(known, f"{known.sha256}{'0' * 56}", store)
    with pytest.raises(WeightsError, match="pinned to another"):
        add_file(file, store, published=(known,))


def test_a_published_md5_is_checked(tmp_path: Path) -> None:
    file, store = written(tmp_path), tmp_path / "store"
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    other = dataclasses.replace(UNSUMMED, md5="0" * 32)
    with pytest.raises(WeightsError, match=f"allowed: {'0' * 32}"):
        add_file(file, store, published=(other,))
    assert add_file(file, store, published=(dataclasses.replace(UNSUMMED, md5=md5),)).published
    assert read_pins(store)[KERAS.file_name].sha256 == sha256_of(file)


def test_a_whole_published_sum_needs_no_pin(tmp_path: Path) -> None:
    file, store = written(tmp_path), tmp_path / "store"
    add_file(file, store, published=(dataclasses.replace(KERAS, sha256=sha256_of(file)),))
    assert not (store / "pins.json").exists()


def fetched(content: bytes, folder: Path) -> PublishedFile:
    folder.mkdir(exist_ok=True)
    served = folder / KERAS.file_name
    served.write_bytes(content)
    return dataclasses.replace(UNSUMMED, url=served.as_uri())


def in_torchvisions_layout(folder: Path) -> bytes:
    torch.save(squeezenet1_1().state_dict(), folder / "any.pth")
    return (folder / "any.pth").read_bytes()


def test_a_download_is_pinned_only_as_a_whole_file_of_its_layout(tmp_path: Path) -> None:
    whole = written(tmp_path / "made").read_bytes()
    store = tmp_path / "store"
    for number, (content, error, sentence) in enumerate(
        [
            (b"<!DOCTYPE html><title>Sign in</title>", WeightsMissing, "an HTML page came"),
            (whole[: len(whole) // 2], WeightsError, "damaged or cut short"),
            (b"something else", WeightsError, "is no weight file"),
            (in_torchvisions_layout(tmp_path), WeightsError, "is in the layout 'torchvision'"),
        ]
    ):
        known = fetched(content, tmp_path / str(number))
        with pytest.raises(error, match=sentence):
            resolve("squeezenet1_1", "imagenet", store, offline=False, published=(known,))
        assert read_pins(store) == {}
    known = fetched(whole, tmp_path / "right")
    assert resolve("squeezenet1_1", "imagenet", store, offline=False, published=(known,)).published
    assert read_pins(store)[KERAS.file_name].sha256 == hashlib.sha256(whole).hexdigest()


def test_a_download_that_differs_from_its_pin_is_refused(tmp_path: Path) -> None:
    store = tmp_path / "store"
    pin(UNSUMMED, "0" * 64, store)
    known = fetched(written(tmp_path / "made").read_bytes(), tmp_path / "served")
    with pytest.raises(WeightsError, match="pinned to another"):
        resolve("squeezenet1_1", "imagenet", store, offline=False, published=(known,))
    kept = {path.name for path in store.rglob("*") if path.is_file()}
    assert kept == {"pins.json", ".lock"}


def test_what_the_manifest_has_learnt_reaches_a_pinned_file_too(tmp_path: Path) -> None:
    store = tmp_path / "store"
    add_file(written(tmp_path), store, published=(UNSUMMED,))
    learnt = dataclasses.replace(UNSUMMED, preprocessing=KERAS.preprocessing.swapped())
    found = resolve("squeezenet1_1", "imagenet", store, offline=True, published=(learnt,))
    assert found.preprocessing == learnt.preprocessing


def test_pins_that_cannot_be_read_are_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / "pins.json").write_text('{"schema": 1, "pins": {"a": {"sha')
    with pytest.raises(WeightsError, match=r"pins\.json cannot be read"):
        check_pin(UNSUMMED, "0" * 64, tmp_path)
    (tmp_path / "pins.json").write_text('{"schema": 2, "pins": {}}')
    with pytest.raises(WeightsError, match="its schema is 2, not 1"):
        read_pins(tmp_path)


def test_verify_compares_what_is_stored_with_its_pin(tmp_path: Path) -> None:
    store = tmp_path / "store"
    file = written(tmp_path, name="squeezenet1_1-b8a52dc0.pth")
    torchvision = files_for("squeezenet1_1", "imagenet")[1]
    as_if = dataclasses.replace(KERAS, file_name=torchvision.file_name, sha256=None)
    add_file(file, store, published=(as_if,))
    assert verify(store)[0].problem is None
    pins = json.loads((store / "pins.json").read_text())
    pins["pins"][torchvision.file_name]["sha256"] = "0" * 64
    (store / "pins.json").write_text(json.dumps(pins))
    assert "pinned to another" in str(verify(store)[0].problem)
