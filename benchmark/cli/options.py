"""Options that several commands share, spelled and explained once."""

from pathlib import Path
from typing import Annotated

import typer

DataDir = Annotated[
    Path,
    typer.Option("--data-dir", envvar="FACEBENCH_DATA_DIR", help="Where prepared data sets are."),
]
RunsDir = Annotated[
    Path, typer.Option("--runs-dir", envvar="FACEBENCH_RUNS_DIR", help="Where runs are kept.")
]
WeightsDir = Annotated[
    Path | None,
    typer.Option(
        "--weights-dir",
        envvar="FACEBENCH_WEIGHTS_DIR",
        help="Where converted weights are; DATA_DIR/weights if left out.",
    ),
]
DatasetName = Annotated[
    str | None,
    typer.Option("--dataset", help="A prepared data set, or `drawn`; the only one if left out."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for a machine.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")]

DEFAULT_DATA_DIR = Path("data")
DEFAULT_RUNS_DIR = Path("mlruns")
