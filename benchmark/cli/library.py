"""The runs at hand, as every command that compares them reads them."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark import registry
from benchmark.cli.output import Answer, progress_bar
from benchmark.errors import DataError, RunError
from benchmark.record import all_records

if TYPE_CHECKING:
    from benchmark.comparison.library import Faces, Library, Run


def library_at_hand(
    runs_dir: Path, data_dir: Path, answer: Answer, *, quiet: bool = True
) -> "Library":
    """Read all runs; what cannot be read is said."""
    from benchmark.comparison.library import read_run

    runs, records = [], list(all_records(runs_dir))
    with progress_bar(quiet=quiet) as progress:
        bar = progress.add_task("reading runs", total=len(records))
        for record in records:
            try:
                runs.append(read_run(record))
            except RunError as error:
                answer.warnings.append(f"left out, not readable: {error}")
            progress.advance(bar)
    if not runs:
        raise RunError(
            "there is no run to compare",
            source=str(runs_dir),
            fix="`facebench run --suite quick --seeds 0,1,2` makes some",
        )
    return library_of(runs, data_dir)


def library_of(runs: "Sequence[Run]", data_dir: Path) -> "Library":
    """Put runs together with the definitions that they may be runs of."""
    from benchmark.comparison.library import Library

    prepared = _prepared(data_dir)
    folds = registry.folds_of(str(run.definition["name"]) for run in runs)
    return Library(tuple(runs), registry.experiments() | folds, registry.suites(), prepared)


def _prepared(data_dir: Path) -> "list[Faces]":
    """Name the faces that are prepared here; none is no obstacle, runs keep what they say."""
    from benchmark.comparison.library import Faces
    from benchmark.data.dataset import prepared_datasets

    with contextlib.suppress(DataError):
        return [
            Faces(faces.name, faces.pixel_digest, faces.split_digest)
            for faces in prepared_datasets(data_dir)
        ]
    return []
