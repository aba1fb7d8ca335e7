"""Make the golden run store anew, and what the program prints of it.

    python -m tests.golden.store train      # trains: new run folders, from 240 synthetic faces
    python -m tests.golden.store expect     # reads: metrics, tables and comparisons of the folders

The run folders are those that `facebench run` left, without weights and pictures. They stand for
every run made so far: they are not made anew when the program changes, only when what a run folder
holds changes for good. What is expected of them changes only where a number was wrong; CHANGELOG
says each time which, and why.
"""

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from click.testing import Result
from typer.testing import CliRunner

HERE: Final = Path(__file__).parent
WORK: Final = HERE / "work"
EXPECTED: Final = HERE / "expected"
DATASET: Final = "synthetic-240"
N_FACES: Final = 240
SEEDS: Final = (0, 1)
EXPERIMENTS: Final = (
    "mtl-cnn-none-full-short",
    "age_group-cnn-none-full-short",
    "gender-cnn-none-full-short",
    "race-cnn-none-full-short",
    "mtl-cnn-none-full-until99-published",
    "mtl-cnn-none-full-until99-split",
    "mtl-cnn-none-full-until99-honest",
    "age_group-cnn-none-full-steps",
    "gender-cnn-none-full-steps",
    "race-cnn-none-full-steps",
    "age_group-cnn-none-full-steps-women",
    "age_group-cnn-none-full-steps-women-everyone",
    "age_group-cnn-none-full-steps-women-matched",
)
TEXT_FILES: Final = (
    "experiment.json",
    "history.csv",
    "predictions.csv",
    "predictions_outside.csv",
    "exposure.csv",
    "metrics.json",
    "subgroups.csv",
    "done.json",
)
COMMANDS: Final = {
    "leaderboard": ("leaderboard", "--suite", "quick"),
    "compare": (
        *("compare", "mtl-cnn-none-full-short"),
        *("age_group-cnn-none-full-short", "race-cnn-none-full-short"),
    ),
    "leak": ("leak",),
    "subsets": ("subsets",),
}
CHANGING: Final = frozenset(
    {
        "files",
        "generated",
        "created",
        "commit",
        "written",
        "folder",
        "path",
        "paths",
        "runs_dir",
        "facebench",
    }
)
"""Keys whose values differ from one machine, day or folder to the next."""


def faces(data_dir: Path) -> None:
    """Prepare the synthetic faces under `data_dir`."""
    from benchmark.data.dataset import store_faces
    from benchmark.data.drawn import draw_faces

    drawn = draw_faces(N_FACES, seed=3, image_px=32)
    store_faces(drawn.images, drawn.labels, name=DATASET, drawn=True, data_dir=data_dir)


def runs(root: Path) -> Path:
    """Copy the kept run folders to a runs folder under `root`, where they may be written to."""
    runs_dir = root / "mlruns"
    shutil.copytree(WORK, runs_dir / "work")
    return runs_dir


def facebench(*arguments: str) -> Result:
    """Run a command in this process."""
    from benchmark.cli.main import app

    return CliRunner().invoke(app, list(arguments))


def answer(command: str, data_dir: Path, runs_dir: Path) -> Any:
    """Give the data that a command of COMMANDS prints as JSON, without what changes by itself."""
    where = ("--data-dir", str(data_dir), "--runs-dir", str(runs_dir), "--dataset", DATASET)
    result = facebench(*COMMANDS[command], *where, "--json")
    if result.exit_code not in (0, 1):
        raise RuntimeError(f"{command} ended with {result.exit_code}: {result.output}")
    return settled(json.loads(result.stdout)["data"])


def settled(value: Any) -> Any:
    """Leave out what differs from machine to machine, and round to nine digits."""
    if isinstance(value, dict):
        return {key: settled(item) for key, item in value.items() if key not in CHANGING}
    if isinstance(value, list):
        return [settled(item) for item in value]
    return round(value, 9) if isinstance(value, float) else value


def metrics(runs_dir: Path) -> dict[str, Any]:
    """Score every run anew from its predictions, by the name of its experiment and its seed."""
    from benchmark.record import all_records

    outcome = facebench("runs", "rescore", "--runs-dir", str(runs_dir), "--json")
    if outcome.exit_code != 0:
        raise RuntimeError(f"rescore ended with {outcome.exit_code}: {outcome.output}")
    return {
        f"{record.experiment_name}, seed {record.seed}": settled(record.metrics)
        for record in all_records(runs_dir)
    }


def identities() -> dict[str, str]:
    """Digest what a run of each registered experiment would be called, for fixed ingredients."""
    from benchmark import registry
    from benchmark.identity import Ingredients, identity_of

    fixed = Ingredients("0" * 64, "1" * 64, "2" * 64, trainer_version=0)
    return {
        name: identity_of(experiment, fixed, 0)[:16]
        for name, experiment in sorted(registry.experiments().items())
    }


def split_digests() -> dict[str, str]:
    """Digest the parts of a table of clusters, by the split, its folds and the replayed splits."""
    from benchmark.data.replays import REPLAYED_VERSIONS, replayed_parts
    from benchmark.data.splits import N_FOLDS, part_rows, with_split
    from tests.data.test_splits import table_of

    table = with_split(table_of(1500, faces_per_cluster=2))
    ways = {"leak-free": part_rows(table)}
    ways |= {f"fold {fold}": part_rows(table, fold) for fold in range(N_FOLDS)}
    ways |= {version: replayed_parts(table, version) for version in REPLAYED_VERSIONS}
    return {
        way: hashlib.sha256(
            json.dumps({p: r.tolist() for p, r in parts.items()}).encode()
        ).hexdigest()[:16]
        for way, parts in ways.items()
    }


def findings(root: Path) -> Iterator[tuple[str, Any]]:
    """Yield everything that is held, by the name of its file in `expected`."""
    data_dir = root / "data"
    faces(data_dir)
    runs_dir = runs(root)
    yield "metrics", metrics(runs_dir)
    for command in COMMANDS:
        yield command, answer(command, data_dir, runs_dir)
    yield "identities", identities()
    yield "splits", split_digests()


def train(root: Path) -> None:
    """Train all experiments and keep the text of their run folders."""
    faces(root / "data")
    for name in EXPERIMENTS:
        result = facebench(
            *("run", name, "--seeds", ",".join(map(str, SEEDS)), "--dataset", DATASET),
            *("--data-dir", str(root / "data"), "--runs-dir", str(root / "mlruns")),
            *("--tracking", "files", "--deterministic", "--keep-weights", "none", "--offline"),
        )
        print(name, result.exit_code, result.stderr.splitlines()[-1:])
        if result.exit_code != 0:
            raise RuntimeError(result.output)
    shutil.rmtree(WORK, ignore_errors=True)
    for folder in sorted((root / "mlruns" / "work").iterdir()):
        if (folder / "done.json").is_file():
            (WORK / folder.name).mkdir(parents=True)
            for name in TEXT_FILES:
                if (folder / name).is_file():
                    shutil.copyfile(folder / name, WORK / folder.name / name)


def main(step: str) -> None:
    """Do one step, in a scratch folder."""
    with tempfile.TemporaryDirectory() as scratch:
        if step == "train":
            train(Path(scratch))
        else:
            EXPECTED.mkdir(exist_ok=True)
            for name, found in findings(Path(scratch)):
                text = json.dumps(found, indent=1, sort_keys=True) + "\n"
                (EXPECTED / f"{name}.json").write_text(text, encoding="utf-8")
                print(name, len(text))


if __name__ == "__main__":
    main(sys.argv[1])
