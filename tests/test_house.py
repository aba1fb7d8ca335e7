"""What a house keeps beside its code: a citation, hooks before a commit."""

import re
import tomllib
from typing import Any

import pytest

from benchmark import __version__
from tests.conftest import ROOT

yaml = pytest.importorskip("yaml")


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_citation_names_this_version_and_licence() -> None:
    citation = read("CITATION.cff")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == __version__ == project["version"]
    assert citation["license"] == project["license"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


def test_hooks_call_the_tools_of_make_check() -> None:
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    entries = " ".join(hook["entry"] for hook in repository["hooks"])
    checks = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert checks
    for line in checks[1].splitlines():
        tool = line.strip().removeprefix("$(BIN)/").removesuffix(" .")
        assert tool in entries


@pytest.mark.parametrize(
    ("path", "refused"),
    [("data/face.JPG", True), ("a/model.safetensors", True), ("docs/pictures/drawn.png", False)],
)
def test_pictures_and_weights_are_kept_out_of_commits(path: str, refused: bool) -> None:
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    hook = next(hook for hook in repository["hooks"] if hook["id"] == "no-faces")
    caught = re.search(hook["files"], path) and not re.search(hook["exclude"], path)
    assert bool(caught) is refused
