"""The command line as a process of its own, to be watched, limited and killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.files import sha256_of
from benchmark.record import RunRecord, all_records
from tests.torture.rows import Room

ROOT = Path(__file__).resolve().parents[2]
ENTRY = "import sys; sys.argv[0] = 'facebench'; from benchmark.cli.main import main; main()"
PATIENCE_SECONDS = 1800
"""For a machine that is busy with other work; no command here computes for a minute."""
EXPERIMENTS = (
    "mtl-cnn-none-full-short",
    "gender-cnn-none-full-short",
    "mtl-squeezenet1_1-none-frozen-short",
)
"""A network that is trained for three tasks, one for a single task, one with cached features."""
SMALL = ("--set", "backbone.input_px=32", "--set", "recipe.batch_size=32", "--read-test")


def environment(**more: str) -> dict[str, str]:
    """Give the environment of a child: one thread, our code, and nobody's MLflow server."""
    kept = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    # A child that is killed must not leave bytecode half written beside the sources.
    ours = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return kept | ours | more


def run_arguments(
    room: Room, runs_dir: Path, names: Sequence[str] = EXPERIMENTS, *, epochs: int = 3,
    tracking: str = "mlflow",
) -> list[str]:  # fmt: skip
    """Spell `facebench run` on small drawn faces, in deterministic mode."""
    return [
        "run", *names, *SMALL, "--set", f"recipe.max_epochs={epochs}", "--deterministic",
        "--device", "cpu", "--offline", "--tracking", tracking,
        "--data-dir", str(room.data_dir), "--cache-dir", str(runs_dir / "cache"),
        "--runs-dir", str(runs_dir),
    ]  # fmt: skip


def start(
    arguments: Sequence[str], *, env: Mapping[str, str] | None = None, entry: str = ENTRY,
    **options: Any,
) -> subprocess.Popen[str]:  # fmt: skip
    """Start the command line in a process."""
    return subprocess.Popen(
        [sys.executable, "-c", entry, *arguments],
        env=dict(env or environment()),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def is_clear(self) -> bool:
        """Whether it spoke in sentences."""
        return "Traceback" not in self.out + self.err

    def tail(self) -> str:
        """Give the end of what it said, for a line of ours."""
        return f"exit {self.code}: " + " ".join((self.err or self.out).split())[-300:]


def run(arguments: Sequence[str], **options: Any) -> Said:
    """Run the command line to its end."""
    started = time.monotonic()
    return said(start(arguments, **options), started)


def said(process: subprocess.Popen[str], started: float) -> Said:
    """Wait for a process to end."""
    try:
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        kill(process)
        raise
    return Said(process.returncode, out, err, time.monotonic() - started)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> bool:
    """Wait until something is so, or the process has ended; tell whether it is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a process of ours as the kernel does when memory runs out: it hears nothing of it."""
    process.send_signal(signal.SIGKILL)
    process.communicate()


def outcome_of(record: RunRecord) -> dict[str, Any]:
    """Give what must be equal in two deterministic runs: weights, predictions, numbers."""
    metrics = {name: value for name, value in record.metrics.items() if "cost/" not in name}
    times = ["epoch_seconds", "images_per_second"]
    return {
        "weights": sha256_of(record.folder / "model.safetensors"),
        "predictions": sha256_of(record.predictions_path),
        "metrics": metrics,
        "history": record.history().drop(columns=times).to_dict("list"),
    }


def outcomes(runs_dir: Path) -> dict[str, dict[str, Any]]:
    """Give the outcome of every run by its identity; a run that is not done has none."""
    return {
        record.identity: outcome_of(record) if record.state == "done" else {}
        for record in all_records(runs_dir)
    }


def half_written(runs_dir: Path) -> list[str]:
    """Name the files of runs that cannot be read as what they are called; hidden ones are none."""
    from safetensors import safe_open

    wrong = []
    for path in sorted(runs_dir.glob("work/*/[!.]*")):
        try:
            if path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
            elif path.suffix == ".csv" and not path.read_text(encoding="utf-8").endswith("\n"):
                wrong.append(path.name)
            elif path.suffix == ".safetensors":
                with safe_open(path, framework="pt") as file:
                    _ = file.keys()
            elif path.suffix == ".png" and not path.read_bytes().endswith(b"IEND\xaeB`\x82"):
                wrong.append(path.name)
        except Exception as error:  # noqa: BLE001
            wrong.append(f"{path.name}: {error}")
    return wrong
