"""Pack the text of finished runs for docs/results/: what published numbers are computed from.

    python docs/measurements/pack_results.py RUNS_DIR docs/results/study.tar.xz NAME [NAME ...]

A NAME is an experiment's, or a prefix of it that ends in `*`; NAME@DATASET, its runs on one data
set. The recipe of a tuned experiment goes with its runs. No picture and no weights are packed; the
same runs give the same bytes. `make results` unpacks the archives and computes the numbers.
"""

import fnmatch
import json
import lzma
import sys
import tarfile
from pathlib import Path

FILES = (
    "experiment.json",
    "environment.txt",
    "exposure.csv",
    "history.csv",
    "metrics.json",
    "predictions.csv",
    "predictions_outside.csv",
    "done.json",
)
"""In this order, `done.json` last, as a run writes it; only leaking runs have exposure.csv and
predictions_outside.csv, on the leak-free test faces."""


def add(tar: tarfile.TarFile, name: str, path: Path) -> None:
    """Add a file by its name and content alone."""
    member = tarfile.TarInfo(name)
    member.size = path.stat().st_size
    with path.open("rb") as stream:
        tar.addfile(member, stream)


def main(runs_dir: Path, archive: Path, *names: str) -> None:
    """Pack the finished runs of the named experiments."""
    packed = []
    recipes = {
        json.loads(path.read_bytes())["tuned"]["name"]: path
        for path in (runs_dir / "tuned").glob("*.json")
    }
    with (
        lzma.open(archive, "wb", preset=9 | lzma.PRESET_EXTREME) as stream,
        tarfile.open(fileobj=stream, mode="w") as tar,
    ):
        for done in sorted((runs_dir / "work").glob("*/done.json")):
            definition = json.loads((done.parent / "experiment.json").read_bytes())
            name = definition["experiment"]["name"]
            named = (name, f"{name}@{definition['dataset']['name']}")
            if not any(fnmatch.fnmatch(it, wanted) for it in named for wanted in names):
                continue
            recipe = recipes.pop(name, None)
            if recipe is not None:
                add(tar, f"tuned/{recipe.name}", recipe)
            packed.append(f"{done.parent.name[:12]} {name}, seed {definition['seed']}")
            for file in (file for file in FILES if (done.parent / file).exists()):
                add(tar, f"work/{done.parent.name}/{file}", done.parent / file)
    if not packed:
        archive.unlink()
        sys.exit(f"{runs_dir} has no finished run of {', '.join(names)}")
    print("\n".join(packed))
    print(f"{len(packed)} runs, {archive.stat().st_size:,} bytes: {archive}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
