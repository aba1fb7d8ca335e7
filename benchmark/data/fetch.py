"""Download a published archive of faces, after its licence was accepted.

huggingface_hub does it, an optional package that is imported only here and only when used: it
tries again where a connection broke, and says where the archive is and what its checksum is. No
account or token is used, and nothing is sent but the request.
"""

import importlib
import os
import re
import shutil
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmark.data.archive import open_source
from benchmark.data.labelled import scan_names
from benchmark.data.labels import LICENCE, WEBSITE
from benchmark.data.progress import owned
from benchmark.errors import DataError
from benchmark.files import sha256_of

TIMEOUT_SECONDS: Final = 10
PART_FOLDER: Final = ".fetching"
"""Under the data folder: what has arrived so far."""

REPOSITORY: Final = "py97/UTKFace-Cropped"
"""On the hub: a copy that others keep there, so that what came is checked."""
FILE_NAME: Final = "UTKFace.tar.gz"
TERMS: Final = (
    f"UTKFace is published at {WEBSITE} for {LICENCE}.",
    "The copyright of the pictures stays with their owners; they show real people, who were "
    "not asked. Do not publish, sell or pass on pictures, and remove a person's on request.",
    "Labels are perceived age, gender and race, estimated by a model and checked by one "
    "annotator. Nothing trained on them may decide anything about a person.",
)


class Fetched(NamedTuple):
    path: Path
    is_new: bool
    n_faces: int
    sha256: str


def fetch(data_dir: Path, *, progress: bool = False) -> Fetched:
    """Download UTKFace to `data_dir`, unless it is there; whole and checked, or not at all.

    progress: show it on stderr. The hub is that of HF_ENDPOINT, or the public one. Raise DataError
    where nothing is available, or it is no archive of faces.
    """
    target, folder = data_dir / FILE_NAME, data_dir / PART_FOLDER
    with owned(target):
        if target.exists():
            return Fetched(target, False, _count_faces(target), sha256_of(target))
        shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
        try:
            arrived = _downloaded(data_dir, folder, progress=progress)
            n_faces = _count_faces(arrived)
            arrived.replace(target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return Fetched(target, True, n_faces, sha256_of(target))


def _downloaded(data_dir: Path, folder: Path, *, progress: bool) -> Path:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # before its first import
    os.environ.setdefault("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    try:
        hub: Any = importlib.import_module("huggingface_hub")
        utils: Any = importlib.import_module("huggingface_hub.utils")
        errors: Any = importlib.import_module("huggingface_hub.errors")
    except ImportError as error:
        raise DataError(
            f"huggingface_hub cannot be imported: {error}",
            fix="`pip install 'facebench[fetch]'` installs it",
        ) from error
    file: dict[str, Any] = {"repo_id": REPOSITORY, "filename": FILE_NAME, "repo_type": "dataset"}
    file["endpoint"] = os.environ.get("HF_ENDPOINT")
    utils.enable_progress_bars() if progress else utils.disable_progress_bars()
    try:
        url = hub.hf_hub_url(**file)
        etag = hub.get_hf_file_metadata(url, token=False, timeout=TIMEOUT_SECONDS).etag
        arrived = hub.hf_hub_download(
            **file, token=False, local_dir=folder, etag_timeout=TIMEOUT_SECONDS
        )
        # Of a large file the hub gives the sha256.
        if re.fullmatch("[0-9a-f]{64}", str(etag)) and sha256_of(Path(arrived)) != etag:
            raise OSError("the bytes that came are not those of the hub's checksum")
    except (OSError, errors.HFValidationError, errors.HTTPError) as error:
        reason = str(error).strip() or type(error).__name__
        raise DataError(
            f"{FILE_NAME} could not be downloaded: {reason.splitlines()[0]}",
            source=f"{REPOSITORY} on the Hugging Face hub",
            fix=f"Try again, or download it by hand from {WEBSITE} to {data_dir / FILE_NAME}",
        ) from error
    return Path(arrived)


def _count_faces(path: Path) -> int:
    """Read every name, which finds damage too; an archive that holds no faces is not kept."""
    try:
        return len(scan_names(open_source(path)).paths)
    except DataError as error:
        raise DataError(
            f"what came as {FILE_NAME} is not the archive: {error.found}",
            source=str(path),
            fix=f"It is not kept where it was just fetched. Download it by hand from {WEBSITE}",
        ) from error
