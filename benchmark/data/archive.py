"""Read faces from a folder, .tar, .tar.gz or .zip, as a stream of names and bytes.

Nothing is unpacked to disk, and no file's content is understood here. An archive that is damaged,
cut short or unsafe is refused as a whole: what else would be wrong with it is unknown. Files and
folders of pictures that a person names are listed here too.
"""

import contextlib
import gzip
import hashlib
import io
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, cast

from benchmark.data.labels import LICENCE, WEBSITE, is_picture_name
from benchmark.data.progress import OnProgress, keep_quiet
from benchmark.errors import DataError
from benchmark.files import sha256_of

ALLOWED: Final = "a folder, .tar, .tar.gz (.tgz) or .zip"
FETCH_ANEW: Final = "Get the archive from its publisher; nothing was read from this one"

MAX_FILE_BYTES: Final = 64 << 20
"""A larger file is not read: a picture of 64 megapixels, the most we decode, is smaller."""
TAR_BLOCK_BYTES: Final = 512
MAX_EXPANSION: Final = 100
"""Pictures hardly shrink, and the emptiest of tar's headers by less than this."""
FREE_BYTES: Final = 256 << 20
"""What any archive may unpack to, however small it is."""

DAMAGE: Final = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    NotImplementedError,  # zipfile: a compression it does not know
    ValueError,  # tarfile, zipfile: numbers in a header that cannot be
    struct.error,
)
"""What the libraries raise on damaged archives."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a source: its path inside the source, with `/`, and its size."""

    path: str
    n_bytes: int

    @property
    def name(self) -> str:
        """The base name."""
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why the content of one file cannot be had, while the rest of the source is sound."""

    reason: str


Content = bytes | Unreadable
Entry = tuple[Member, Callable[[], Content]]
"""A member, and how to read it before the next one is asked for."""


@dataclass(frozen=True)
class Source:
    """A folder or an archive of faces; made by `open_source`."""

    path: Path
    kind: str
    """folder, tar, tar.gz or zip."""

    def members(self) -> list[Member]:
        """List every file, having read the source to its end.

        Raises DataError if it is damaged, cut short, or holds links, devices or paths that lead
        out of it.
        """
        return [member for member, _ in self._entries()]

    def contents(self, paths: set[str]) -> Iterator[tuple[str, Content]]:
        """Yield path and content of the members asked for, in the source's own order."""
        for member, read in self._entries():
            if member.path in paths:
                too_large = member.n_bytes > MAX_FILE_BYTES
                yield member.path, Unreadable(_size(member.n_bytes)) if too_large else read()

    def sha256(self, on_progress: OnProgress = keep_quiet) -> str:
        """Digest an archive's bytes, or a folder's names, sizes and contents."""
        stage = f"reading {self.path.name}"
        if self.kind != "folder":
            done, total = 0, self.path.stat().st_size

            def hear(n_bytes: int) -> None:
                nonlocal done
                done += n_bytes
                on_progress(stage, done, total)

            return sha256_of(self.path, hear)
        entries = sorted(_folder_entries(self.path), key=lambda entry: entry[0].path)
        digest = hashlib.sha256()
        for done, (member, read) in enumerate(entries, start=1):
            content = read()
            body = content.reason.encode() if isinstance(content, Unreadable) else content
            line = f"{member.path}\0{member.n_bytes}\0{hashlib.sha256(body).hexdigest()}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
            if done % 256 == 0 or done == len(entries):
                on_progress(stage, done, len(entries))
        return digest.hexdigest()

    def _entries(self) -> Iterator[Entry]:
        if self.kind == "folder":
            return _folder_entries(self.path)
        return _zip_entries(self.path) if self.kind == "zip" else _tar_entries(self)


def open_source(path: Path) -> Source:
    """Look at what `path` is, by its first bytes and not by its name; raise DataError otherwise."""
    if not path.exists():
        raise DataError(
            f"{path} does not exist",
            allowed=ALLOWED,
            fix=f"UTKFace is published at {WEBSITE} for {LICENCE}. Download the aligned and "
            "cropped faces, put the archive at data/UTKFace.tar.gz and run "
            "`facebench data prepare data/UTKFace.tar.gz`; `--dataset drawn` uses synthetic faces",
        )
    if path.is_dir():
        return Source(path, "folder")
    if not path.is_file():
        raise DataError(f"{path} is neither a file nor a folder", allowed=ALLOWED)
    try:
        with path.open("rb") as stream:
            head = stream.read(TAR_BLOCK_BYTES)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", allowed=ALLOWED) from error
    if head.startswith(b"\x1f\x8b"):
        return Source(path, "tar.gz")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return Source(path, "zip")
    with contextlib.suppress(tarfile.HeaderError):
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
        return Source(path, "tar")
    raise DataError(
        f"{path} is not an archive",
        allowed=ALLOWED,
        fix="Name the archive or the folder that holds the faces",
    )


def printable(path: str) -> str:
    """Write a name so that any can go into a text file."""
    return path.encode("utf-8", "backslashreplace").decode()


def _size(n_bytes: int) -> str:
    return f"the file has {n_bytes:,} bytes (allowed: {MAX_FILE_BYTES:,})"


def _folder_entries(folder: Path) -> Iterator[Entry]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            n_bytes = path.stat().st_size if path.is_file() else 0
            yield Member(path.relative_to(folder).as_posix(), n_bytes), partial(_read_member, path)


def _read_member(path: Path) -> Content:
    if not path.is_file():  # Opening a pipe would wait for ever.
        return Unreadable("it is not a regular file, or a link to nowhere")
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_FILE_BYTES)
    except OSError as error:
        return Unreadable(f"it cannot be read: {error.strerror}")


@contextlib.contextmanager
def _checked(path: Path) -> Iterator[None]:
    """Turn what the libraries raise on damaged archives into one sentence."""
    try:
        yield
    except DAMAGE as error:
        raise DataError(
            f"{path} is damaged or cut short: {error}",
            allowed=ALLOWED,
            fix="Compare its size with the published one and download it again",
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", allowed=ALLOWED) from error


def _tar_entries(source: Source) -> Iterator[Entry]:
    path = source.path
    with _checked(path), contextlib.ExitStack() as stack:
        raw: IO[bytes] = stack.enter_context(path.open("rb"))
        if source.kind == "tar.gz":
            raw = cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=raw)))
        watched = _EndWatcher(raw, _Budget(path))
        tar = stack.enter_context(tarfile.open(fileobj=cast(IO[bytes], watched), mode="r|"))
        while (info := tar.next()) is not None:
            cast(Any, tar).members.clear()  # tarfile keeps all headers: memory must not grow
            _refuse_unsafe(path, info.name, is_plain=info.isreg() or info.isdir())
            if info.isreg():
                yield Member(_tidy(info.name), info.size), partial(_read, path, tar, info)
        watched.check_end(tar.offset)


def _zip_entries(path: Path) -> Iterator[Entry]:
    with _checked(path), zipfile.ZipFile(path) as archive:
        budget = _Budget(path)
        for info in archive.infolist():
            budget.spend(info.file_size)
            kind = stat.S_IFMT(info.external_attr >> 16)
            is_plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
            _refuse_unsafe(path, info.filename, is_plain=is_plain)
            if info.flag_bits & 0x1:
                raise DataError(f"{path} is encrypted", allowed="an archive without a password")
            if not info.is_dir():
                read = partial(_read, path, archive, info)
                yield Member(_tidy(info.filename), info.file_size), read


def _read(path: Path, archive: tarfile.TarFile | zipfile.ZipFile, info: Any) -> bytes:
    with _checked(path):
        if isinstance(archive, zipfile.ZipFile):
            return archive.read(info)
        return cast(IO[bytes], archive.extractfile(info)).read()


def _tidy(member_path: str) -> str:
    return member_path.replace("\\", "/").removeprefix("./")


def _refuse_unsafe(path: Path, member_path: str, *, is_plain: bool) -> None:
    """Raise DataError on a member that no archive of faces has; somebody made it on purpose."""
    parts = member_path.replace("\\", "/").split("/")
    leads_out = parts[0] == "" or ".." in parts or parts[0].endswith(":")
    if leads_out or not is_plain:
        what = "leads out of it" if leads_out else "is a link or a device"
        raise DataError(
            f"{path.name} has a member that {what}: {member_path!r}",
            allowed="files and folders under relative paths",
            fix=FETCH_ANEW,
        )


class _Budget:
    """How much an archive may unpack to: a bomb is refused before it has taken its time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = FREE_BYTES + MAX_EXPANSION * path.stat().st_size

    def spend(self, n_bytes: int) -> None:
        """Count bytes that were unpacked or are announced; DataError if they are too many."""
        self._left -= n_bytes
        if self._left < 0:
            raise DataError(
                f"{self._path.name} unpacks to more than {MAX_EXPANSION} times its size",
                allowed="an archive of pictures, which hardly shrink",
                source=str(self._path),
                fix=FETCH_ANEW,
            )


class _EndWatcher(io.RawIOBase):
    """A stream that knows where its last byte other than zero was.

    tarfile takes a header that is missing or damaged for the end of the archive; only what comes
    after that point distinguishes a whole archive from one cut between two members.
    """

    def __init__(self, raw: IO[bytes], budget: _Budget) -> None:
        self._raw = raw
        self._budget = budget
        self._position = 0
        self._end_of_data = 0

    def read(self, n_bytes: int = -1) -> bytes:
        piece = self._raw.read(n_bytes)
        self._budget.spend(len(piece))
        if data := piece.rstrip(b"\0"):
            self._end_of_data = self._position + len(data)
        self._position += len(piece)
        return piece

    def check_end(self, end_of_members: int) -> None:
        """Read to the end; raise ReadError unless zeros, a block or more, follow the members."""
        while self.read(1 << 20):
            pass
        if self._position < end_of_members + TAR_BLOCK_BYTES:
            raise tarfile.ReadError("its end mark is missing")
        if self._end_of_data > end_of_members:
            raise tarfile.ReadError(f"no header can be read at byte {end_of_members:,}")


def list_pictures(named: Iterable[Path]) -> list[Path]:
    """List the pictures named, each once, in this order; those of a folder by name.

    A file is taken for a picture whatever its name; one that does not exist is listed, and reading
    it says so. Raises DataError where there is nothing to read at all.
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
    return list(paths)


def read_file(path: Path) -> bytes | str:
    """Read a picture's bytes, or say in a line why they cannot be had."""
    if not path.exists():
        return "the file does not exist"
    if not path.is_file():  # Opening a pipe would wait for ever.
        return "it is not a regular file"
    try:
        if (n_bytes := path.stat().st_size) > MAX_FILE_BYTES:
            return _size(n_bytes)
        return path.read_bytes()
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
