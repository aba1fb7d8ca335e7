"""Download a published archive of faces, after its licence was accepted.

huggingface_hub does it, an optional package that is imported only here and only when used: it
resumes, and says where the archive is and what its checksum is. No account or token is used, and
nothing is sent but the request. What is in the archive is for other modules.
"""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmark.data.archive import open_source
from benchmark.data.labels import LICENCE, WEBSITE
from benchmark.data.packing import take_census
from benchmark.errors import DataError
from benchmark.files import sha256_of

SETTINGS: Final = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
}
"""Must be in the environment before huggingface_hub is imported for the first time."""
TIMEOUT_SECONDS: Final = 10
SHA256: Final = re.compile("[0-9a-f]{64}")
PART_FOLDER: Final = ".fetching"
"""Under the data folder: what has arrived so far."""


@dataclass(frozen=True)
class Published:
    """A data set as it is published: where, under which name, and what one must accept."""

    name: str
    repository: str
    """On the hub: a copy that others keep there, so that what came is looked through."""
    file_name: str
    website: str
    terms: tuple[str, ...]


UTKFACE: Final = Published(
    name="utkface",
    repository="py97/UTKFace-Cropped",
    file_name="UTKFace.tar.gz",
    website=WEBSITE,
    terms=(
        f"UTKFace is published at {WEBSITE} for {LICENCE}.",
        "The copyright of the pictures stays with their owners; they show real people, who were "
        "not asked. Do not publish, sell or pass on pictures, and take out whom you are asked to.",
        "Labels are perceived age, gender and race, estimated by a model and checked by one "
        "annotator. Nothing trained on them may decide anything about a person.",
    ),
)
PUBLISHED: Final = {item.name: item for item in (UTKFACE,)}


def published_as(name: str) -> Published:
    """Find a published data set by name; raise DataError where it is not known."""
    if name not in PUBLISHED:
        raise DataError(f"no published data set is called {name!r}", allowed=", ".join(PUBLISHED))
    return PUBLISHED[name]


@dataclass(frozen=True)
class Fetched:
    """An archive that is here now."""

    path: Path
    is_new: bool
    n_faces: int
    sha256: str


def fetch(
    published: Published, data_dir: Path, *, progress: bool = False, endpoint: str | None = None
) -> Fetched:
    """Download an archive to `data_dir`, unless it is there; whole and checked, or not at all.

    What was interrupted is resumed. progress: show it on stderr. endpoint: another hub than the one
    of HF_ENDPOINT, or the public one. Raise DataError where nothing is available, it is no archive
    of faces, or cannot be written.
    """
    target = data_dir / published.file_name
    is_new = not target.exists()
    if is_new:
        arrived = _downloaded(published, data_dir, endpoint, progress=progress)
        try:
            n_faces = _count_faces(arrived, published)
            arrived.replace(target)
        finally:
            # Whole and right, or whole and wrong: in neither case is there anything to resume.
            shutil.rmtree(arrived.parent, ignore_errors=True)
    else:
        n_faces = _count_faces(target, published)
    return Fetched(target, is_new, n_faces, sha256_of(target))


def _downloaded(
    published: Published, data_dir: Path, endpoint: str | None, *, progress: bool
) -> Path:
    hub = _hub()
    endpoint = endpoint or os.environ.get("HF_ENDPOINT")
    where = {"repo_type": "dataset", "endpoint": endpoint}
    hub.utils.enable_progress_bars() if progress else hub.utils.disable_progress_bars()
    try:
        url = hub.hf_hub_url(published.repository, published.file_name, **where)
        etag = hub.get_hf_file_metadata(url, token=False, timeout=TIMEOUT_SECONDS).etag
        path = Path(
            hub.hf_hub_download(
                published.repository, published.file_name, **where, token=False,
                local_dir=data_dir / PART_FOLDER, etag_timeout=TIMEOUT_SECONDS,
            )
        )  # fmt: skip
        # Of a large file the hub gives the sha256.
        if SHA256.fullmatch(str(etag)) and sha256_of(path) != etag:
            shutil.rmtree(path.parent)
            raise OSError("the bytes that came are not those of the hub's checksum")
    except (OSError, hub.errors.HFValidationError) as error:
        # Of the hub's own errors all are OSError: no network, no such file.
        reason = str(error).strip() or type(error).__name__
        raise DataError(
            f"{published.file_name} could not be downloaded: {reason.splitlines()[0]}",
            source=f"{published.repository} on the Hugging Face hub",
            fix="The same command resumes it. Or download it by hand from "
            f"{published.website} to {data_dir / published.file_name}",
        ) from error
    return path


def _hub() -> Any:
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import huggingface_hub
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError as error:
        raise DataError(
            f"huggingface_hub cannot be imported: {error}",
            fix="`pip install 'facebench[fetch]'` installs it",
        ) from error
    return huggingface_hub


def _count_faces(path: Path, published: Published) -> int:
    """Read every name, which finds damage too; an archive that holds no faces is not kept."""
    try:
        return len(take_census(open_source(path)).faces)
    except DataError as error:
        raise DataError(
            f"what came as {published.file_name} is not the archive: {error.found}",
            source=str(path),
            fix=f"It is not kept where it was just fetched. Download it by hand from "
            f"{published.website}",
        ) from error
