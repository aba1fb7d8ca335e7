"""Read faces from a folder, .tar, .tar.gz or .zip, as a stream of names and bytes.

Nothing is unpacked to disk. An archive that is damaged, cut short or unsafe is refused as a whole:
what else would be wrong with it is unknown. Pictures that a person, a list or a table names are
found here too, and a published archive is downloaded once its licence was accepted.
"""

import contextlib
import gzip
import hashlib
import importlib
import io
import os
import posixpath
import re
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from benchmark.data.labels import LICENCE, PICTURE_SUFFIXES, WEBSITE, is_picture_name, parse_name
from benchmark.data.progress import OnProgress, keep_quiet, owned
from benchmark.errors import DataError
from benchmark.files import sha256_of

ALLOWED: Final = "a folder, .tar, .tar.gz (.tgz) or .zip"
MAX_FILE_BYTES: Final = 64 << 20
"""A larger file is not read: a picture of 64 megapixels, the most we decode, is smaller."""
TAR_BLOCK_BYTES: Final = 512
MAX_EXPANSION: Final = 100
"""Pictures hardly shrink, and the emptiest of tar's headers by less than this."""
FREE_BYTES: Final = 256 << 20
"""What any archive may unpack to, however small it is."""
DAMAGE: Final = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, struct.error),
    NotImplementedError,  # zipfile: a compression it does not know
    ValueError,  # tarfile, zipfile: numbers in a header that cannot be
)
"""What the libraries raise on damaged archives."""
LINKED: Final = "a folder that is a link is not followed"
_ENDING: Final = re.compile(
    "(?:" + "|".join(re.escape(suffix) for suffix in sorted(PICTURE_SUFFIXES)) + r")(?=\.|$)"
)

Content = bytes | str
"""A file's bytes, or in a line why they cannot be had."""


class Member(NamedTuple):
    """One file of a source: its path inside, with `/`; its size; what it is where it is no file."""

    path: str
    n_bytes: int
    problem: str = ""


Entry = tuple[Member, Callable[[], Content]]
"""A member, and how to read it before the next one is asked for."""


@dataclass(frozen=True)
class Source:
    """A folder or an archive of faces; made by `open_source`."""

    path: Path
    entries: Callable[[], Iterator[Entry]] = field(repr=False, compare=False)
    """Not compared: a source that went to another process and back is the same one."""

    def members(self) -> list[Member]:
        """List every file, and the folders that are links; raise DataError for a damaged or unsafe
        archive, which is read to its end."""
        return [member for member, _ in self.entries()]

    def pictures(self) -> tuple[list[str], list[tuple[str, str]]]:
        """Give the paths of the pictures, and of the other members the names and why they are none;
        raise DataError where there are no pictures."""
        problems = {member.path: member.problem for member in self.members()}
        pictures, others = list[str](), list[tuple[str, str]]()
        for path, problem in problems.items():
            if is_picture_name(path):
                pictures.append(path)
            else:
                others.append((printable(path), problem or "not a picture by its name"))
        if not pictures:
            found = f"{self.path} holds no pictures ({len(others)} other files)"
            raise DataError(found, allowed="JPEG, PNG, BMP, GIF, TIFF or WEBP files")
        return pictures, others

    def contents(self, paths: set[str]) -> Iterator[tuple[str, Content]]:
        """Yield path and content of the members asked for, in the source's own order."""
        for member, read in self.entries():
            if member.path in paths:
                yield member.path, _too_large(member.n_bytes) or read()

    def sha256(self, on_progress: OnProgress = keep_quiet) -> str:
        """Digest an archive's bytes, or a folder's names, sizes and contents."""
        if not self.path.is_dir():
            return sha256_of(self.path)
        entries = [entry for entry in self.entries() if not entry[0].problem]
        digest = hashlib.sha256()
        for done, (member, read) in enumerate(sorted(entries, key=lambda e: e[0].path), start=1):
            content = read()
            body = content.encode() if isinstance(content, str) else content
            line = f"{member.path}\0{member.n_bytes}\0{hashlib.sha256(body).hexdigest()}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
            if done % 256 == 0 or done == len(entries):
                on_progress(f"reading {self.path.name}", done, len(entries))
        return digest.hexdigest()


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
        return Source(path, partial(_folder_entries, path))
    if not path.is_file():  # opening a pipe would wait for ever
        raise DataError(f"{path} is neither a file nor a folder", allowed=ALLOWED)
    with _checked(path), path.open("rb") as stream:
        head = stream.read(TAR_BLOCK_BYTES)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return Source(path, partial(_zip_entries, path))
    if head.startswith(b"\x1f\x8b"):
        return Source(path, partial(_tar_entries, path, gzip.open))
    with contextlib.suppress(tarfile.HeaderError):
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
        return Source(path, partial(_tar_entries, path, open))
    raise DataError(f"{path} is not an archive", allowed=ALLOWED)


def _too_large(n_bytes: int) -> str:
    problem = f"the file has {n_bytes:,} bytes (allowed: {MAX_FILE_BYTES:,})"
    return problem if n_bytes > MAX_FILE_BYTES else ""


def _folder_entries(folder: Path) -> Iterator[Entry]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        linked = [name for name in folders if Path(parent, name).is_symlink()]
        for path in sorted(Path(parent, name) for name in (*names, *linked)):
            n_bytes = path.stat().st_size if path.is_file() else 0
            problem = LINKED if path.is_dir() else ""
            member = Member(path.relative_to(folder).as_posix(), n_bytes, problem)
            yield member, partial(read_file, path)


def read_file(path: Path) -> Content:
    """Read a picture's bytes, or say in a line why they cannot be had."""
    if not os.path.lexists(path):
        return "the file does not exist"
    if not path.is_file():  # Opening a pipe would wait for ever.
        return "it is not a regular file, or a link to nowhere"
    try:
        return _too_large(path.stat().st_size) or path.read_bytes()
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"


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


def _tar_entries(path: Path, opener: Callable[[Path, str], Any]) -> Iterator[Entry]:
    with _checked(path), contextlib.ExitStack() as stack:
        raw = stack.enter_context(opener(path, "rb"))
        watched: Any = _Watched(raw, path)
        tar: Any = stack.enter_context(tarfile.open(fileobj=watched, mode="r|"))
        while (info := tar.next()) is not None:
            tar.members.clear()  # tarfile keeps all headers: memory must not grow
            name = _safe_path(path, info.name, is_plain=info.isreg() or info.isdir())
            if info.isreg():
                yield Member(name, info.size), partial(_read, path, tar.extractfile, info)
        watched.check_end(tar.offset)


def _zip_entries(path: Path) -> Iterator[Entry]:
    with _checked(path), zipfile.ZipFile(path) as archive:
        _refuse_bomb(path, sum(info.file_size for info in archive.infolist()))
        for info in archive.infolist():
            is_plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
            name = _safe_path(path, info.filename, is_plain=is_plain)
            if info.flag_bits & 0x1:
                raise DataError(f"{path} is encrypted", allowed="an archive without a password")
            if not info.is_dir():
                yield Member(name, info.file_size), partial(_read, path, archive.open, info)


def _read(path: Path, opener: Callable[[Any], IO[bytes]], info: Any) -> bytes:
    with _checked(path), opener(info) as stream:
        return stream.read()


def _safe_path(path: Path, member_path: str, *, is_plain: bool) -> str:
    """Give a member's path; raise DataError on one that no archive of faces has by accident."""
    tidy = member_path.replace("\\", "/")
    parts = tidy.split("/")
    leads_out = parts[0] == "" or ".." in parts or parts[0].endswith(":")
    if leads_out or not is_plain:
        what = "leads out of it" if leads_out else "is a link or a device"
        raise DataError(
            f"{path.name} has a member that {what}: {member_path!r}",
            allowed="files and folders under relative paths",
            fix="Get the archive from its publisher; nothing was read from this one",
        )
    return tidy.removeprefix("./")


def _refuse_bomb(path: Path, n_bytes: int) -> None:
    if n_bytes > FREE_BYTES + MAX_EXPANSION * path.stat().st_size:
        found = f"{path.name} unpacks to more than {MAX_EXPANSION} times its size"
        allowed = "an archive of pictures, which hardly shrink"
        raise DataError(found, allowed=allowed, source=str(path))


class _Watched(io.RawIOBase):
    """A stream that refuses a bomb, and knows where its last byte other than zero was.

    tarfile takes a header that is missing or damaged for the end of the archive; only what comes
    after that point distinguishes a whole archive from one cut between two members.
    """

    def __init__(self, raw: IO[bytes], path: Path) -> None:
        self._raw, self._path = raw, path
        self._position = self._end_of_data = 0

    def read(self, n_bytes: int = -1) -> bytes:
        piece = self._raw.read(n_bytes)
        if data := piece.rstrip(b"\0"):
            self._end_of_data = self._position + len(data)
        self._position += len(piece)
        _refuse_bomb(self._path, self._position)
        return piece

    def check_end(self, end_of_members: int) -> None:
        """Read to the end; raise ReadError unless zeros, a block or more, follow the members."""
        while self.read(1 << 20):
            pass
        if self._position < end_of_members + TAR_BLOCK_BYTES:
            raise tarfile.ReadError("its end mark is missing")
        if self._end_of_data > end_of_members:
            raise tarfile.ReadError(f"no header can be read at byte {end_of_members:,}")


def list_pictures(named: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """List the pictures named, each once, in this order, those of a folder by name; and what else
    is in folders, by its name no picture, or a link to a folder, which is not followed.

    A file is listed whatever its name, and if it does not exist: reading it says so. Raises
    DataError where there is nothing to read at all.
    """
    named, paths, others = list(named), list[Path](), list[Path]()
    for path in named:
        if not path.is_dir():
            paths.append(path)
        for file in sorted(path.rglob("*")) if path.is_dir() else ():
            if file.is_symlink() or not file.is_dir():
                is_one = is_picture_name(file.as_posix()) and not file.is_dir()
                (paths if is_one else others).append(file)
    if not paths:
        raise DataError(
            f"{', '.join(map(str, named)) or 'nothing'} holds no pictures",
            allowed="pictures, or folders with JPEG, PNG, BMP, GIF, TIFF or WEBP files",
        )
    return list(dict.fromkeys(paths)), others


def decoded(content: bytes) -> str:
    """Decode a text file; raise DataError for what is no text."""
    marks = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
    marked = [encoding for mark, encoding in marks.items() if content.startswith(mark)]
    for encoding in marked or ("utf-8", "cp1252"):  # Western Europe's Windows writes the last
        with contextlib.suppress(UnicodeDecodeError):
            if "\0" not in (text := content.decode(encoding)):
                return text
    raise DataError("it is no text in UTF-8, UTF-16 or Windows-1252")


def printable(file: str) -> str:
    """Give a name that any terminal and any file takes: odd characters as their escapes."""
    encoded = file.encode("utf-8", "backslashreplace").decode()
    return encoded if encoded.isprintable() else encoded.encode("unicode_escape").decode("ascii")


def name_key(file: str) -> str:
    """Give what two spellings of one path have in common: `./a\\b.jpg` is `a/b.jpg`."""
    return unicodedata.normalize("NFC", posixpath.normpath(file.replace("\\", "/")))


def without_ending(name: str) -> str:
    """Take a picture's endings off a path: `x/a.jpg` and `x/a.JPG.chip.jpg` are `x/a`."""
    folder, slash, base = name.rpartition("/")
    found = _ENDING.search(base.lower())
    return f"{folder}{slash}{base[: found.start()]}" if found and found.start() else name


class PictureIndex:
    """Finds the picture that a list or table names, by the last parts of its path: names may be
    absolute, begin higher or lower than the source, and have another ending, as of crops."""

    def __init__(self, paths: Iterable[str], above: Sequence[str] = ()) -> None:
        """paths: of the pictures. above: the folders they lie in, which names may begin with."""
        self._paths: defaultdict[str, list[str]] = defaultdict(list)
        for path in paths:
            parts = [*above, *name_key(path).split("/")]
            for start in range(len(parts)):
                name = "/".join(parts[start:])
                for known in {name, without_ending(name)}:
                    self._paths[known].append(path)

    def find(self, file: str) -> tuple[float, list[str], str]:
        """Give the pictures that agree with a name in most last parts: in how many, and in which.

        One picture is the one that is meant. A half more where the ending agrees as well; a folder
        above the source counts, and is no part of the name that is given.
        """
        parts = name_key(file).split("/")
        for start in range(len(parts)):
            name = "/".join(parts[start:])
            found = self._paths.get(name) or self._paths.get(without_ending(name))
            if found:
                if start == 0:
                    found = [path for path in found if name_key(path) == name] or found
                n_named = min(len(parts) - start, found[0].count("/") + 1)
                n_parts = len(parts) - start + found[0].endswith(parts[-1]) / 2
                return n_parts, found, "/".join(parts[-n_named:])
        return 0, [], file


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


def fetch(data_dir: Path, *, progress: bool = False) -> tuple[Path, bool, int]:
    """Download UTKFace to `data_dir`, unless it is there; whole and checked, or not at all.

    progress: show it on stderr. Gives the archive, whether it is new, and how many pictures it
    holds. Raises DataError where nothing is available, or it is no archive of pictures.
    """
    target, folder = data_dir / FILE_NAME, data_dir / PART_FOLDER
    with owned(target), contextlib.ExitStack() as stack:
        archive, is_new = target, not target.exists()
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            archive = _downloaded(data_dir, folder, progress=progress)
        try:  # Every name is read, which finds damage too.
            pictures, _ = open_source(archive).pictures()
            if not any(map(_has_labels, pictures)):
                raise DataError("no picture in it has a name of UTKFace's")
        except DataError as error:
            found = f"what came as {FILE_NAME} is not the archive: {error.found}"
            fix = f"A file just fetched was removed again; download it by hand from {WEBSITE}"
            raise DataError(found, source=str(target), fix=fix) from error
        return archive.replace(target), is_new, len(pictures)


def _has_labels(path: str) -> bool:
    try:
        return bool(parse_name(path.rpartition("/")[2]))
    except DataError:
        return False


def _downloaded(data_dir: Path, folder: Path, *, progress: bool) -> Path:
    """Download by huggingface_hub, an optional package: from the hub of HF_ENDPOINT, or the public
    one. No account or token is used, and nothing is sent but the request."""
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
