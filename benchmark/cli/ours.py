"""Which of our own runs stand beside the study's numbers in `facebench list`."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.errors import DataError, RunError
from benchmark.experiment.definition import Experiment
from benchmark.tasks import TaskName

if TYPE_CHECKING:
    from benchmark.comparison.rows import Run
    from benchmark.comparison.run_groups import MeanAccuracy, MeasuredOn
    from benchmark.data.dataset import FaceSet


@dataclass(frozen=True)
class Ours:
    """Mean test accuracies by experiment and task, and the faces they were measured on."""

    faces: "MeasuredOn | None" = None
    """None where nothing was measured."""
    drawn: bool = False
    accuracies: "dict[str, dict[TaskName, MeanAccuracy]]" = field(default_factory=dict)
    leaky: "dict[str, dict[TaskName, MeanAccuracy]]" = field(default_factory=dict)
    """The same of runs on a leaking split, kept apart: shown under LEAKY or not at all."""
    notes: tuple[str, ...] = ()


def gather(
    experiments: Sequence[Experiment], asked: str | None, *, runs_dir: Path, data_dir: Path
) -> Ours:
    """Read the runs on one data set: `asked`, or the only photographed one.

    Raises RunError where `asked` is neither prepared nor in any run.
    """
    runs = _runs(runs_dir)
    if not runs and asked is None:
        return Ours()
    from benchmark.comparison.run_groups import MeasuredOn, measured, replayed, usual_faces
    from benchmark.data.dataset import prepared_datasets

    notes: list[str] = []
    prepared: list[FaceSet] = []
    try:
        prepared = prepared_datasets(data_dir)
    except DataError as error:
        notes.append(str(error))
    name = _chosen(runs, prepared, asked, notes)
    if name is None:
        return Ours(notes=tuple(notes))
    drawn = any(run.setting.drawn for run in runs if run.setting.dataset == name)
    # Where the data set is at hand, only runs on its very pixels and split are of it.
    at_hand = [item for item in prepared if item.name == name]
    faces = (
        MeasuredOn(name, at_hand[0].pixel_digest, at_hand[0].split_digest)
        if at_hand
        else usual_faces(runs, name)
    )
    accuracies = measured(runs, experiments, faces) if faces else {}
    leaky = replayed(runs, experiments, name)
    return Ours(faces if accuracies else None, drawn, accuracies, leaky, tuple(notes))


def _runs(runs_dir: Path) -> "list[Run]":
    """Read what can be read; the leaderboard says what cannot, and why."""
    # Looked at before anything is imported: without runs, listing must stay quick.
    if not any((runs_dir / "work").glob("*/experiment.json")):
        return []
    from benchmark.comparison.rows import read_run
    from benchmark.record import all_records

    runs = []
    for record in all_records(runs_dir):
        with contextlib.suppress(RunError):
            runs.append(read_run(record))
    return runs


def _chosen(
    runs: "Sequence[Run]", prepared: "Sequence[FaceSet]", asked: str | None, notes: list[str]
) -> str | None:
    """Name the data set to show; a note says why there is none."""
    drawn = {run.setting.dataset: run.setting.drawn for run in runs}
    known = sorted({*drawn, *(faces.name for faces in prepared)})
    if asked is not None:
        # `drawn` stands for drawn-v1, as `utkface` does for utkface-100, where there is but one.
        named = [name for name in known if name == asked or name.startswith(f"{asked}-")]
        if asked not in named and len(named) != 1:
            raise RunError(
                f"no data set and no run is called {asked!r}",
                allowed=", ".join(known) or "none: nothing is prepared, and nothing was run",
            )
        return asked if asked in named else named[0]
    photographed = sorted(name for name in drawn if not drawn[name])
    if len(photographed) > 1:
        at_hand = [name for name in photographed if name in {faces.name for faces in prepared}]
        photographed = at_hand if len(at_hand) == 1 else photographed
    if len(photographed) > 1:
        notes.append(f"runs are on {', '.join(photographed)}; --dataset shows one of them")
    if not photographed:
        notes.append(f"runs on drawn faces are not shown; --dataset {known[0]} shows them")
    return photographed[0] if len(photographed) == 1 else None
