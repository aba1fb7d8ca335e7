"""The pictures that a person names: files and folders of them, each once, none lost.

What is in them is for others to look at.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmark.errors import DataError
from benchmark.faces.archive import MAX_FILE_BYTES
from benchmark.faces.labels import is_picture_name


@dataclass(frozen=True)
class PictureList:
    """Pictures by path, in the order they were named; those of a folder by name."""

    paths: tuple[Path, ...]
    n_not_pictures: int
    """Files in the folders that are no pictures by their names."""

    def contents(self) -> Iterator[tuple[int, bytes | str]]:
        """Yield number and bytes of each; why instead of bytes where it cannot be read."""
        for number, path in enumerate(self.paths):
            yield number, read_file(path)


def list_pictures(named: Iterable[Path]) -> PictureList:
    """List the pictures named; a file is taken for one whatever its name.

    A file that does not exist is listed: reading it says so. Raises DataError where there is
    nothing to read at all.
    """
    named = list(named)
    paths: dict[Path, None] = {}
    n_others = 0
    for path in named:
        if not path.is_dir():
            paths[path] = None
            continue
        files = sorted(item for item in path.rglob("*") if not item.is_dir())
        pictures = [item for item in files if is_picture_name(item.as_posix())]
        paths |= dict.fromkeys(pictures)
        n_others += len(files) - len(pictures)
    if not paths:
        raise DataError(
            f"{', '.join(map(str, named)) or 'nothing'} holds no pictures"
            + (f" ({n_others} other files)" if n_others else ""),
            allowed="pictures, or folders with JPEG, PNG, BMP, GIF, TIFF or WEBP files",
        )
    return PictureList(tuple(paths), n_others)


def read_file(path: Path) -> bytes | str:
    """Read a picture's bytes, or say in a line why they cannot be had."""
    if not path.exists():
        return "the file does not exist"
    if not path.is_file():  # Opening a pipe would wait for ever.
        return "it is not a regular file"
    try:
        if (n_bytes := path.stat().st_size) > MAX_FILE_BYTES:
            return f"the file has {n_bytes:,} bytes (allowed: {MAX_FILE_BYTES:,})"
        return path.read_bytes()
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
