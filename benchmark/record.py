"""A run as its folder tells it: definition, state, history, scores; and where numbers come from.

The folder is the truth; benchmark.runs.run writes it, everything else only reads it.

    experiment.json   definition, seed, data set, weights, versions (written at the start)
    history.csv       one row per epoch
    checkpoint.pt     the state to resume from; removed when the run is done
    predictions.csv   val and test faces with all truths and class probabilities
    predictions_outside.csv   on faces that count for no score of the run: of a network trained on a
                      subset, the other test faces; of a leaky run, what the leak-free test has more
    exposure.csv      of a leaky run: whether each test face was seen, related or clean
    metrics.json      every number computed from predictions.csv, keyed by its digest
    done.json         written last; without it the run is not done
    failed.json       why a run failed, with its traceback
    interrupted.json  when and at which epoch a run was stopped
    trial.json        of a search's trial: which study, and the number it first had

Provenance is versions of code, packages and platform; no secrets, no names.
"""

import contextlib
import json
import platform
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from benchmark import __version__
from benchmark.errors import RunError

if TYPE_CHECKING:
    import pandas as pd

SCHEMA: Final = 1
TRIAL_FILE: Final = "trial.json"
MODEL_FILE: Final = "model.safetensors"
RUN_ID: Final = re.compile("[0-9a-f]{8,64}")
"""The digits of a run's identity that name it."""
HOW_TO_RUN: Final = (
    "`facebench run --suite quick` makes some; `facebench run --suite demo --dataset drawn` in two "
    "minutes on synthetic faces"
)
"""What a command says that found no run."""
Content = TypeVar("Content")
State = Literal["absent", "interrupted", "failed", "done"]
STATES: Final[tuple[tuple[str, State], ...]] = (
    ("done.json", "done"),
    ("failed.json", "failed"),
    ("experiment.json", "interrupted"),
)
SUBGROUP_COLUMNS: Final = ("task", "by", "group", "n", "accuracy", "low", "high", "macro_f1")


@dataclass(frozen=True)
class RunRecord:
    """Read access to one run's folder, `mlruns/work/<identity>/`."""

    folder: Path

    @property
    def identity(self) -> str:
        """The run's sha256; the folder is named by it."""
        return self.folder.name

    @property
    def state(self) -> State:
        """Where the run stands, from the files alone; a run in progress reads `interrupted`."""
        found = (state for name, state in STATES if (self.folder / name).is_file())
        return next(found, "absent")

    @cached_property
    def about(self) -> dict[str, Any]:
        """`experiment.json`: experiment, seed, dataset, weights, versions, device, commit."""
        return self._json("experiment.json")

    @property
    def experiment_name(self) -> str:
        return str(self.about["experiment"]["name"])

    @property
    def group_identity(self) -> str:
        """Identity without the seed: runs of one group differ in nothing else."""
        return str(self.about["family"])

    @property
    def seed(self) -> int:
        return int(self.about["seed"])

    @property
    def how_to_finish(self) -> str:
        """The command that resumes the run, for a message to a user."""
        name, dataset = self.experiment_name, self.about["dataset"]["name"]
        changes = " and the --set it began with" if self.about["ad_hoc"] else ""
        return f"`facebench run {name} --seeds {self.seed} --dataset {dataset}`{changes} resumes it"

    @cached_property
    def done(self) -> dict[str, Any]:
        """`done.json`: seconds, epochs, selected epoch, images per second, peak memory."""
        return self._json("done.json")

    @cached_property
    def scored(self) -> dict[str, Any]:
        """`metrics.json`: metrics and subgroups, which test faces are right, by which version."""
        return self._json("metrics.json")

    @property
    def metrics(self) -> dict[str, float]:
        """Flat metrics by MLflow name, `test/age_group/accuracy`; empty before the run is done."""
        values: dict[str, float] = self.scored["metrics"]
        return values

    @property
    def predictions_sha256(self) -> str:
        """Digest of the predictions that the metrics were computed from."""
        return str(self.scored["predictions_sha256"])

    @property
    def scoring_version(self) -> int:
        """By which version of benchmark.evaluation.metrics the run was scored."""
        return int(self.scored.get("scoring_version", 0))

    @cached_property
    def failed(self) -> dict[str, Any]:
        """`failed.json`: when and why the run failed, with its traceback."""
        return self._json("failed.json")

    def history(self) -> "pd.DataFrame":
        """One row per epoch, columns by metric name; raises RunError when there is none."""
        return self._csv("history.csv")

    @property
    def calibration(self) -> dict[Any, Any]:
        """`calibration.json`, by task; empty where an older facebench wrote none."""
        name = "calibration.json"
        return dict(self._json(name)["tasks"]) if (self.folder / name).is_file() else {}

    @property
    def kept_correctness(self) -> dict[str, Any]:
        """Which test faces are right, as benchmark.evaluation.predictions packed it; or empty."""
        return dict(self.scored.get("answers", {}))

    def subgroups(self) -> "pd.DataFrame":
        """The columns of SUBGROUP_COLUMNS; what each is: benchmark.evaluation.subgroups.

        Runs that were scored before metrics.json held them have them in subgroups.csv alone.
        """
        import pandas as pd

        if (stored := self.scored.get("subgroups")) is None:
            stored = self._csv("subgroups.csv", group=str)
        numbers = dict.fromkeys(SUBGROUP_COLUMNS[4:], "float64")  # in JSON, None is null
        return pd.DataFrame({name: stored[name] for name in SUBGROUP_COLUMNS}).astype(numbers)

    @property
    def is_trial(self) -> bool:
        return (self.folder / TRIAL_FILE).is_file()

    @property
    def predictions_path(self) -> Path:
        """`predictions.csv`, read through benchmark.evaluation.predictions."""
        return self.folder / "predictions.csv"

    def model_path(self) -> Path:
        """Give `model.safetensors`; raise RunError where the run kept no weights."""
        path = self.folder / MODEL_FILE
        if not path.is_file():
            fix = "Remove its folder and run it again with --keep-weights best"
            found = f"run {self.identity[:12]} kept no weights"
            raise RunError(found, source=str(self.folder), fix=fix)
        return path

    @property
    def outside_path(self) -> Path:
        """`predictions_outside.csv`: predictions on test faces that are not the run's own."""
        return self.folder / "predictions_outside.csv"

    def exposure(self) -> "pd.DataFrame":
        """How training met each test face of a leaky run: file, exposure (seen, related, clean)."""
        return self._csv("exposure.csv", file=str)

    @property
    def exposure_path(self) -> Path:
        return self.folder / "exposure.csv"

    def _json(self, name: str) -> dict[str, Any]:
        value = self._read(name, lambda path: json.loads(path.read_text(encoding="utf-8")))
        if not isinstance(value, dict) or value.get("schema") != SCHEMA:
            seen = value.get("schema") if isinstance(value, dict) else type(value).__name__
            found = f"{name} of run {self.identity[:12]} has schema {seen!r}"
            fix = "Use the facebench that wrote it, or run the experiment again"
            source = str(self.folder / name)
            raise RunError(found, allowed=f"schema {SCHEMA}", source=source, fix=fix)
        return value

    def _csv(self, name: str, **dtypes: type) -> "pd.DataFrame":
        import pandas as pd  # Where no table is read, commands begin sooner.

        return self._read(name, lambda path: pd.read_csv(path, dtype=dtypes))

    def _read(self, name: str, reader: Callable[[Path], Content]) -> Content:
        path = self.folder / name
        try:
            return reader(path)
        except FileNotFoundError as error:
            raise RunError(f"run {self.identity[:12]} has no {name}", source=str(path)) from error
        except (OSError, ValueError) as error:
            found = f"{name} of run {self.identity[:12]} cannot be read: {error}"
            fix = "Remove the run's folder and run the experiment again"
            raise RunError(found, source=str(path), fix=fix) from error


def work_folder(runs_dir: Path) -> Path:
    return runs_dir / "work"


def all_records(runs_dir: Path) -> Iterator[RunRecord]:
    """Yield every run that has at least begun, ordered by identity."""
    for folder in sorted(work_folder(runs_dir).glob("[0-9a-f]*")):
        if (folder / "experiment.json").is_file():
            yield RunRecord(folder)


NAMED_PACKAGES: Final = ("torch", "torchvision", "timm", "mlflow", "numpy", "pillow", "pandas")


def versions() -> dict[str, str]:
    """Give the versions that a table may have to show; an absent package is left out."""
    found = {"python": platform.python_version(), "facebench": __version__}
    for package in NAMED_PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


@cache
def commit() -> str:
    """Give the git commit of the code, `-dirty` where it was changed; else the package version.

    Once for all runs of a process: it runs what it has loaded, whatever is checked out later.
    """
    folder = Path(__file__).resolve().parents[1]
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    if (folder / ".git").exists():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            return subprocess.run(
                command, cwd=folder, capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
    return f"v{__version__}"


@cache
def environment() -> str:
    """List the platform and every installed package, one a line; the host's name is left out.

    Once for all runs of a process, as `commit`.
    """
    # A distribution's direct URL may hold a private path or token: names and versions only.
    packages = {item.metadata["Name"]: item.version for item in distributions()}
    return (
        f"python {platform.python_version()} ({platform.python_implementation()})\n"
        f"platform {platform.system()} {platform.release()} {platform.machine()}\n"
        f"commit {commit()}\n\n"
        + "".join(f"{name}=={packages[name]}\n" for name in sorted(packages, key=str.lower))
    )
