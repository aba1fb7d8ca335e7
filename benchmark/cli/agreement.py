"""`facebench speed --agreement`: whether the fast ways end where the plain ones do."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from benchmark import registry
from benchmark.cli.output import Answer, ExitCode, err, out, progress_bar
from benchmark.errors import RunError
from benchmark.experiment import Experiment
from benchmark.files import write_json

if TYPE_CHECKING:
    from benchmark.faces.store import FaceSet
    from benchmark.models.weights import LoadedWeights
    from benchmark.speed.agreement import Agreement
    from benchmark.training.device import Device

DEFAULT_EXPERIMENT = "mtl-squeezenet1_1-imagenet-fire6_9-short"
"""Partly frozen, from weights that anyone may fetch; quick enough for three seeds on a CPU."""


def chosen(name: str, epochs: int | None) -> Experiment:
    """Give the experiment, shorter where it is asked for."""
    experiment = registry.experiment(name)
    return experiment if epochs is None else experiment.adjusted({"recipe.max_epochs": epochs})


def agreement(
    answer: Answer,
    experiment: Experiment,
    seeds: tuple[int, ...],
    faces: "FaceSet",
    device: "Device",
    places: tuple[Path, Path],
    *,
    compiled: bool,
    quiet: bool,
    as_json: bool,
) -> ExitCode:
    """Train all pairs, print and write the table; places: of weights, and where files go.

    compiled: compare what torch.compile makes of a step, too. A difference whose interval leaves 0
    out is a finding.
    """
    from benchmark.speed.agreement import Agreement, agreements, as_data, meetings_for

    weights_dir, folder = places
    loaded = _weights(experiment, weights_dir)
    found: list[Agreement] = []
    meetings = meetings_for(device, compiled=compiled)
    manners = {side.unnamed for meeting in meetings for side in (meeting.plain, meeting.fast)}
    n_trainings = len(manners) * len(seeds)
    with progress_bar(quiet=quiet or as_json) as progress:
        bar = progress.add_task("epochs", total=n_trainings * experiment.recipe.max_epochs)
        for event in agreements(experiment, loaded, seeds, faces, meetings):
            if isinstance(event, Agreement):
                found.append(event)
            else:
                progress.advance(bar)
    data: dict[str, Any] = {
        "experiment": experiment.name,
        "epochs": experiment.recipe.max_epochs,
        "dataset": faces.name,
        "drawn": faces.drawn,
        "device": device.description,
        "pairs": [as_data(one) for one in found],
    }
    path = folder / "agreement.json"
    try:
        write_json(path, data)
    except OSError as error:
        raise RunError(
            f"{path} cannot be written: {error.strerror or error}",
            fix="Choose another folder with --out",
        ) from error
    answer.data = data | {"files": [str(path)]}
    if not as_json:
        _print(data, found)
    if not (quiet or as_json):
        err.print(f"\nWritten: {path}", soft_wrap=True)
    return ExitCode.FINE if all(one.agrees for one in found) else ExitCode.FINDINGS


def _weights(experiment: Experiment, weights_dir: Path) -> "LoadedWeights | None":
    from benchmark.models import weights as weight_files

    backbone = experiment.backbone
    if backbone.weights == "none":
        return None
    return weight_files.load(
        weight_files.resolve(backbone.architecture, backbone.weights, weights_dir, offline=True)
    )


def _print(data: dict[str, Any], found: "list[Agreement]") -> None:
    from benchmark.speed.agreement import HEADS, cells_of

    drawn = "DRAWN FACES · " if data["drawn"] else ""
    out.print(
        f"[bold]{drawn}Does speed change numbers?[/] {data['experiment']}, {data['epochs']} "
        f"epochs, {found[0].n_seeds} seeds, on {data['device']}",
        soft_wrap=True,
    )
    out.print()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, head in enumerate(HEADS):
        table.add_column(head, justify="right" if place > 1 else "left")
    for one in found:
        for cells in cells_of(one):
            table.add_row(*cells)
    out.print(table)
    out.print(
        f"\n{data['dataset']}: accuracy on {found[0].n_faces:,} validation faces. Differences are "
        "paired face by face and averaged over seeds; the interval is a bootstrap over clusters. "
        "The cache is compared in deterministic fp32."
    )
