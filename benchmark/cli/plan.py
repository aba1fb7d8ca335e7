"""What runs would do and take, as `run --dry-run` and `plan` print it."""

import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.cli.output import CommandResult, busy, duration, out, print_table
from benchmark.errors import WeightsMissing
from benchmark.experiment.definition import Experiment
from benchmark.reporting.tables import Column, Table

if TYPE_CHECKING:
    from benchmark.data.dataset import FaceSet
    from benchmark.runs.forecast import Forecast
    from benchmark.runs.plan import Settings

OUTLOOKS = {
    "run": "would run", "resume": "would resume", "up to date": "up to date",
    "held": "running in another process",
}  # fmt: skip
RUN_BYTES = 2 * 2**20
"""Of a run's files beside its network, at most."""


def not_run_lines(missing: Iterable[tuple[Experiment, WeightsMissing]]) -> list[str]:
    """Say in one line for each missing weight source how many experiments need it."""
    names: dict[str, set[str]] = {}
    for experiment, error in missing:
        names.setdefault(f"{error.found}. {error.fix}", set()).add(experiment.name)
    return [
        f"{f'{len(of)} experiments' if len(of) > 1 else min(of)} not run: {why}"
        for why, of in names.items()
    ]


def show_plan(
    answer: CommandResult, experiments: list[Experiment], seeds: tuple[int, ...], faces: "FaceSet",
    settings: "Settings", *, n_workers: int = 1, kind: str | None = None,
    image: Path | None = None,
) -> None:  # fmt: skip
    """List what would run, what is up to date, what would be downloaded, time and disk."""
    import torch

    from benchmark.runs.forecast import arrange, forecast_all

    with busy("predicting time"):
        forecasts = forecast_all(experiments, seeds, faces, settings, kind=kind)
        found = arrange(forecasts, n_workers)
    ahead = [item for item in found if item.worker is not None]
    seconds, n_bytes = sum(item.seconds for item in ahead), sum(item.n_bytes for item in ahead)
    wall = max((item.end for item in ahead), default=0.0)
    hours = sum(item.end - item.start for item in ahead) / 3600
    caches = sum({i.build.key: i.build.n_bytes for i in ahead if i.build}.values())
    if settings.cache is not None:
        caches = min(caches, int(settings.cache.cap_gib * 2**30))
    disk = n_bytes + len(ahead) * RUN_BYTES + caches
    near = next(path for path in (settings.runs_dir, *settings.runs_dir.resolve().parents)
                if path.exists())  # fmt: skip
    free = shutil.disk_usage(near).free
    fetch = sorted({item.fetch for item in ahead if item.fetch})
    # The run that takes longest with its caches: no number of workers is faster.
    critical = max(ahead, key=lambda item: item.alone_seconds, default=None)
    answer.warnings.extend(not_run_lines((i.experiment, i.error) for i in found if i.error))
    answer.data = {
        "dataset": faces.name, "dry_run": True, "workers": n_workers,
        "runs": list(map(_row, found)), "seconds": round(seconds, 3),
        "wall_seconds": round(wall, 3), "worker_hours": round(hours, 4),
        "bytes": n_bytes, "disk_bytes": disk, "free_bytes": free,
        "fetch": fetch, "critical_path": critical and {
            "experiment": critical.experiment.name, "seed": critical.seed,
            "seconds": round(critical.alone_seconds, 3),
        },
    }  # fmt: skip
    if image is not None and ahead:
        from benchmark.evaluation.figures import schedule_figure

        bars = []
        for item in ahead:
            backbone = item.experiment.backbone
            group = f"{backbone.architecture} {backbone.depth_name}"
            bars.append((item.worker or 0, item.start, item.trains_at, item.end, group))
        title = f"{len(ahead)} runs on {n_workers} at once: {duration(wall)}"
        schedule_figure(bars, title).savefig(image)
    rows = [
        (row["experiment"], str(row["seed"]), OUTLOOKS[row["outcome"]],
         duration(row["wall_seconds"]) if "end" in row else "",
         row["rests_on"] if "end" in row else "")
        for row in answer.data["runs"] if row["outcome"] in OUTLOOKS
    ]  # fmt: skip
    if rows:
        left = Column("predicted from", left=True)
        print_table(Table.of(["experiment", "seed", "outcome", "about", left], rows))
    used = f"{hours:.2g} GPU hours" if kind else f"{hours * torch.get_num_threads():.2g} core hours"
    lines = [
        f"{len(ahead)} of {len(found)} would run, about {duration(wall)} with {n_workers} at "
        f"once, {used}, {duration(seconds)} of it training; {disk / 2**20:,.0f} MiB of "
        f"{free / 2**30:,.0f} GiB free."
    ]
    if critical is not None:
        enough = math.ceil(3600 * hours / critical.alone_seconds)
        lines.append(
            f"Critical path: {critical.experiment.name}, {duration(critical.alone_seconds)} with "
            f"its caches; more than {enough} at once save nothing."
        )
    lines += [f"Weights to download first: {', '.join(fetch)}"] if fetch else []
    out.print("\n".join(lines), soft_wrap=True)


def _row(item: "Forecast") -> dict[str, Any]:
    row = {
        "experiment": item.experiment.name, "seed": item.seed, "outcome": item.outlook,
        "seconds": round(item.seconds, 3), "fetch": item.fetch, "rests_on": item.basis,
    }  # fmt: skip
    if item.worker is not None:
        times = {"start": item.start, "end": item.end, "wall_seconds": item.end - item.start}
        row |= {"worker": item.worker, **{name: round(s, 3) for name, s in times.items()}}
    return row | ({"why": str(item.error)} if item.error else {})
