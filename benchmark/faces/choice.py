"""Which data set a command works on: the one asked for, the only one there, or drawn faces."""

from pathlib import Path
from typing import Final

from benchmark.claims import claimed
from benchmark.errors import DataError
from benchmark.faces.drawn import DRAWING_VERSION, draw_faces
from benchmark.faces.folder import DRAWN_NAME
from benchmark.faces.store import FaceSet, open_faces, prepared_datasets, store_faces

STORED_NAME: Final = f"drawn-v{DRAWING_VERSION}"
DRAWN_FACES: Final = 3_000
DRAWN_SEED: Final = 1


def choose_dataset(data_dir: Path, asked: str | None = None) -> FaceSet:
    """Give the data set asked for, the only photographed one prepared, or drawn faces.

    Drawn faces are made on first use. Raises DataError for an unknown name, and when several
    data sets are prepared and none was asked for.
    """
    prepared = {faces.name: faces for faces in prepared_datasets(data_dir)}
    if asked == DRAWN_NAME:
        return _drawn(data_dir)
    if asked is not None:
        if asked not in prepared:
            raise DataError(
                f"no data set {asked!r} is prepared",
                allowed=", ".join([*sorted(prepared), DRAWN_NAME]),
                source=str(data_dir),
                fix="`facebench data prepare SOURCE` makes one",
            )
        return prepared[asked]
    photographed = [faces for faces in prepared.values() if not faces.drawn]
    if len(photographed) > 1:
        raise DataError(
            f"{len(photographed)} data sets are prepared and none was asked for",
            allowed=", ".join(sorted(faces.name for faces in photographed)),
            source=str(data_dir),
            fix="Name one with --dataset",
        )
    return photographed[0] if photographed else _drawn(data_dir)


def _drawn(data_dir: Path) -> FaceSet:
    """Open the drawn faces, drawing them first where they are not; one process at a time."""
    with claimed(data_dir / ".drawn.lock", wait=True):
        if (data_dir / STORED_NAME).is_dir():
            return open_faces(data_dir / STORED_NAME)
        drawn = draw_faces(DRAWN_FACES, DRAWN_SEED)
        return store_faces(
            drawn.images, drawn.labels, name=STORED_NAME, drawn=True, data_dir=data_dir
        )
