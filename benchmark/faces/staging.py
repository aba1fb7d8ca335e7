"""A folder that is either whole or not there: made under a hidden name, renamed at the end."""

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmark.errors import DataError

SUFFIX: Final = ".partial"
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No room on the disk, in the user's quota, or under the process's limit of file size."""
TAKEN: Final = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
"""What renaming a folder onto a folder with something in it, or onto a file, ends in."""


@contextlib.contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """Yield a new hidden folder beside `final`, renamed to it if the block ends well.

    If it does not, the folder is removed. What a killed process left is removed by the next one
    that makes the same folder; a folder at work is locked and let be. Raises DataError on a full
    disk, and where there is no writing.
    """
    with _disk_troubles_told(final.parent):
        final.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(final)
        staging = final.parent / f".{final.name}.{secrets.token_hex(4)}{SUFFIX}"
        staging.mkdir()
    lock = os.open(staging, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _disk_troubles_told(final.parent):
            yield staging
            _take_name(staging, final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(lock)


def _remove_leftovers(final: Path) -> None:
    for leftover in final.parent.glob(f".{final.name}.*{SUFFIX}"):
        lock = os.open(leftover, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(leftover, ignore_errors=True)
        except BlockingIOError:
            continue  # another process is at work on it
        finally:
            os.close(lock)


def _take_name(staging: Path, final: Path) -> None:
    try:
        staging.rename(final)
    except OSError as error:
        if error.errno not in TAKEN:
            raise
        raise DataError(
            f"there is something called {final.name!r} already",
            allowed="a new name",
            source=str(final.parent),
            fix="Remove it, or choose another --name",
        ) from error


@contextlib.contextmanager
def _disk_troubles_told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise DataError(
                f"the disk is full: {error.strerror}",
                allowed="about image_px * image_px * 3 bytes a face, 0.7 GB for UTKFace at 100",
                source=str(folder),
                fix="Free some space or name another place with --data-dir; nothing was left here",
            ) from error
        raise DataError(
            f"the data set cannot be written: {error.strerror}",
            allowed="a folder that may be written to",
            source=str(error.filename or folder),
            fix="Name another place with --data-dir",
        ) from error
