"""Fetch a published archive of faces, after its licence was accepted; what is in it is for others.

Where the archive is and what its checksum is, huggingface_hub says, an optional package that is
imported only here and only when used; bytes come as weights do, gone on with where they were cut.
No account or token is used, and nothing is sent but the request.
"""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmark.data.archive import open_source
from benchmark.data.labels import LICENCE, WEBSITE
from benchmark.data.packing import take_census
from benchmark.errors import DataError, WeightsError
from benchmark.files import sha256_of
from benchmark.models.download import fetch as fetch_file

SETTINGS: Final = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
}
"""Must be in the environment before huggingface_hub is imported for the first time."""
TIMEOUT_SECONDS: Final = 10
SHA256: Final = re.compile("[0-9a-f]{64}")
PART_FOLDER: Final = ".fetching"
"""Under the data folder: what has arrived so far."""

OnBytes = Callable[[int, int | None], None]
"""Hears how many bytes have arrived, and of how many where the server says."""


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
    published: Published,
    data_dir: Path,
    *,
    on_bytes: OnBytes | None = None,
    endpoint: str | None = None,
) -> Fetched:
    """Fetch an archive to `data_dir`, unless it is there; whole and looked through, or not at all.

    endpoint: another hub than the one of HF_ENDPOINT, or the public one. Raise DataError where
    nothing is to be had, it is no archive of faces, or cannot be written.
    """
    target = data_dir / published.file_name
    is_new = not target.exists()
    if not is_new:
        return Fetched(target, is_new, _count_faces(target, published), sha256_of(target))
    arrived = data_dir / PART_FOLDER / published.file_name
    _download(published, arrived, on_bytes, endpoint)
    try:
        n_faces = _count_faces(arrived, published)
        arrived.replace(target)
    finally:
        # Whole and right, or whole and wrong: in neither case is there anything to go on with.
        shutil.rmtree(data_dir / PART_FOLDER, ignore_errors=True)
    return Fetched(target, is_new, n_faces, sha256_of(target))


def _download(
    published: Published, target: Path, on_bytes: OnBytes | None, endpoint: str | None
) -> None:
    hub = _hub()
    try:
        url = hub.hf_hub_url(
            published.repository,
            published.file_name,
            repo_type="dataset",
            endpoint=endpoint or os.environ.get("HF_ENDPOINT"),
        )
        told = hub.get_hf_file_metadata(url, token=False, timeout=TIMEOUT_SECONDS)
        digest = str(told.etag) if SHA256.fullmatch(str(told.etag)) else None
        fetch_file(
            url,
            target,
            lambda path: _check_digest(path, digest),
            None if on_bytes is None else lambda _, here, total: on_bytes(here, total),
            judged_by_sum=digest is not None,
        )
    except (OSError, hub.errors.HFValidationError, WeightsError) as error:
        # Of the hub's own errors all are OSError: no network, no such file.
        raise DataError(
            f"{published.file_name} could not be fetched: {_reason(error)}",
            source=f"{published.repository} on the Hugging Face hub",
            fix=f"The same command goes on where it stopped. Or download it by hand from "
            f"{published.website} to {target.parent.parent / published.file_name}",
        ) from error


def _check_digest(path: Path, digest: str | None) -> None:
    """Hold what came against the sum that the hub tells of a large file; WeightsError if other."""
    if digest is not None and sha256_of(path) != digest:
        raise WeightsError("the bytes that came are not those of the hub's checksum")


def _hub() -> Any:
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import huggingface_hub
        import huggingface_hub.errors
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


def _reason(error: Exception) -> str:
    text = error.found if isinstance(error, WeightsError) else str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
