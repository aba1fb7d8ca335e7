"""Choose the data set a command works on, or draw a smaller one from a prepared one.

A sample takes whole clusters, and each face stays in the part it was in: what tests here tests
there. It is for trying what takes long on all faces.
"""

import hashlib
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmark.data.dataset import (
    DRAWN_NAME,
    PIXELS_FILE,
    FaceSet,
    check_dataset_name,
    open_faces,
    prepared_datasets,
    staged_folder,
    store_faces,
    write_files,
    write_pixels,
    write_words,
)
from benchmark.data.drawn import DRAWING_VERSION, draw_faces
from benchmark.data.labelled import counted
from benchmark.data.pictures import pixel_digest
from benchmark.errors import DataError
from benchmark.files import file_lock

STORED_NAME: Final = f"drawn-v{DRAWING_VERSION}"
DRAWN_FACES: Final = 3_000
DRAWN_SEED: Final = 1

SAMPLE_VERSION: Final = "clusters-1"
FEWEST: Final = 100


def choose_dataset(data_dir: Path, asked: str | None = None) -> FaceSet:
    """Give the data set asked for, or the only photographed one prepared.

    `drawn` asks for synthetic faces, which are made on first use. Raises DataError for an unknown
    name, and where none was asked for and not exactly one of photographs is prepared.
    """
    if asked == DRAWN_NAME:
        # One process at a time draws them.
        with file_lock(data_dir / ".drawn.lock", wait=True):
            if (data_dir / STORED_NAME).is_dir():
                return open_faces(data_dir / STORED_NAME)
            faces = draw_faces(DRAWN_FACES, DRAWN_SEED)
            return store_faces(faces.images, faces.labels, name=STORED_NAME, data_dir=data_dir)
    prepared = {faces.name: faces for faces in prepared_datasets(data_dir)}
    photographed = [faces for faces in prepared.values() if not faces.drawn]
    if asked in prepared:
        return prepared[asked]
    if asked is None and len(photographed) == 1:
        return photographed[0]
    if asked is None and photographed:
        raise DataError(
            f"{len(photographed)} data sets are prepared and none was asked for",
            allowed=", ".join(sorted(faces.name for faces in photographed)),
            source=str(data_dir),
            fix="Name one with --dataset",
        )
    raise DataError(
        "no data set is prepared here" if asked is None else f"no data set {asked!r} is prepared",
        allowed=", ".join([*sorted(prepared), DRAWN_NAME]),
        source=str(data_dir),
        fix="`facebench data prepare SOURCE` prepares one from an archive or a folder of faces; "
        f"`--dataset {DRAWN_NAME}` uses synthetic faces, without a download",
    )


def draw_sample(faces: FaceSet, n_faces: int, name: str) -> FaceSet:
    """Store about `n_faces` of `faces` as the data set `name` beside it, clusters whole.

    Clusters are taken in the order of a hash of their first face's name, until there are
    `n_faces` or more; every machine draws the same. Copies and conflicts without a place come
    along with their clusters. Raises DataError for a size out of range or a name that is taken.
    """
    check_dataset_name(name, drawn=faces.drawn)
    if not FEWEST <= n_faces < len(faces.table):
        raise DataError(
            f"a sample of {n_faces:,} faces",
            allowed=f"{FEWEST} to {len(faces.table) - 1:,}, fewer than {faces.name} has",
        )
    final = faces.folder.parent / name
    about = {
        "version": SAMPLE_VERSION,
        "of": faces.name,
        "pixel_digest": faces.pixel_digest,
        "n_asked": n_faces,
    }
    if final.exists():
        there = open_faces(final)
        if there.manifest.get("sample") != about:
            raise DataError(
                f"data set {name!r} is there already and is another one",
                source=str(final),
                fix="Remove the folder, or choose another --name",
            )
        return there
    rows = sampled_rows(faces, n_faces)
    table = faces.table.iloc[rows].reset_index(drop=True)
    with staged_folder(final) as folder:
        pixels = faces.pixels()
        write_pixels(folder, (pixels[row] for row in rows), len(rows), faces.image_px)
        if (words := faces.words()) is not None:
            write_words(folder, words, table)
        manifest = faces.manifest | {
            "name": name,
            "sample": about,
            "near_duplicates": {
                "method": f"clusters of {faces.name}, kept whole",
                "threshold_bits": None,
            },
            "pixel_digest": pixel_digest(folder / PIXELS_FILE),
        }
        if labels := faces.manifest.get("labels"):
            manifest["labels"] = counted(labels, table)
        write_files(folder, table, (), manifest)
    return open_faces(final)


def sampled_rows(faces: FaceSet, n_faces: int) -> NDArray[np.int64]:
    """Choose the rows of a sample, ascending: whole clusters, `n_faces` or a few more."""
    firsts = faces.table.sort_values("file", kind="stable").drop_duplicates("cluster")
    keys = [
        hashlib.sha256(f"{SAMPLE_VERSION}\n{file}".encode()).hexdigest() for file in firsts["file"]
    ]
    order = firsts["cluster"].to_numpy()[np.argsort(keys, kind="stable")]
    sizes = faces.table["cluster"].value_counts()
    n_clusters = int(np.searchsorted(np.cumsum(sizes.loc[order].to_numpy()), n_faces)) + 1
    chosen = np.isin(faces.table["cluster"].to_numpy(), order[:n_clusters])
    return np.flatnonzero(chosen)


def pairs_within_clusters(faces: FaceSet) -> int:
    """Count the pairs of faces that are the same picture: of a cluster of k, k (k - 1) / 2."""
    sizes = faces.table["cluster"].value_counts().to_numpy()
    return int((sizes * (sizes - 1) // 2).sum())
