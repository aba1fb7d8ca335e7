"""The frozen part, computed once: the same numbers, shared where it is the same, else refused."""

import dataclasses
import json
import os
import resource
import threading
import time
from itertools import product
from pathlib import Path

import pytest
import torch

from benchmark.experiment.definition import Augmentation
from benchmark.files import file_lock
from benchmark.models.network import Network
from benchmark.training import prefix_cache
from benchmark.training.device import Device
from benchmark.training.prefix_cache import CacheSettings, PrefixRequest, open_prefix
from benchmark.training.steps import in_fp32
from benchmark.training.trainer import fit, start
from tests.training import small
from tests.training.small import CPU, a_network, an_experiment, some_data

FLIPS = Augmentation(flip=True)
BF16 = Device(torch.device("cpu"), "bf16")
REQUEST = PrefixRequest("the pixels")


class Listener:
    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.n_computed = 0

    def settings(self, folder: Path, cap_gib: float = 1.0) -> CacheSettings:
        return CacheSettings(folder, cap_gib, self.sentences.append, self._count)

    def _count(self, _task: str, n_done: int, n_total: int) -> None:
        self.n_computed += n_total if n_done == n_total else 0


def opened(
    cache: CacheSettings, seed: int = 0, *, network: Network | None = None, device: Device = CPU,
    request: PrefixRequest = REQUEST,
) -> prefix_cache.CachedFaces:  # fmt: skip
    own = network or a_network(an_experiment(), seed)
    cached = open_prefix(own, small.FACES, device, cache, request)
    assert cached is not None
    return cached


def rows_of(cached: prefix_cache.CachedFaces) -> torch.Tensor:
    return cached.gather(torch.arange(small.N_FACES))


def cache_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.npy"))


@pytest.mark.parametrize(
    ("architecture", "trained", "augmentation", "features"),
    [
        pytest.param("vgg16", 1, None, "pooled", marks=pytest.mark.slow),
        pytest.param("vgg16", 0, FLIPS, "pooled", marks=pytest.mark.slow),
        ("cnn", 0, None, "flattened"),
        ("cnn", 2, None, "pooled"),
        ("cnn", 1, FLIPS, "pooled"),
    ],
)
def test_cached_training_ends_in_the_same_weights_as_live_training(
    tmp_path: Path, architecture: str, trained: int,
    augmentation: Augmentation | None, features: str,
) -> None:  # fmt: skip
    experiment, data = an_experiment(architecture, trained, augmentation, features), some_data()
    live, cached = (start(a_network(experiment), experiment.recipe, CPU) for _ in range(2))
    request = PrefixRequest("the pixels", experiment.recipe.augmentation)
    cache = CacheSettings(tmp_path)
    prefix = opened(cache, network=cached.network, request=request)
    assert len(prefix.views) == (2 if augmentation else 1)
    with_prefix = dataclasses.replace(data, prefix=prefix)
    expected = small.epochs(fit(live, data, experiment, 3, CPU))
    found = small.epochs(fit(cached, with_prefix, experiment, 3, CPU))
    assert small.same_weights(live.network, cached.network)
    assert [step.val_combined for step in found] == [step.val_combined for step in expected]


def test_prefix_and_suffix_are_the_whole_forward_pass() -> None:
    images = small.FACES.images(torch.arange(16))
    for device, features, trained in product((CPU, BF16), ("pooled", "flattened"), (0, 2)):
        network = a_network(an_experiment(trained=trained, features=features)).eval()
        with device.autocast(), torch.no_grad():
            whole, parts = network(images), network.suffix(network.prefix(images))
        assert all(torch.equal(whole[task], parts[task]) for task in whole)
        assert {logits.dtype for logits in whole.values()} == {torch.float32}


def test_what_was_computed_is_found_again_by_another_head(tmp_path: Path) -> None:
    listener = Listener()
    first = opened(listener.settings(tmp_path))
    network = a_network(an_experiment())
    wider = a_network(an_experiment(trained=2, learning_rate=1.0), seed=5)
    wider.backbone.load_state_dict(network.backbone.state_dict())
    again = opened(listener.settings(tmp_path), network=wider)
    assert (first.report["origin"], again.report["origin"]) == ("built", "found")
    assert torch.equal(rows_of(first), rows_of(again))
    assert listener.n_computed == small.N_FACES
    assert not listener.sentences


def test_other_weights_pixels_cuts_and_precisions_are_other_files(tmp_path: Path) -> None:
    cache, others = CacheSettings(tmp_path), [a_network(an_experiment()) for _ in range(2)]
    others[0].state_dict()["trunk.stages.block1.conv.weight"].add_(1e-3)
    others[1].state_dict()["trunk.stages.block1.norm.running_mean"].add_(1e-3)
    built = [
        opened(cache),
        opened(cache, request=PrefixRequest("other pixels")),
        opened(cache, device=BF16),
        opened(cache, network=a_network(an_experiment(trained=1))),
        *(opened(cache, network=network) for network in others),
    ]
    assert {cached.report["origin"] for cached in built} == {"built"}
    assert len(cache_files(tmp_path)) == 6


def test_a_flip_bank_shares_the_unchanged_view(tmp_path: Path) -> None:
    network, cache = a_network(an_experiment()), CacheSettings(tmp_path)
    plain = opened(cache, network=network)
    bank = opened(cache, network=network, request=PrefixRequest("the pixels", FLIPS))
    assert len(cache_files(tmp_path)) == 2
    chosen = torch.tensor([True, False])
    rows = bank.gather(torch.tensor([4, 9]), chosen)
    assert torch.equal(rows[1], rows_of(plain)[9])
    assert torch.equal(rows[0], network.prefix(small.FACES.images(torch.arange(64)).flip(-1))[4])


def test_a_changed_byte_or_a_missing_end_is_found_and_the_file_built_again(tmp_path: Path) -> None:
    expected = rows_of(opened(CacheSettings(tmp_path)))
    (file,) = cache_files(tmp_path)
    sidecar = file.with_suffix(".json")
    whole = {path: path.read_bytes() for path in (file, sidecar)}
    flips = [(file, place) for place in (3, 12, 40, 70, 5000, -1)]
    flips += [(sidecar, place) for place in range(0, len(whole[sidecar]), 9)]
    damages = {(path, place): _flipped(whole[path], place) for path, place in flips}
    damages |= {(path, -n): whole[path][:n] for path in whole for n in (0, 100, 127)}
    damages[file, 9000] = whole[file][:9000]
    for (path, place), content in damages.items():
        for name, intact in whole.items():
            name.write_bytes(intact)
        path.write_bytes(content)
        listener = Listener()
        again = opened(listener.settings(tmp_path))
        assert again.report["origin"] == "built" or content.split() == whole[path].split(), (
            path,
            place,
        )
        assert torch.equal(rows_of(again), expected)
        assert not listener.sentences or "damaged" in listener.sentences[0]
        del again


def _flipped(content: bytes, place: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 1
    return bytes(changed)


def test_numbers_of_another_network_under_a_right_name_are_not_believed(tmp_path: Path) -> None:
    """As after a change of code that the key does not know of: only a live pass can tell."""
    listener = Listener()
    opened(listener.settings(tmp_path))
    (file,) = cache_files(tmp_path)
    opened(CacheSettings(tmp_path / "other"), seed=9)
    (other,) = cache_files(tmp_path / "other")
    other.replace(file)
    about = json.loads(other.with_suffix(".json").read_text()) | {"key": file.stem}
    file.with_suffix(".json").write_text(json.dumps(about))
    assert opened(listener.settings(tmp_path)).report["origin"] == "built"
    assert "differ from a live forward pass" in listener.sentences[0]


def test_the_least_recently_used_file_goes_first_and_stays_with_whoever_reads_it(
    tmp_path: Path,
) -> None:
    # One file: 64 faces x 4 x 4 cells x 96 channels x 4 bytes = 393,216 bytes; two fit.
    cache = Listener().settings(tmp_path, cap_gib=800_000 / 2**30)
    held = opened(cache, seed=0)
    expected = rows_of(held)
    (first,) = cache_files(tmp_path)
    opened(cache, seed=1)
    (second,) = set(cache_files(tmp_path)) - {first}
    os.utime(first, (1, 1))
    opened(cache, seed=2)
    assert not first.exists()
    assert not first.with_suffix(".json").exists()
    assert second.exists()
    assert torch.equal(rows_of(held), expected)


def test_without_room_for_it_training_goes_on_without_a_cache(tmp_path: Path) -> None:
    network, listener = a_network(an_experiment()), Listener()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        assert open_prefix(network, small.FACES, CPU, listener.settings(tmp_path), REQUEST) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".npy", ".partial")]
    (tmp_path / "file").write_text("no folder")
    no_folder, too_large = tmp_path / "file" / "cache", listener.settings(tmp_path, cap_gib=1e-6)
    for cache in (too_large, listener.settings(no_folder)):
        assert open_prefix(network, small.FACES, CPU, cache, REQUEST) is None
    for why in (str(no_folder), "--cache-gib", "File too large"):
        sentence = listener.sentences.pop()
        assert "continues without the cache" in sentence
        assert why in sentence


def test_what_one_process_builds_the_other_waits_for(tmp_path: Path) -> None:
    opened(CacheSettings(tmp_path))
    (file,) = cache_files(tmp_path)
    content = file.read_bytes()
    file.unlink()  # its .json stays: it comes first
    listener, found = Listener(), []
    cache = listener.settings(tmp_path)
    second = threading.Thread(target=lambda: found.append(opened(cache)))
    with file_lock(tmp_path / f"{file.stem}.claim") as mine:
        assert mine
        second.start()
        time.sleep(0.2)
        assert not found
        file.write_bytes(content)
    second.join(timeout=30)
    assert found[0].report["origin"] == "found"
    assert listener.n_computed == 0


def test_rows_asked_for_alone_are_found_by_their_place_in_the_array(tmp_path: Path) -> None:
    whole = opened(CacheSettings(tmp_path))
    some = dataclasses.replace(REQUEST, rows=torch.arange(20, 60))
    part = opened(CacheSettings(tmp_path), request=some)
    wanted = torch.tensor([59, 20, 33])
    assert torch.equal(part.gather(wanted), whole.gather(wanted))
    assert len(part.views[0]) == 40


def test_stored_probabilities_come_from_exact_fp32_or_from_pictures(tmp_path: Path) -> None:
    network, rows = a_network(an_experiment()).eval(), torch.arange(40)
    live = in_fp32(network, small.FACES).probabilities(rows)
    for device in (CPU, BF16):
        prefix = opened(CacheSettings(tmp_path), network=network, device=device)
        assert prefix.is_exact_fp32 == (device is CPU)
        found = in_fp32(network, small.FACES, prefix).probabilities(rows)
        assert all((found[task] == live[task]).all() for task in live)
    # Pooled features are float32 though a bf16 backbone computed them.
    frozen = a_network(an_experiment(trained=0))
    prefix = opened(CacheSettings(tmp_path), network=frozen, device=BF16)
    assert prefix.views[0].dtype == torch.float32
    assert not prefix.is_exact_fp32


def test_a_prefix_that_does_not_repeat_itself_is_refused(tmp_path: Path) -> None:
    network, listener = a_network(an_experiment()), Listener()
    block = network.backbone.stages["block1"]
    block.register_forward_hook(lambda _block, _given, found: found + torch.rand_like(found))
    assert open_prefix(network, small.FACES, CPU, listener.settings(tmp_path), REQUEST) is None
    assert "does not repeat itself" in listener.sentences[-1]
    assert not cache_files(tmp_path)


def test_what_cannot_be_cached_is_told() -> None:
    for trained, augmentation, said in (
        ("all", FLIPS, "nothing is frozen"), (2, FLIPS, "None"),
        (2, Augmentation(flip=True, brightness=0.1), "without limit"),
    ):  # fmt: skip
        network = a_network(an_experiment(trained=trained))
        assert said in str(prefix_cache.why_live(network, augmentation))


def test_features_that_a_gpu_has_no_room_for_stay_in_main_memory_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    listener, views = Listener(), [torch.zeros(10, 100)]
    gpu = Device(torch.device("cuda"), "fp32")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (1000, 1000))
    assert prefix_cache._on_device(views, gpu, listener.settings(tmp_path)) is views
    assert "they stay in main memory" in listener.sentences[0]
