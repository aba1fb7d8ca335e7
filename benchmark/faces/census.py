"""Whom a source promises: the faces its file names tell of, and what is left out by its name.

No picture is looked at here.
"""

from dataclasses import dataclass

import pandas as pd

from benchmark.errors import DataError
from benchmark.faces.archive import Member, Source
from benchmark.faces.clusters import LABELS
from benchmark.faces.folder import NAME_KIND, OTHER_KIND
from benchmark.faces.labels import NAME_RULE, FaceLabels, is_picture_name, parse_name


@dataclass(frozen=True)
class Census:
    """What the names of a source's members say."""

    faces: list[tuple[str, Member, FaceLabels]]
    """Base name, member and labels of each face, by base name: its place is its row."""
    left_out: list[tuple[str, str, str]]
    """File, kind, reason: rows of the quarantine."""

    def table(self) -> pd.DataFrame:
        """Give the columns file and the labels, one row per face."""
        rows = [
            (name, *(getattr(labels, label) for label in LABELS)) for name, _, labels in self.faces
        ]
        return pd.DataFrame(rows, columns=["file", *LABELS])


def take_census(source: Source) -> Census:
    """Read the labels of every picture's name; raise DataError if there are none or two alike."""
    faces: dict[str, tuple[str, Member, FaceLabels]] = {}
    left_out: list[tuple[str, str, str]] = []
    paths: dict[str, str] = {}
    for member in source.members():
        if not is_picture_name(member.path):
            left_out.append((printable(member.path), OTHER_KIND, "not a picture by its name"))
            continue
        if member.name in paths:
            raise DataError(
                f"two pictures have the name {member.name!r}: "
                f"{paths[member.name]} and {member.path}",
                allowed="each base name once, for faces are known by it",
                source=str(source.path),
                fix="Name the one folder in it that holds each face once",
            )
        paths[member.name] = member.path
        try:
            faces[member.name] = (member.name, member, parse_name(member.name))
        except DataError as error:
            left_out.append((printable(member.name), NAME_KIND, error.found))
    if not faces:
        raise _no_faces(source, paths, left_out)
    return Census([faces[name] for name in sorted(faces)], left_out)


def printable(path: str) -> str:
    """Write a name so that any can go into a text file."""
    return path.encode("utf-8", "backslashreplace").decode()


def _no_faces(
    source: Source, paths: dict[str, str], left_out: list[tuple[str, str, str]]
) -> DataError:
    if not paths:
        return DataError(
            f"{source.path} holds no pictures ({len(left_out)} other files)",
            allowed=f"pictures called {NAME_RULE}",
        )
    file, _, reason = next(row for row in left_out if row[1] == NAME_KIND)
    return DataError(
        f"none of the {len(paths)} pictures of {source.path} has a UTKFace name; {file}: {reason}",
        allowed=f"pictures called {NAME_RULE}",
        fix="Rename the pictures so, name another source, or name a table of their labels with "
        "--labels (for FairFace: --layout fairface)",
    )
