"""What is wrong with a prepared data set, and how its parts are composed; changes nothing."""

from dataclasses import dataclass, field
from typing import Any, Final

import pandas as pd

from benchmark.data.dataset import PIXELS_FILE, FaceSet
from benchmark.data.duplicates import count_duplicates
from benchmark.data.labelled import labels_digest
from benchmark.data.labels import LABELS, parse_name
from benchmark.data.pictures import pixel_digest
from benchmark.data.splits import IDENTITY_COLUMNS, N_FOLDS, Overlap, overlaps, part_rows
from benchmark.errors import DataError
from benchmark.tasks import TASKS

SPLITS: Final[dict[str, int | None]] = {
    "80/10/10": None,
    **{f"fold {fold}": fold for fold in range(N_FOLDS)},
}
"""The split and its folds, as shown, and as `parts_of` knows them."""


@dataclass(frozen=True, eq=False)
class Audit:
    """What an audit found; `findings` is empty for a sound data set."""

    faces: FaceSet
    counts: pd.DataFrame
    """part, age_group, gender, race, n: faces with a place; MISSING is a group too, and there is
    no row where there is no face."""
    left_out: pd.DataFrame
    """kind, reason, n: rejected files, and faces of the table that have no place."""
    duplicates: dict[str, int]
    """As benchmark.data.duplicates.count_duplicates gives them."""
    overlap_counts: dict[str, dict[str, int]]
    """By split and by what is shared: pictures in two parts at once."""
    findings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Give everything as plain values for --json."""
        manifest = self.faces.manifest
        return {
            "dataset": self.faces.name,
            "drawn": self.faces.drawn,
            "split_version": manifest["split_version"],
            "split_digest": self.faces.split_digest,
            "pixel_digest": self.faces.pixel_digest,
            "totals": manifest["counts"],
            "near_duplicates": manifest["near_duplicates"],
            "duplicates": self.duplicates,
            "left_out": self.left_out.to_dict("records"),
            "counts": self.counts.to_dict("records"),
            "overlaps": self.overlap_counts,
            "labels": manifest.get("labels"),
            "findings": self.findings,
        }


def audit(faces: FaceSet) -> Audit:
    """Look for leaks, changed files and labels that contradict the names; count each part."""
    table = faces.table
    found = {split: overlaps(table, part_rows(table, fold)) for split, fold in SPLITS.items()}
    placed = table[table["part"] != ""].groupby(["part", *TASKS]).size()
    return Audit(
        faces,
        counts=placed.rename("n").reset_index(),
        left_out=left_out(faces),
        duplicates=count_duplicates(table),
        overlap_counts={
            split: {name: sum(leak.column == name for leak in leaks) for name in IDENTITY_COLUMNS}
            for split, leaks in found.items()
        },
        findings=_findings(faces, found),
    )


def left_out(faces: FaceSet) -> pd.DataFrame:
    """Count by kind and reason the files that were rejected and the faces without a place."""
    reasons = faces.table["no_place_reason"]
    # "copy of FILE" and "label conflict with FILE, ..." are counted by their first words.
    short = reasons[reasons != ""].str.replace(r" (of|with) .*", "", regex=True)
    without_place = pd.DataFrame({"kind": "no place", "reason": short})
    both = pd.concat([faces.rejected()[["kind", "reason"]], without_place], ignore_index=True)
    return both.groupby(["kind", "reason"]).size().rename("n").reset_index()


def _findings(faces: FaceSet, found: dict[str, list[Overlap]]) -> list[str]:
    """Compare the table with itself, with the file names where these give the labels, and digests.

    found: by split, pictures in two parts at once.
    """
    table = faces.table
    findings = [
        f"{split} leaks: {leaks[0]} ({len(leaks)} such overlaps)"
        for split, leaks in found.items()
        if leaks
    ]
    n_divided = int((table.groupby("sha256")["cluster"].nunique() > 1).sum())
    if n_divided:
        findings.append(f"{n_divided} pictures with equal bytes are in more than one cluster")
    has_defect = (table["is_copy"] != 0) | (table["label_conflict"] != 0)
    if (has_defect & (table["part"] != "")).any():
        findings.append("a copy or a label conflict has a place in the split")
    if faces.labels_digest is None:
        columns = zip(table["file"], *(table[label] for label in LABELS), strict=True)
        changed = [file for file, *labels in columns if _labels_of(file) != tuple(labels)]
        if changed:
            findings.append(
                f"{len(changed)} faces have other labels than their names say: {changed[0]}"
            )
    elif labels_digest(table) != faces.labels_digest:
        findings.append("faces have other labels than the table of labels gave them")
    if pixel_digest(faces.folder / PIXELS_FILE) != faces.pixel_digest:
        findings.append(f"{PIXELS_FILE} was changed after it was prepared: its digest is another")
    return findings


def _labels_of(file: str) -> tuple[int, ...] | None:
    try:
        return tuple(parse_name(file))
    except DataError:
        return None
