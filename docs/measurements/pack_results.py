"""Pack the text of finished runs for docs/results/: what published numbers are computed from.

    python docs/measurements/pack_results.py RUNS_DIR docs/results/study.tar.xz NAME [NAME ...]
    python docs/measurements/pack_results.py --unpack RUNS_DIR docs/results/*.tar.xz

A NAME is an experiment's, or a prefix of it that ends in `*`; NAME@DATASET, its runs on one data
set; `references`, the logistic regressions of leaderboards. The recipe of a tuned experiment goes
with its runs. No picture and no weights are packed; the same runs give the same bytes. Tables of
predictions are packed a quarter smaller, in `.columns` files: a line per column, probabilities as
the eight hexadecimal digits of their float32. Unpacked, they are what the run wrote, byte by byte.
`make results` unpacks the archives and computes the numbers.
"""

import fnmatch
import io
import json
import lzma
import re
import sys
import tarfile
from pathlib import Path

import numpy as np

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
BY_COLUMNS = ("predictions.csv", "predictions_outside.csv")
ENDING = ".columns"
PROBABILITY = re.compile(r".+_p\d")


def by_columns(table: bytes) -> bytes:
    """Write a table of predictions as a line per column; raises ValueError where rows differ in
    length."""
    lines = table.decode().removesuffix("\n").split("\n")
    columns = []
    for name, *fields in zip(*(line.split(",") for line in lines), strict=True):
        if PROBABILITY.fullmatch(name):
            fields = [f"{bits:08x}" for bits in np.float32(fields).view(np.uint32).tolist()]
        columns.append(",".join([name, *fields]) + "\n")
    return "".join(columns).encode()


def by_rows(columns: bytes) -> bytes:
    """Give back the table that `by_columns` was given."""
    texts = []
    for line in columns.decode().removesuffix("\n").split("\n"):
        name, *fields = line.split(",")
        if PROBABILITY.fullmatch(name):
            numbers = np.array([int(field, 16) for field in fields], np.uint32).view(np.float32)
            fields = [f"{number:.9g}" for number in numbers.tolist()]
        texts.append([name, *fields])
    return "".join(",".join(row) + "\n" for row in zip(*texts, strict=True)).encode()


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file by its name and content alone; tables of predictions by columns."""
    if name.endswith(BY_COLUMNS):
        name, whole, content = name + ENDING, content, by_columns(content)
        if by_rows(content) != whole:
            sys.exit(f"{name} would not be unpacked as it is")
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def pack(runs_dir: Path, archive: Path, *names: str) -> None:
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
                add(tar, f"tuned/{recipe.name}", recipe.read_bytes())
            packed.append(f"{done.parent.name[:12]} {name}, seed {definition['seed']}")
            for file in (done.parent / file for file in FILES):
                if file.exists():
                    add(tar, f"work/{done.parent.name}/{file.name}", file.read_bytes())
        for about in sorted(runs_dir.glob("references/*/reference.json")):
            if "references" in names:
                packed.append(f"{about.parent.name[:12]} {json.loads(about.read_bytes())['on']}")
                for file in (about, about.with_name("predictions.csv")):
                    add(tar, str(file.relative_to(runs_dir)), file.read_bytes())
    if not packed:
        archive.unlink()
        sys.exit(f"{runs_dir} has no finished run of {', '.join(names)}")
    print("\n".join(packed))
    print(f"{len(packed)} runs, {archive.stat().st_size:,} bytes: {archive}")


def unpack(runs_dir: Path, *archives: Path) -> None:
    """Unpack archives into a folder of runs, tables as their runs wrote them."""
    for archive in archives:
        with tarfile.open(archive) as tar:
            tar.extractall(runs_dir, filter="data")
    for path in sorted(runs_dir.glob(f"*/*/*{ENDING}")):
        path.with_suffix("").write_bytes(by_rows(path.read_bytes()))
        path.unlink()


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    if sys.argv[1] == "--unpack":
        unpack(*map(Path, sys.argv[2:]))
    else:
        pack(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
