"""`facebench doctor`: what this machine has, and what to do about each gap."""

import shutil
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmark import record
from benchmark.cli.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_RUNS_DIR,
    AsJson,
    DataDir,
    RunsDir,
    WeightsDir,
)
from benchmark.cli.output import busy, out, speaking

LOW_DISK_GIB = 5


def doctor(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    weights_dir: WeightsDir = None,
    as_json: AsJson = False,
) -> None:
    """Say what this machine has: device, data, weights, disk, packages.

    Examples:
      facebench doctor
    """
    with speaking("doctor", as_json=as_json) as answer:
        with busy("looking", quiet=as_json):
            rows = [
                _device_row(),
                _data_row(data_dir),
                _weights_row(weights_dir or data_dir / "weights"),
                _disk_row(runs_dir),
                _packages_row(),
            ]
        answer.data = rows
        if as_json:
            return
        table = Table(title="This machine", title_justify="left", show_lines=True)
        for column in ("what", "found", "to do"):
            table.add_column(column)
        for row in rows:
            table.add_row(row["what"], row["found"], row["fix"] or "nothing")
        out.print(table)


def _row(what: str, found: str, fix: str = "") -> dict[str, Any]:
    return {"what": what, "found": found, "fix": fix}


def _device_row() -> dict[str, Any]:
    from benchmark.training.device import choose_device

    device = choose_device()
    fix = "" if device.kind == "cuda" else "A CUDA GPU trains faster; the quick suite does without"
    return _row("device", f"{device.kind}: {device.description}, {device.precision}", fix)


def _data_row(data_dir: Path) -> dict[str, Any]:
    from benchmark.data.dataset import prepared_datasets

    names = [faces.name for faces in prepared_datasets(data_dir)]
    fix = "" if names else "facebench data prepare SOURCE; until then faces are drawn"
    return _row("data", ", ".join(names) or "no prepared data set", fix)


def _weights_row(weights_dir: Path) -> dict[str, Any]:
    files = sorted(path.stem for path in weights_dir.glob("*.safetensors"))
    fix = "" if files else "facebench weights list says where to get them"
    return _row("weights", ", ".join(files) or "none", fix)


def _disk_row(runs_dir: Path) -> dict[str, Any]:
    place = next(folder for folder in (runs_dir.resolve(), *runs_dir.resolve().parents)
                 if folder.exists())  # fmt: skip
    free_gib = shutil.disk_usage(place).free / 2**30
    fix = "" if free_gib >= LOW_DISK_GIB else f"Free some space: under {LOW_DISK_GIB} GiB are left"
    return _row("disk", f"{free_gib:.0f} GiB free for runs", fix)


def _packages_row() -> dict[str, Any]:
    found = record.versions()
    missing = [name for name in record.NAMED_PACKAGES if name not in found]
    shown = ", ".join(f"{name} {number}" for name, number in found.items())
    return _row("packages", shown, f"Install {', '.join(missing)}" if missing else "")
