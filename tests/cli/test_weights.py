"""`facebench weights` as a person and as a machine use it: text, JSON and exit codes."""

import json
from pathlib import Path

import pytest
import torch
from torchvision.models import squeezenet1_1
from typer.testing import CliRunner

from benchmark.cli.weights import app
from benchmark.files import sha256_of
from benchmark.models.weight_manifest import files_for
from benchmark.models.weight_store import trust
from tests.models import keras_squeezenet

runner = CliRunner()


@pytest.fixture
def h5(tmp_path: Path) -> Path:
    return keras_squeezenet.write_h5(tmp_path / "any.h5", keras_squeezenet.random_kernels())


def weights(*arguments: object) -> tuple[int, str, str]:
    result = runner.invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_list_fits_eighty_columns_but_for_addresses_and_sums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for only in ((), ("--architecture", "vgg16")):
        code, stdout, _ = weights("list", "--weights-dir", tmp_path, *only)
        lines = [line.strip() for line in stdout.splitlines()]
        assert code == 0
        assert {"vgg16 vggface", "missing", "facebench weights add FILE"} <= {
            part for line in lines for part in (line, *line.split("  "))
        }
        free = ("http", "tensors in any")
        assert max(len(line) for line in lines if not line.startswith(free)) <= 80
        assert len(lines) < 50


def test_add_says_what_it_took_of_a_checkpoint_and_what_it_left(tmp_path: Path) -> None:
    state = {f"module.{name}": value for name, value in squeezenet1_1().state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "last[0].ckpt")
    asked = ("add", tmp_path / "last[0].ckpt", "--label", "mine", "--preprocessing", "imagenet",
             "--weights-dir", tmp_path)  # fmt: skip
    code, stdout, _ = weights(*asked)
    assert code == 0
    assert "Taken: the entry 'state_dict', without the prefix 'module.'." in stdout
    assert "Left: 'epoch', classifier.1.weight, classifier.1.bias." in stdout
    assert json.loads(weights(*asked, "--json")[1])["data"]["notes"] == [
        line for line in stdout.splitlines() if line.startswith(("Taken", "Left"))
    ]


def test_list_answers_a_machine_with_one_object(tmp_path: Path) -> None:
    code, stdout, stderr = weights("list", "--weights-dir", tmp_path, "--json")
    answer = json.loads(stdout)
    assert (code, stderr, answer["ok"], answer["command"]) == (0, "", True, "weights list")
    sources = {(item["architecture"], item["source"]): item for item in answer["data"]["sources"]}
    assert len(sources) == len(answer["data"]["sources"])
    source = sources["squeezenet1_1", "imagenet"]
    assert (source["state"], source["file"]) == ("missing", None)
    assert source["published"][1]["sha256"] == "b8a52dc0"
    first, *_ = sources["vgg16", "vggface"]["published"]
    assert (first["sha256"], first["md5"], first["pinned"]) == (None, None, None)
    assert first["preprocessing"]["mean"] == [93.594, 104.7624, 129.1863]


def test_list_of_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    code, _, stderr = weights("list", "--weights-dir", tmp_path, "--architecture", "vgg61")
    assert (code, "unknown architecture 'vgg61'" in stderr) == (2, True)


def test_add_then_list_then_verify(h5: Path, tmp_path: Path) -> None:
    store = ("--data-dir", tmp_path / "data")
    code, stdout, stderr = weights("add", "--any-checksum", h5, *store)
    assert code == 0
    assert "squeezenet1_1 imagenet is here" in stdout
    assert "is not the published file" in stderr
    assert (tmp_path / "data" / "weights" / "squeezenet1_1-imagenet.safetensors").is_file()
    assert "here" in weights("list", *store)[1]
    code, stdout, _ = weights("verify", *store)
    assert (code, "squeezenet1_1-imagenet.safetensors: sound" in stdout) == (0, True)


def test_verify_finds_damage_with_exit_code_1(h5: Path, tmp_path: Path) -> None:
    weights("add", "--any-checksum", h5, "--weights-dir", tmp_path)
    stored = tmp_path / "squeezenet1_1-imagenet.safetensors"
    stored.write_bytes(stored.read_bytes()[:1000])
    code, stdout, stderr = weights("verify", "--weights-dir", tmp_path)
    assert (code, stdout) == (1, "")
    assert "is damaged" in stderr
    code, stdout, _ = weights("verify", "--weights-dir", tmp_path, "--json")
    assert (code, json.loads(stdout)["ok"]) == (1, False)


def test_verify_of_nothing_says_so(tmp_path: Path) -> None:
    code, stdout, _ = weights("verify", "--weights-dir", tmp_path)
    assert (code, "No weights in" in stdout) == (0, True)


def test_ones_own_file_is_added_under_a_label_and_listed(h5: Path, tmp_path: Path) -> None:
    store = ("--weights-dir", tmp_path / "store")
    numbers = ("--channels", "BGR", "--scale", "1/255", "--mean", "0,0,0", "--std", "1,1,1")
    code, stdout, stderr = weights(
        "add", h5, "--label", "mine", "--architecture", "squeezenet1_1", *numbers,
        "--licence", "mine alone", *store, "--json",
    )  # fmt: skip
    answer = json.loads(stdout)["data"]
    assert (code, stderr) == (0, "")
    assert answer["preprocessing"]["channels"] == "BGR"
    assert answer["preprocessing"]["scale"] == pytest.approx(1 / 255)
    assert (answer["licence"], answer["published"]) == ("mine alone", False)
    assert "squeezenet1_1 local:mine" in weights("list", *store)[1]
    code, stdout, stderr = weights("verify", *store)
    assert (code, stderr) == (0, "")
    assert "squeezenet1_1-local-mine.safetensors: sound" in stdout


def test_a_preset_in_the_other_order_keeps_each_colours_mean(h5: Path, tmp_path: Path) -> None:
    fed = ("--preprocessing", "caffe", "--channels", "RGB")
    _, stdout, _ = weights("add", h5, "--label", "a", *fed, "--weights-dir", tmp_path, "--json")
    preprocessing = json.loads(stdout)["data"]["preprocessing"]
    assert (preprocessing["channels"], preprocessing["mean"][0]) == ("RGB", 123.68)


FED = ["--label", "a", "--channels", "RGB"]
REFUSED = (
    ("nothing says how any.h5 is fed", ["--label", "a"]),
    ("allowed: imagenet, caffe, vggface, unit", ["--label", "a", "--preprocessing", "vgg"]),
    ("--channels is 'GBR'", ["--label", "a", "--channels", "GBR"]),
    ("not all of --channels, --scale, --mean", FED),
    ("numbers of its own", ["--label", "a", "--preprocessing", "unit", "--scale", "1"]),
    ("--scale is '1/0'", [*FED, "--scale", "1/0", "--mean", "0,0,0", "--std", "1,1,1"]),
    ("--mean is '0,0'", [*FED, "--scale", "1", "--mean", "0,0", "--std", "1,1,1"]),
    ("three std above 0", [*FED, "--scale", "1", "--mean", "0,0,0", "--std", "1,0,1"]),
    ("the label is 'a b'", ["--label", "a b", "--preprocessing", "unit"]),
    ("--preprocessing without --label", ["--preprocessing", "unit"]),
    ("--any-checksum with --label", ["--label", "a", "--any-checksum"]),
    ("no published file is known for cnn", ["--architecture", "cnn"]),
    ("any.h5 holds tensors of no known layout", ["--architecture", "vgg16"]),
    ("was published as BGR", ["--any-checksum", "--channels", "RGB"]),
    ("has the layout of a known file but", []),
)


def test_what_is_not_clear_is_one_sentence_and_nothing_is_kept(h5: Path, tmp_path: Path) -> None:
    for said, arguments in REFUSED:
        code, stdout, stderr = weights("add", h5, *arguments, "--weights-dir", tmp_path / "store")
        assert (code, stdout) == (2, ""), arguments
        assert stderr.startswith("Error: "), arguments
        assert said in stderr, arguments
        assert not (tmp_path / "store").exists(), arguments
    code, stdout, _ = weights("add", tmp_path / "no.h5", "--weights-dir", tmp_path, "--json")
    assert (code, json.loads(stdout)["ok"]) == (2, False)


def test_what_is_trusted_is_said(h5: Path, tmp_path: Path) -> None:
    """torchvision publishes eight digits of a sum: the rest is trusted."""
    torchvision = files_for("squeezenet1_1", "imagenet")[1]
    trust(torchvision, f"b8a52dc0{sha256_of(h5)[8:]}", tmp_path)
    _, stdout, _ = weights("list", "--architecture", "squeezenet1_1", "--weights-dir", tmp_path)
    assert "sha256 begins b8a52dc0; trusted since 20" in stdout
    _, stdout, _ = weights("list", "--weights-dir", tmp_path, "--json")
    states = json.loads(stdout)["data"]["sources"]
    (state,) = [state for state in states if state["architecture"] == "squeezenet1_1"]
    assert state["published"][1]["pinned"]["sha256"].startswith("b8a52dc0")
