"""The store keeps what was published, whole, and says how to get what is not there."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from benchmark.errors import ExperimentError, WeightsError, WeightsMissing
from benchmark.files import sha256_of
from benchmark.models.chains import build_trunk
from benchmark.models.preprocessing import CAFFE
from benchmark.models.weight_adding import Adding, add_file
from benchmark.models.weight_manifest import FILES, PublishedFile, files_for
from benchmark.models.weight_store import content_sha256, read_stored
from benchmark.models.weights import list_weights, load, resolve, verify
from tests.conftest import shared_file
from tests.models import keras_squeezenet

KERAS = files_for("squeezenet1_1", "imagenet")[0]
ANYHOW = Adding(any_checksum=True)


@pytest.fixture
def h5(tmp_path: Path) -> Path:
    """A file in the published layout, with values of our own."""
    return keras_squeezenet.write_h5(tmp_path / KERAS.file_name, keras_squeezenet.random_kernels())


def as_if_published(path: Path, url: str = "http://127.0.0.1:9/file.h5") -> PublishedFile:
    """The manifest's entry, had `path` been the published file."""
    return dataclasses.replace(KERAS, sha256=sha256_of(path), url=url)


def files_in(folder: Path) -> list[str]:
    """Names of all files, but for the lock that keeps two processes from fetching at once."""
    return [path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]


def test_an_added_file_is_found_and_loaded_again(h5: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    added = add_file(h5, store, published=(as_if_published(h5),))
    found = resolve("squeezenet1_1", "imagenet", store, offline=True)
    assert found == added
    loaded = load(found)
    build_trunk("squeezenet1_1", **loaded.options).load_state_dict(loaded.tensors)
    assert (loaded.preprocessing, loaded.origin) == (KERAS.preprocessing, KERAS.file_name)
    assert loaded.sha256 == content_sha256(loaded.tensors, loaded.preprocessing, loaded.options)


def test_the_stored_file_says_where_it_came_from(h5: Path, tmp_path: Path) -> None:
    added = add_file(h5, tmp_path / "store", published=(as_if_published(h5),))
    with safe_open(added.path, framework="pt") as file:
        metadata = json.loads(file.metadata()["facebench"])
    assert metadata["schema"] == 1
    assert metadata["origin_sha256"] == sha256_of(h5)
    assert metadata["licence"] == "MIT"
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
    turned = dict(reversed(tensors.items()))
    assert content_sha256(turned, CAFFE, {"pooling": "ceil"}) in sums


def test_a_file_with_another_sum_is_refused_unless_insisted_upon(h5: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"sha256 [0-9a-f]{64} \(allowed: 17154246.*any-check"):
        add_file(h5, tmp_path / "store")
    assert not (tmp_path / "store").exists()
    added = add_file(h5, tmp_path / "store", ANYHOW)
    assert not added.published


def test_other_weights_do_not_replace_what_is_there_silently(h5: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = add_file(h5, store, ANYHOW)
    assert add_file(h5, store, ANYHOW) == first
    other = keras_squeezenet.write_h5(tmp_path / "other.h5", keras_squeezenet.random_kernels(1))
    with pytest.raises(WeightsError, match=r"already here, from .*--replace"):
        add_file(other, store, ANYHOW)
    assert read_stored(first.path)[0] == first
    second = add_file(other, store, Adding(replacing=True, any_checksum=True))
    assert second.sha256 != first.sha256


def test_missing_weights_say_where_they_are_to_be_had(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing) as raised:
        resolve("squeezenet1_1", "imagenet", tmp_path, offline=True)
    assert KERAS.url in raised.value.fix
    assert "squeezenet1_1-b8a52dc0.pth" in raised.value.fix
    assert "facebench weights add FILE" in raised.value.fix
    assert not list(tmp_path.iterdir())


def test_without_a_network_the_reason_is_told_and_an_address_asked_once(
    h5: Path, tmp_path: Path
) -> None:
    published = (as_if_published(h5, url="http://127.0.0.1:9/nothing.h5"),)
    store = tmp_path / "store"
    reasons = []
    for _ in range(2):
        with pytest.raises(WeightsMissing, match=r"127\.0\.0\.1:9: .*refused") as raised:
            resolve("squeezenet1_1", "imagenet", store, offline=False, published=published)
        reasons.append(str(raised.value))
    assert reasons[0] == reasons[1]


def test_what_is_to_be_had_is_fetched_converted_and_not_kept_twice(
    h5: Path, tmp_path: Path
) -> None:
    store, heard = tmp_path / "store", list[tuple[str, int]]()
    published = (as_if_published(h5, url=h5.as_uri()),)
    found = resolve(
        "squeezenet1_1",
        "imagenet",
        store,
        offline=False,
        published=published,
        on_bytes=lambda name, n_here, _: heard.append((name, n_here)),
    )
    assert found.published
    assert heard[-1] == (KERAS.file_name, h5.stat().st_size)
    assert files_in(store) == [found.path.name]


def test_what_is_fetched_and_not_what_was_published_stops_the_run(h5: Path, tmp_path: Path) -> None:
    """Another file of the same source would be other weights, which nobody asked for."""
    wrong = dataclasses.replace(KERAS, url=h5.as_uri())
    right = as_if_published(h5, url=h5.as_uri())
    with pytest.raises(WeightsError, match=r"has the sha256 .*not what was published") as raised:
        resolve("squeezenet1_1", "imagenet", tmp_path / "store", offline=False,
                published=(wrong, right))  # fmt: skip
    assert not isinstance(raised.value, WeightsMissing)
    assert files_in(tmp_path / "store") == []


def test_a_published_file_put_into_the_folder_is_converted(h5: Path, tmp_path: Path) -> None:
    published = (as_if_published(h5),)
    found = resolve("squeezenet1_1", "imagenet", tmp_path, offline=True, published=published)
    assert found.path == tmp_path / "squeezenet1_1-imagenet.safetensors"


def test_what_the_manifest_has_learnt_since_reaches_a_stored_file(h5: Path, tmp_path: Path) -> None:
    known, store = as_if_published(h5), tmp_path / "store"
    first = add_file(h5, store, published=(known,))
    learnt = dataclasses.replace(known, preprocessing=known.preprocessing.swapped())
    found = resolve("squeezenet1_1", "imagenet", store, offline=True, published=(learnt,))
    assert found.preprocessing == learnt.preprocessing
    assert found.sha256 != first.sha256
    assert load(found).preprocessing == learnt.preprocessing


def test_a_changed_stored_file_is_found_out(h5: Path, tmp_path: Path) -> None:
    added = add_file(h5, tmp_path / "store", ANYHOW)
    content = bytearray(added.path.read_bytes())
    content[-1] ^= 1
    added.path.write_bytes(content)
    with pytest.raises(WeightsError, match="damaged .*content's sha256"):
        resolve("squeezenet1_1", "imagenet", tmp_path / "store", offline=True)
    with pytest.raises(WeightsError, match="damaged"):
        load(added)


def test_a_stored_file_cut_short_is_found_out(h5: Path, tmp_path: Path) -> None:
    added = add_file(h5, tmp_path / "store", ANYHOW)
    added.path.write_bytes(added.path.read_bytes()[:-100])
    (state,) = verify(tmp_path / "store")
    assert state.state == "damaged"
    assert "Delete it, then: facebench weights add FILE" in str(state.problem)


def test_a_safetensors_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "squeezenet1_1-imagenet.safetensors")
    with pytest.raises(WeightsError, match="a file written by facebench weights add"):
        resolve("squeezenet1_1", "imagenet", tmp_path, offline=True)


def test_a_stored_file_under_another_name_is_refused(h5: Path, tmp_path: Path) -> None:
    added = add_file(h5, tmp_path / "store", ANYHOW)
    renamed = added.path.rename(added.path.with_name("cnn-imagenet.safetensors"))
    with pytest.raises(WeightsError, match="it holds squeezenet1_1-imagenet"):
        read_stored(renamed)


def test_weights_that_changed_between_finding_and_loading_are_refused(
    h5: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    found = add_file(h5, store, ANYHOW)
    other = keras_squeezenet.write_h5(tmp_path / "other.h5", keras_squeezenet.random_kernels(1))
    add_file(other, store, Adding(replacing=True, any_checksum=True))
    with pytest.raises(WeightsError, match="changed since it was resolved"):
        load(found)


def test_a_folder_that_cannot_be_written_is_said_to_be_so(h5: Path, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file, not a folder")
    with pytest.raises(WeightsError, match="weights cannot be written to"):
        add_file(h5, tmp_path / "store", ANYHOW)


def test_every_source_is_listed_with_its_state(h5: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    before = {(state.architecture, state.source): state for state in list_weights(store)}
    assert set(before) == {(file.architecture, file.source) for file in FILES}
    assert {state.state for state in before.values()} == {"missing"}
    add_file(h5, store, ANYHOW)
    (state,) = list_weights(store, "squeezenet1_1")
    assert (state.architecture, state.source, state.state) == ("squeezenet1_1", "imagenet", "here")
    assert state.published == files_for("squeezenet1_1", "imagenet")


def test_two_that_want_the_same_file_fetch_it_once(h5: Path, tmp_path: Path) -> None:
    published, store = (as_if_published(h5, url=h5.as_uri()),), tmp_path / "store"
    n_bytes: list[int] = []

    def fetched() -> str:
        return resolve(
            "squeezenet1_1", "imagenet", store, offline=False, published=published,
            on_bytes=lambda name, n_here, n_total: n_bytes.append(n_here),
        ).sha256  # fmt: skip

    with ThreadPoolExecutor() as pool:
        sums = {future.result() for future in [pool.submit(fetched) for _ in range(3)]}
    assert len(sums) == 1
    assert n_bytes.count(h5.stat().st_size) == 1


def test_what_facebench_did_not_write_is_no_source(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "resnet18.a1_in1k.safetensors")
    assert verify(tmp_path) == []
    whole = (tmp_path / "resnet18.a1_in1k.safetensors").read_bytes()
    (tmp_path / "cnn-local-mine.safetensors").write_bytes(whole[:20])
    (state,) = verify(tmp_path)
    assert (state.architecture, state.source, state.state) == ("cnn", "local:mine", "damaged")


def test_a_source_that_is_asked_for_in_vain_gives_its_reason(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"'vggface2' weights of resnet50: no published file"):
        resolve("resnet50", "vggface2", tmp_path, offline=True)
    with pytest.raises(ExperimentError, match="unknown architecture 'vgg61'"):
        list_weights(tmp_path, "vgg61")


@pytest.mark.weights
def test_the_real_file_is_the_published_one(tmp_path: Path) -> None:
    added = add_file(shared_file("weights", KERAS.file_name), tmp_path)
    assert added.published
    assert sum(tensor.numel() for tensor in load_file(added.path).values()) == 722_496
