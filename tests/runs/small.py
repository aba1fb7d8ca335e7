"""What tests of runs share: a tiny experiment, settings without MLflow, a run to its end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark.data.batches import FaceBatches
from benchmark.data.dataset import FaceSet
from benchmark.experiment.definition import Backbone, Experiment, Head, Recipe
from benchmark.files import write_json
from benchmark.record import RunRecord
from benchmark.runs.plan import Plan, Settings, plan_run
from benchmark.runs.run import Finished, Started, run
from tests.training.small import CPU


def an_experiment(
    name: str = "mtl-cnn-none-full-tiny", backbone: Backbone | None = None, **recipe: Any
) -> Experiment:
    return Experiment(
        name=name,
        asks="Does the whole way work?",
        backbone=backbone or Backbone("cnn", input_px=32),
        head=Head(hidden_units=16),
        recipe=Recipe(**({"learning_rate": 1e-3, "max_epochs": 2} | recipe)),
    )


def settings(runs_dir: Path, **changes: Any) -> Settings:
    fields = {"runs_dir": runs_dir, "weights_dir": runs_dir / "weights", "device": CPU}
    return Settings(**(fields | {"offline": True} | changes))


def on_cpu(faces: FaceSet) -> FaceBatches:
    return FaceBatches.on_device(faces.pixels(), faces.table, CPU.torch_device)


def a_plan(faces: FaceSet, where: Settings, experiment: Experiment | None = None) -> Plan:
    return plan_run(experiment or an_experiment(), 0, faces, where)


def done_run(faces: FaceSet, where: Settings, experiment: Experiment | None = None) -> RunRecord:
    plan = a_plan(faces, where, experiment)
    events = list(run(plan, on_cpu(faces), where))
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    return plan.record


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file of a run's folder in place."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    write_json(path, content)
