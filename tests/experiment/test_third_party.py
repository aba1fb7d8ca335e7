"""Definitions from outside the project: the very examples of CONTRIBUTING.md, installed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

EXAMPLES = re.findall(
    r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL
)


def install(folder: Path, name: str, module: str) -> None:
    """Lay a package with one definition module into `folder`, as pip would."""
    package = folder / name
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "experiments.py").write_text(module)
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        f"[facebench.experiments]\n{name} = {name}.experiments\n"
    )


def facebench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command where the packages in `folder` are installed, outside the project."""
    path = os.pathsep.join([str(folder), str(ROOT)])
    code = "from benchmark.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": path}, check=False,
    )  # fmt: skip


def listed(folder: Path) -> dict[str, Any]:
    answer = facebench(folder, "list", "--json")
    assert answer.returncode == 0, answer.stderr
    content: dict[str, Any] = json.loads(answer.stdout)
    return content


@pytest.mark.slow
def test_the_documented_ten_lines_add_experiments(tmp_path: Path) -> None:
    install(tmp_path, "my_gates", EXAMPLES[0])
    install(tmp_path, "my_faces", EXAMPLES[1])
    # Packages may build on each other in any order.
    suite = "Suite('gates', 'Do gates help?', ('mtl-vgg19-imagenet-block5-gate',))"
    install(tmp_path, "earlier", f"from benchmark.experiment import Suite\nSUITES = ({suite},)\n")
    answer = listed(tmp_path)
    assert answer["warnings"] == []
    assert "gates" in {item["name"] for item in answer["data"]["suites"]}
    names = {item["name"] for item in answer["data"]["experiments"]}
    assert {"mtl-vgg19-imagenet-block5-gate", "mtl-resnet18-imagenet-full"} <= names


BROKEN = {
    "imports": ("import nothing_of_the_kind\n", "No module named 'nothing_of_the_kind'"),
    "syntax": ("def broken(:\n", "SyntaxError"),
    "empty": ("X = 1\n", "empty.experiments defines nothing"),
    "wrong_type": ("EXPERIMENTS = ('mtl-cnn-none-full',)\n", "allowed: a tuple of Experiment"),
    "contradicts": ("from benchmark.experiment import Backbone\nBackbone('cnn', 'imagenet')\n",
                    "cnn has no 'imagenet' weights"),
    "clashes": ("from experiments.vgg16 import FULL\nEXPERIMENTS = (FULL,)\n",
                "experiments.vgg16 and clashes.experiments"),
}  # fmt: skip
"""Definition modules that cannot be used, and what is said of each."""


def test_broken_packages_are_refused_by_name_and_hide_nothing(tmp_path: Path) -> None:
    for name, (module, _) in BROKEN.items():
        install(tmp_path, name, module)
    install(tmp_path, "sound", EXAMPLES[0])
    answer = listed(tmp_path)
    assert len(answer["warnings"]) == len(BROKEN)
    for name, (_, reason) in BROKEN.items():
        where = f"entry point '{name}' ({name}.experiments)"
        (warning,) = [text for text in answer["warnings"] if where in text]
        assert reason in warning
    names = {item["name"] for item in answer["data"]["experiments"]}
    assert {"mtl-vgg16-imagenet-full", "mtl-vgg19-imagenet-block5-gate"} <= names
    unknown = facebench(tmp_path, "show", "mtl-vgg19-imagenet-block6-gate")
    assert unknown.returncode == 2
    assert "which installed package was refused" in " ".join(unknown.stderr.split())
