"""What is wrong with a prepared data set, and who stands where in its split; changes nothing."""

from dataclasses import dataclass, field
from typing import Any, Final

import pandas as pd

from benchmark.data.dataset import PIXELS_FILE, FaceSet
from benchmark.data.duplicates import LABELS, count_duplicates
from benchmark.data.labelled import labels_digest
from benchmark.data.labels import parse_name
from benchmark.data.splits import IDENTITY_COLUMNS, N_FOLDS, Overlap, overlaps, part_rows
from benchmark.data.table import pixel_digest
from benchmark.errors import DataError
from benchmark.tasks import TASKS

SPLITS: Final[dict[str, int | None]] = {
    "80/10/10": None,
    **{f"fold {fold}": fold for fold in range(N_FOLDS)},
}
"""The split and its folds, as shown, and as `parts_of` knows them."""

COUNT_COLUMNS: Final = ("part", *TASKS, "n")


@dataclass(frozen=True, eq=False)
class Audit:
    """What an audit found; `findings` is empty for a sound data set."""

    faces: FaceSet
    counts: pd.DataFrame
    """COUNT_COLUMNS: faces with a place by part, age_group, gender, race; no row where none is."""
    left_out: pd.DataFrame
    """kind, reason, n: files in quarantine, and faces of the table that have no place."""
    duplicates: dict[str, int]
    """As benchmark.data.duplicates.count_duplicates gives them."""
    overlaps: dict[str, list[Overlap]]
    """By split: pictures in two parts at once."""
    findings: list[str] = field(default_factory=list)

    def overlap_counts(self) -> dict[str, dict[str, int]]:
        """Count overlaps by split and by what is shared: sha256, cluster, file."""
        return {
            split: {
                column: sum(overlap.column == column for overlap in found)
                for column in IDENTITY_COLUMNS
            }
            for split, found in self.overlaps.items()
        }

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
            "overlaps": self.overlap_counts(),
            "labels": manifest.get("labels"),
            "findings": self.findings,
        }


def audit(faces: FaceSet) -> Audit:
    """Look for leaks, changed files and labels that contradict the names; count who is where."""
    table = faces.table
    found = {split: overlaps(table, part_rows(table, fold)) for split, fold in SPLITS.items()}
    return Audit(
        faces,
        counts=placed_counts(table),
        left_out=left_out(faces),
        duplicates=count_duplicates(table),
        overlaps=found,
        findings=[*_leaks(found), *_contradictions(faces), *_changes(faces)],
    )


def placed_counts(table: pd.DataFrame) -> pd.DataFrame:
    """Count the faces with a place, in COUNT_COLUMNS; a label that is MISSING is a group too."""
    placed = table[table["part"] != ""]
    sizes = placed.groupby(["part", *TASKS]).size()
    return sizes.rename("n").reset_index()[list(COUNT_COLUMNS)]


def left_out(faces: FaceSet) -> pd.DataFrame:
    """Count by kind and reason what is in quarantine, and what has no place in the split."""
    quarantine = faces.quarantine()[["kind", "reason"]]
    reasons = faces.table["no_place_reason"]
    # "copy of FILE" and "label conflict with FILE, ..." are counted by their first words.
    short = reasons[reasons != ""].str.replace(r" (of|with) .*", "", regex=True)
    without_place = pd.DataFrame({"kind": "no place", "reason": short})
    both = pd.concat([quarantine, without_place], ignore_index=True)
    return both.groupby(["kind", "reason"]).size().rename("n").reset_index()


def _leaks(found: dict[str, list[Overlap]]) -> list[str]:
    return [
        f"{split} leaks: {leaks[0]} ({len(leaks)} such overlaps)"
        for split, leaks in found.items()
        if leaks
    ]


def _contradictions(faces: FaceSet) -> list[str]:
    """Compare the table with itself, and with the file names where these tell the labels."""
    table = faces.table
    findings = []
    per_picture = table.groupby("sha256")["cluster"].nunique()
    if (per_picture > 1).any():
        n_divided = int((per_picture > 1).sum())
        findings.append(f"{n_divided} pictures with equal bytes are in more than one cluster")
    has_defect = (table["is_copy"] != 0) | (table["label_conflict"] != 0)
    if (has_defect & (table["part"] != "")).any():
        findings.append("a copy or a label conflict has a place in the split")
    if faces.labels_digest is not None:
        if labels_digest(table) != faces.labels_digest:
            findings.append("faces have other labels than the table of labels gave them")
        return findings
    columns = zip(table["file"], *(table[label] for label in LABELS), strict=True)
    relabelled = [file for file, *labels in columns if _labels_of(file) != tuple(labels)]
    if relabelled:
        findings.append(
            f"{len(relabelled)} faces have other labels than their names say: {relabelled[0]}"
        )
    return findings


def _labels_of(file: str) -> tuple[int, ...] | None:
    try:
        labels = parse_name(file)
    except DataError:
        return None
    return tuple(getattr(labels, label) for label in LABELS)


def _changes(faces: FaceSet) -> list[str]:
    if pixel_digest(faces.folder / PIXELS_FILE) == faces.pixel_digest:
        return []
    return [f"{PIXELS_FILE} was changed after it was prepared: its digest is another"]
