"""A person's own weights are kept under a label, fed as somebody said, and never by a guess."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import squeezenet1_1

from benchmark.errors import WeightsError, WeightsMissing
from benchmark.files import sha256_of
from benchmark.models.backbone import build_backbone
from benchmark.models.preprocessing import CAFFE, IMAGENET, KERAS_CAFFE, UNIT
from benchmark.models.weight_adding import Declaration, add_file, add_own
from benchmark.models.weight_manifest import files_for
from benchmark.models.weight_store import read_stored, trust
from benchmark.models.weights import list_weights, load, resolve, verify
from tests.models import keras_squeezenet

MINE = Declaration("mine", preprocessing=UNIT)
KERAS = files_for("squeezenet1_1", "imagenet")[0]


@pytest.fixture
def h5(tmp_path: Path) -> Path:
    kernels = keras_squeezenet.random_kernels()
    return keras_squeezenet.write_h5(tmp_path / "tuned.h5", kernels)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def cnn_file(path: Path) -> Path:
    torch.save(build_backbone("cnn").state_dict(), path)
    return path


def test_a_file_in_a_publishers_layout_is_kept_under_its_label(h5: Path, store: Path) -> None:
    declared = dataclasses.replace(MINE, licence="mine alone", trained_on="my own faces")
    added = add_own(h5, store, declared)
    assert added.path == store / "squeezenet1_1-local-mine.safetensors"
    assert (added.source, added.licence, added.published) == ("local:mine", "mine alone", False)
    found = resolve("squeezenet1_1", "local:mine", store, offline=True)
    assert found == added
    loaded = load(found)
    # Keras pools with floor, whoever trained the file.
    assert (loaded.source, loaded.preprocessing) == ("local:mine", UNIT)
    assert dict(loaded.options) == {"pooling": "floor"}
    build_backbone("squeezenet1_1", **loaded.options).load_state_dict(loaded.tensors)
    with pytest.raises(WeightsError, match="no known layout.*vgg16"):
        add_own(h5, store, dataclasses.replace(MINE, architecture="vgg16"))


def test_a_bare_backbone_of_ours_is_told_by_its_names_and_needs_a_label(
    tmp_path: Path, store: Path
) -> None:
    file = cnn_file(tmp_path / "any.pth")
    added = add_own(file, store, MINE)
    assert (added.architecture, added.source) == ("cnn", "local:mine")
    assert (added.licence, added.trained_on) == ("not stated", "not stated")
    with pytest.raises(WeightsError, match="--label LABEL --architecture cnn"):
        add_file(file, store)


def test_how_it_is_fed_is_not_guessed(h5: Path, store: Path) -> None:
    with pytest.raises(WeightsError, match=r"nothing says how tuned\.h5 is fed"):
        add_own(h5, store, Declaration("mine"))
    assert not store.exists()


def test_a_converted_file_says_itself_how_it_is_fed(h5: Path, tmp_path: Path) -> None:
    stored = add_file(h5, tmp_path / "here", any_checksum=True)
    added = add_own(stored.path, tmp_path / "there", Declaration("copied"))
    assert (added.preprocessing, dict(added.options)) == (CAFFE, {"pooling": "floor"})
    assert (added.licence, added.sha256) == ("MIT", stored.sha256)
    with pytest.raises(WeightsError, match="says that it is fed BGR.*RGB, 0 to 1 was declared"):
        add_own(stored.path, tmp_path / "there", Declaration("other", preprocessing=UNIT))
    odd = tmp_path / "odd.safetensors"
    for header in ("not json", json.dumps({"architecture": "cnn"})):
        save_file(read_stored(stored.path)[1], odd, metadata={"facebench": header})
        with pytest.raises(WeightsError, match=r"header of odd\.safetensors cannot be read"):
            add_own(odd, tmp_path / "there", MINE)


def test_a_published_file_is_fed_as_published_and_in_no_other_order(h5: Path, store: Path) -> None:
    trust(dataclasses.replace(KERAS, sha256=None), sha256_of(h5), store)
    added = add_own(h5, store, Declaration("mine"))
    assert (added.preprocessing, added.licence) == (CAFFE, "MIT")
    with pytest.raises(WeightsError, match=r"RGB was declared for tuned\.h5.*published as BGR"):
        add_own(h5, store, Declaration("other", preprocessing=IMAGENET))
    assert add_own(h5, store, Declaration("other", preprocessing=KERAS_CAFFE)).published is False


def test_a_first_layer_that_is_known_in_the_other_order_is_refused(
    h5: Path, tmp_path: Path, store: Path
) -> None:
    """Fine-tuned from weights that are here, and said to be fed red first; they are not."""
    add_file(h5, store, published=(dataclasses.replace(KERAS, sha256=sha256_of(h5)),))
    kernels = keras_squeezenet.random_kernels()
    kernels["conv1"] = (kernels["conv1"][0] * 1.1, kernels["conv1"][1])
    tuned = keras_squeezenet.write_h5(tmp_path / "again.h5", kernels)
    with pytest.raises(WeightsError, match="RGB was declared, but the first layer is that of"):
        add_own(tuned, store, Declaration("mine", preprocessing=UNIT))
    add_own(tuned, store, Declaration("mine", preprocessing=UNIT.swapped()))


def test_a_bare_squeezenet_does_not_say_how_it_pools(tmp_path: Path, store: Path) -> None:
    torch.save(build_backbone("squeezenet1_1", pooling="ceil").state_dict(), tmp_path / "any.pth")
    with pytest.raises(WeightsError, match="does not say its pooling"):
        add_own(tmp_path / "any.pth", store, MINE)
    torch.save(squeezenet1_1().state_dict(), tmp_path / "theirs.pth")
    added = add_own(tmp_path / "theirs.pth", store, MINE)
    assert dict(added.options) == {"pooling": "ceil"}


def test_other_weights_do_not_take_a_label_silently(tmp_path: Path, store: Path) -> None:
    first = add_own(cnn_file(tmp_path / "one.pth"), store, MINE)
    other = cnn_file(tmp_path / "two.pth")
    with pytest.raises(WeightsError, match="already here, from one.pth"):
        add_own(other, store, MINE)
    assert read_stored(first.path)[0] == first
    assert add_own(other, store, MINE, replacing=True).sha256 != first.sha256
    with pytest.raises(WeightsMissing, match=r"under the label 'yours' \(allowed: mine\)"):
        resolve("cnn", "local:yours", store, offline=True)


def test_a_label_is_a_word() -> None:
    for label in ("", "My weights", "a:b", "../x"):
        with pytest.raises(WeightsError, match="the label is"):
            Declaration(label)


def test_ones_own_are_listed_and_verified_beside_the_published(tmp_path: Path, store: Path) -> None:
    added = add_own(cnn_file(tmp_path / "any.pth"), store, MINE)
    (state,) = list_weights(store, "cnn")
    assert (state.source, state.state, state.published) == ("local:mine", "here", ())
    assert verify(store)[0].problem is None
    content = bytearray(added.path.read_bytes())
    content[-1] ^= 1
    added.path.write_bytes(content)
    assert "content's sha256" in str(verify(store)[0].problem)
