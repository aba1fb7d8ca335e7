"""What tests of runs share: a tiny experiment, settings without MLflow, a run to its end."""

import json
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.data.batches import FaceBatches
from benchmark.data.dataset import FaceSet
from benchmark.experiment.definition import Backbone, Experiment, Head, Recipe
from benchmark.files import write_json
from benchmark.record import RunRecord
from benchmark.runs.plan import Plan, Settings, plan_run
from benchmark.runs.run import Event, Finished, Started, run, run_all
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


@dataclass(frozen=True)
class Place:
    """Synthetic faces, and a folder where they are run; settings are as `settings` has them."""

    faces: FaceSet
    runs_dir: Path

    def plan(self, experiment: Experiment | None = None, **changes: Any) -> Plan:
        where = settings(self.runs_dir, **changes)
        return plan_run(experiment or an_experiment(), 0, self.faces, where)

    def run(self, plan: Plan, **changes: Any) -> Generator[Event]:
        return run(plan, on_cpu(self.faces), settings(self.runs_dir, **changes))

    def run_all(self, *experiments: Experiment, **changes: Any) -> list[Event]:
        return list(run_all(experiments, [0], self.faces, settings(self.runs_dir, **changes)))

    def done(self, experiment: Experiment | None = None, **changes: Any) -> RunRecord:
        plan = self.plan(experiment, **changes)
        events = list(self.run(plan, **changes))
        assert isinstance(events[0], Started)
        assert isinstance(events[-1], Finished)
        return plan.record


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file of a run's folder in place."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    write_json(path, content)
