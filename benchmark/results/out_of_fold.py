"""Which runs are the five folds of one experiment, and what they say together of every label.

Kept in the folder of the run of fold 0, so that it goes to MLflow with it.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pandas as pd

from benchmark.errors import RunError
from benchmark.files import canonical_json, write_text
from benchmark.results.figures import Caption, write_png
from benchmark.results.predictions import check_faces, read_predictions
from benchmark.results.rescoring import faces_of
from benchmark.results.rows import Run
from benchmark.results.suspect_figures import contact_sheet
from benchmark.results.suspects import N_FOLDS, label_suspects, out_of_fold

if TYPE_CHECKING:
    from benchmark.faces.store import FaceSet

TABLE: Final = "label_suspects_out_of_fold.csv"
SHEET: Final = "label_suspects_out_of_fold.png"


@dataclass(frozen=True)
class FoldRuns:
    """The finished runs of one experiment and seed over the folds of one data set."""

    by_fold: Mapping[int, Run]

    @property
    def name(self) -> str:
        """Name of the experiment of the first fold there is, and the seed."""
        first = self.by_fold[min(self.by_fold)]
        return f"{first.record.experiment_name}, seed {first.record.seed}"

    @property
    def is_whole(self) -> bool:
        """Whether all five folds are there."""
        return set(self.by_fold) == set(range(N_FOLDS))


def fold_runs(runs: Iterable[Run]) -> list[FoldRuns]:
    """Put together the finished runs that differ in nothing but the fold."""
    found: dict[str, dict[int, Run]] = defaultdict(dict)
    for run in runs:
        fold = run.setting.protocol.fold
        if run.record.state == "done" and fold is not None:
            found[_key(run)][fold] = run
    return [FoldRuns(by_fold) for _, by_fold in sorted(found.items())]


def _key(run: Run) -> str:
    """Give what runs over folds share, as comparable text."""
    about = run.about
    definition = {
        part: about["experiment"].get(part) for part in ("backbone", "head", "recipe", "subset")
    }
    protocol = dataclasses.replace(run.setting.protocol, fold=None)
    return canonical_json(
        {
            **definition,
            "protocol": dataclasses.asdict(protocol),
            "dataset": [run.setting.dataset, run.setting.split_digest, run.setting.pixel_digest],
            "weights": (about.get("weights") or {}).get("sha256"),
            "trainer_version": about.get("trainer_version"),
            "seed": run.record.seed,
            "ad_hoc": run.definition["name"] if run.ad_hoc else None,
        }
    )


def write_suspects(folds: FoldRuns, prepared: Iterable["FaceSet"] = ()) -> pd.DataFrame:
    """Write the suspects of all five folds into the folder of fold 0, and give them.

    prepared: data sets at hand; with the runs' own, a contact sheet is written too. Raises RunError
    where a fold is missing or the folds do not hold each face once.
    """
    tables = {}
    for fold, run in folds.by_fold.items():
        path = run.record.predictions_path
        tables[fold] = read_predictions(path)
        check_faces(tables[fold], run.about["dataset"]["counts"], source=str(path))
    n_placed = {sum(run.about["dataset"]["counts"].values()) for run in folds.by_fold.values()}
    if len(n_placed) > 1:
        raise RunError(f"the folds of {folds.name} are not of the same faces")
    suspects = label_suspects(out_of_fold(tables, *n_placed))
    record = folds.by_fold[0].record
    write_text(record.folder / TABLE, suspects.to_csv(index=False))
    at_hand = faces_of(record, prepared)
    if at_hand is not None:
        faces = at_hand.faces
        caption = Caption(f"{folds.name}, out of fold", faces.name, faces.drawn)
        write_png(record.folder / SHEET, contact_sheet(suspects, at_hand.pictures(), caption))
    return suspects
