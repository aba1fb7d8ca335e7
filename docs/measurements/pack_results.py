"""Pack the text of finished runs for docs/results/: what published numbers are computed from.

    python docs/measurements/pack_results.py RUNS_DIR docs/results/study.tar.xz NAME [NAME ...]
    python docs/measurements/pack_results.py --unpack RUNS_DIR docs/results/*.tar.xz

A NAME is an experiment's, or a prefix of it that ends in `*`; NAME@DATASET, its runs on one data
set; `references`, the logistic regressions of leaderboards. The recipe of a tuned experiment goes
with its runs. No picture and no weights are packed; the same runs give the same bytes. Tables of
predictions are packed much smaller, in `.columns` files: a line per column, probabilities as the
eight hexadecimal digits of their float32, but that of the predicted class, which the others leave
of 1, as how far it is from that, in units in the last place. Unpacked, they are what the run wrote,
byte by byte.
`make results` unpacks the archives and computes the numbers.
"""

import fnmatch
import io
import json
import lzma
import re
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

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
Columns = dict[str, list[str]]
Bits = npt.NDArray[Any]
Cells = tuple[Bits, Bits]
"""Rows and columns of an array."""


def by_columns(table: bytes) -> bytes:
    """Write a table of predictions as a line per column; raises ValueError where rows differ in
    length."""
    lines = table.decode().removesuffix("\n").split("\n")
    columns = {name: fields for name, *fields in zip(*(it.split(",") for it in lines), strict=True)}
    for predicted, names in probabilities_of(columns):
        bits = np.array([columns[name] for name in names], np.float32).view(np.uint32)
        texts = np.array([[f"{it:08x}" for it in row] for row in bits.tolist()])
        rest = bits[predicted].astype(np.int64) - rest_of(bits, predicted)
        texts[predicted] = rest.astype(texts.dtype)
        columns |= dict(zip(names, texts.tolist(), strict=True))
    return "".join(",".join([name, *fields]) + "\n" for name, fields in columns.items()).encode()


def by_rows(columns: bytes) -> bytes:
    """Give back the table that `by_columns` was given."""
    lines = columns.decode().removesuffix("\n").split("\n")
    texts = {name: fields for name, *fields in (line.split(",") for line in lines)}
    for predicted, names in probabilities_of(texts):
        fields = np.array([texts[name] for name in names])
        rest, fields[predicted] = fields[predicted].astype(np.int64), "0"
        bits = np.array([[int(it, 16) for it in row] for row in fields.tolist()], np.uint32)
        bits[predicted] = rest + rest_of(bits, predicted)
        for name, numbers in zip(names, bits.view(np.float32).tolist(), strict=True):
            texts[name] = [f"{number:.9g}" for number in numbers]
    rows = zip(*([name, *fields] for name, fields in texts.items()), strict=True)
    return "".join(",".join(row) + "\n" for row in rows).encode()


def probabilities_of(columns: Columns) -> Iterator[tuple[Cells, list[str]]]:
    """Give for each task where its predicted classes stand among its probabilities, and the names
    of these columns."""
    for name, fields in columns.items():
        if name.endswith("_pred"):
            start = name.removesuffix("red")
            yield (
                (np.array(fields, np.int64), np.arange(len(fields))),
                [it for it in columns if re.fullmatch(rf"{start}\d", it)],
            )


def rest_of(bits: Bits, predicted: Cells) -> Bits:
    """Give, as the bits of a float32, what the other classes leave of 1 to the predicted one."""
    others = bits.view(np.float32).astype(np.float64)
    others[predicted] = 0.0
    return np.float32(1 - others.sum(axis=0)).view(np.uint32).astype(np.int64)


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
