"""docs/EXPERIMENTS.md, done as it says: its Python, block by block, and its commands."""

import re
from typing import Any

import pytest
import torch

from benchmark import registry
from benchmark.models.weight_formats import layouts_of
from tests.conftest import ROOT

TEXT = (ROOT / "docs/EXPERIMENTS.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def added() -> dict[str, Any]:
    """Every name that the page's Python defines."""
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(compile(block, "docs/EXPERIMENTS.md", "exec"), names)
    return names


def test_the_experiment_is_a_definition_that_differs_as_it_says(added: dict[str, Any]) -> None:
    (experiment,) = added["EXPERIMENTS"]
    before = registry.experiment(experiment.compare_with)
    assert experiment.recipe.learning_rate == before.recipe.learning_rate / 10
    assert experiment.name not in registry.experiments()


def test_the_backbone_has_the_stages_and_parameters_that_are_said(added: dict[str, Any]) -> None:
    backbone, line = added["tiny"](), added["TINY"]
    assert tuple(backbone.stages) == line.stages
    assert backbone.architecture == line.name
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 5_088
    assert backbone(torch.zeros(2, 3, 32, 32)).shape == (2, backbone.n_features, 7, 7)


def test_the_weight_source_is_complete(added: dict[str, Any]) -> None:
    mine = added["MINE"]
    assert mine.layout in [layout.name for layout in layouts_of(mine.architecture)]
    assert len(mine.sha256) == 64
