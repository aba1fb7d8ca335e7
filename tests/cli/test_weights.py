"""`facebench weights` as a person and as a machine use it: text, JSON and exit codes."""

import functools
import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from benchmark.files import sha256_of
from benchmark.models.backbone import build_backbone
from benchmark.models.weight_manifest import files_for
from tests.cli.conftest import answered_json, outcome
from tests.models import keras


@pytest.fixture
def h5(tmp_path: Path) -> Path:
    return keras.write_h5(tmp_path / "any.h5", keras.squeezenet_kernels())


weights = functools.partial(outcome, "weights")


def test_list_shows_sources_to_a_person_and_a_machine(tmp_path: Path) -> None:
    store = ("list", "--weights-dir", tmp_path)
    code, stdout, _ = weights(*store, "--architecture", "vgg16")
    lines = {line.strip() for line in stdout.splitlines()}
    assert {"facebench weights add FILE", files_for("vgg16", "vggface")[0].url} <= lines
    found = answered_json("weights", *store)["sources"]
    sources = {(item["architecture"], item["source"]): item for item in found}
    source = sources["squeezenet1_1", "imagenet"]
    assert (source["state"], source["file"]) == ("missing", None)
    assert source["published"][0]["tensors_sha256"]
    first, *_ = sources["vgg16", "vggface"]["published"]
    assert (first["sha256"], first["md5"], first["pinned"]) == (None, None, None)
    assert first["preprocessing"]["mean"] == [93.594, 104.7624, 129.1863]
    code, _, stderr = weights(*store, "--architecture", "vgg61")
    assert (code, "unknown architecture 'vgg61'" in stderr) == (2, True)


def test_what_is_added_is_listed_and_verified_until_it_is_damaged(h5: Path, tmp_path: Path) -> None:
    store = ("--weights-dir", tmp_path / "store")
    code, stdout, _ = weights("verify", *store)
    assert (code, "No weights in" in stdout) == (0, True)
    code, stdout, stderr = weights("add", "--any-checksum", h5, *store)
    assert (code, "squeezenet1_1 imagenet is here" in stdout) == (0, True)
    assert "is not the published file" in stderr
    fed = {"channels": "BGR", "scale": 1 / 255, "mean": [0, 0, 0], "std": [1, 1, 1]}
    own = ("weights", "add", h5, "--label", "mine", "--architecture", "squeezenet1_1", *store)
    added = answered_json(*own, "--preprocessing", json.dumps(fed))
    assert added["preprocessing"] == fed | {"scale": pytest.approx(1 / 255)}
    assert (added["published"], added["licence"]) == (False, "not stated")
    # Keras pools with floor, whoever trained the file.
    assert added["options"] == {"pooling": "floor"}
    code, stdout, _ = weights("list", *store)
    assert (code, "squeezenet1_1 local:mine" in stdout) == (0, True)
    stored = tmp_path / "store" / "squeezenet1_1-imagenet.safetensors"
    code, stdout, stderr = weights("verify", *store)
    assert (code, stdout.count("squeezenet1_1"), stdout.count(" here ")) == (0, 2, 2)
    assert stderr.count("is not from the published file") == 1
    stored.write_bytes(stored.read_bytes()[:1000])
    for command, shown in (("list", "damaged"), ("verify", "squeezenet1_1 local:mine")):
        code, stdout, stderr = weights(command, *store)
        assert (code, shown in stdout, f"{stored.name} is damaged" in stderr) == (1, True, True)


def test_what_was_taken_and_what_is_trusted_is_told(tmp_path: Path) -> None:
    (known,) = files_for("mobilenetv4_conv_small", "imagenet")
    file = tmp_path / "made" / known.file_name
    file.parent.mkdir()
    state, wrapped = timm.create_model(known.architecture).state_dict(), tmp_path / "last[0].ckpt"
    torch.save({"state_dict": state, "epoch": 3}, wrapped)
    code, stdout, _ = weights("add", wrapped, *FED, "unit", "--weights-dir", tmp_path / "own")
    assert (code, "from last[0].ckpt, " in stdout) == (0, True)
    assert "\nTaken: the entry 'state_dict'.\nLeft: 'epoch', classifier." in stdout
    save_file(state, file)
    code, _, stderr = weights("add", file, "--weights-dir", tmp_path)
    assert (code, "trusted from now on" in stderr) == (0, True)
    only = ("--architecture", known.architecture, "--weights-dir", tmp_path)
    (source,) = answered_json("weights", "list", *only)["sources"]
    assert source["published"][0]["pinned"]["sha256"] == sha256_of(file)
    for content, said in (("{", "pins.json cannot be read"), ('{"schema": 2}', "schema is 2")):
        (tmp_path / "pins.json").write_text(content)
        code, _, stderr = weights("verify", "--weights-dir", tmp_path)
        assert (code, said in stderr) == (2, True)


FED = ["--label", "a", "--preprocessing"]
REFUSED = (
    ("any.h5 does not say how it is fed", FED[:2]),
    ("--preprocessing is 'vgg'", [*FED, "vgg"]),
    ("--preprocessing is '[1]'", [*FED, "[1]"]),
    ("cannot be read ('scale')", [*FED, '{"mean": [1,1,1], "std": [1,1,1], "channels": "RGB"}']),
    *((f"the label is {label!r}", ["--label", label, "--preprocessing", "unit"])
      for label in ("", "My weights", "a:b", "../x")),
    ("any.h5 holds tensors of no known layout", ["--architecture", "vgg16"]),
    ("has the layout keras of squeezenet1_1 but", []),
)  # fmt: skip


def test_what_is_not_clear_is_one_sentence_and_nothing_is_kept(h5: Path, tmp_path: Path) -> None:
    assert weights("add", h5, "--any-checksum", "--weights-dir", tmp_path)[0] == 0
    stored, bare = tmp_path / "squeezenet1_1-imagenet.safetensors", tmp_path / "any.pth"
    torch.save(build_backbone("squeezenet1_1", pooling="ceil").state_dict(), bare)
    refused = [(said, [h5, *arguments]) for said, arguments in REFUSED]
    refused += [("was written by facebench", [stored, *FED, "unit"])]
    refused += [("pooling: floor or ceil", [bare, *FED, "unit"])]
    for said, arguments in refused:
        code, stdout, stderr = weights("add", *arguments, "--weights-dir", tmp_path / "store")
        assert (code, stdout, said in stderr) == (2, "", True), arguments
        assert stderr.startswith("Error: "), arguments
        assert not (tmp_path / "store").exists(), arguments
