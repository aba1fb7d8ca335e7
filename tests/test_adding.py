"""docs/EXPERIMENTS.md, done as it says: its Python, block by block."""

import re
from typing import Any

import torch

from benchmark import registry
from benchmark.models.weight_formats import layouts_of
from tests.conftest import ROOT


def test_what_the_page_adds_is_what_it_says() -> None:
    text = (ROOT / "docs/EXPERIMENTS.md").read_text(encoding="utf-8")
    added: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "docs/EXPERIMENTS.md", "exec"), added)

    (experiment,) = added["EXPERIMENTS"]
    before = registry.experiment(experiment.compare_with)
    assert experiment.recipe.learning_rate == before.recipe.learning_rate / 10
    assert experiment.name not in registry.experiments()

    backbone, line = added["tiny"](), added["TINY"]
    assert tuple(backbone.stages) == line.stages
    assert backbone.architecture == line.name
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 5_088
    assert backbone(torch.zeros(2, 3, 32, 32)).shape == (2, backbone.n_features, 7, 7)

    mine = added["MINE"]
    assert mine.layout in [layout.name for layout in layouts_of(mine.architecture)]
    assert len(mine.sha256) == 64
