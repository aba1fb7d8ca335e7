"""Crop a folder or archive of photographs into a folder of faces, and report on every picture.

    <picture>.png   the crops, under the pictures' own paths
    crops.csv       one row per picture: found, box, score, faces seen, or why not; written last
    crops.jsonl     the journal: how these are cropped, then a line per picture done

Begun again, it resumes where it was stopped; begun again when done, it crops pictures that are new
or changed. How one picture is cropped is in benchmark.data.crop.
"""

import contextlib
import functools
import hashlib
import io
import json
from collections.abc import Generator, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

import pandas as pd

from benchmark.data.archive import Unreadable, open_source, printable
from benchmark.data.crop import (
    Box,
    CropOptions,
    Detector,
    DetectorChoice,
    crop_picture,
    load_detector,
)
from benchmark.data.labels import PICTURE_SUFFIXES, is_picture_name
from benchmark.data.pictures import pillow_quiet, read_upright
from benchmark.data.progress import OnProgress, in_parallel, keep_quiet
from benchmark.errors import DataError
from benchmark.files import file_lock, lock_owner, write_text

JPEG_QUALITY: Final = 95
PICTURES_A_CORE: Final = 8
"""Pictures read ahead for each core."""

SCHEMA: Final = 1
TABLE_FILE: Final = "crops.csv"
JOURNAL_FILE: Final = "crops.jsonl"
OUTCOMES: Final = ("cropped", "no face", "unreadable")
BOX_COLUMNS: Final = ("left", "top", "right", "bottom")
COLUMNS: Final = (
    *("file", "outcome", "crop", *BOX_COLUMNS, "score", "faces_seen", "reason"),
    *("width", "height", "mode", "n_frames", "is_turned", "sha256"),
)
"""Of crops.csv. A picture has a row for each of its crops, and one row where there is none."""


@dataclass(frozen=True, slots=True)
class CutFace:
    """One face, cut out and encoded."""

    box: Box
    score: float
    image: bytes
    """As the cropper encodes: a PNG or JPEG file, or (px, px, 3) bytes of RGB."""


@dataclass(frozen=True, slots=True)
class CroppedPicture:
    """What became of one picture; whatever it was, there is one of these."""

    outcome: str
    reason: str = ""
    """Why there is no crop; empty where there is one."""
    width: int = 0
    height: int = 0
    """In pixels, turned upright; 0 where it cannot be read."""
    mode: str = ""
    n_frames: int = 1
    is_turned: bool = False
    faces_seen: int = 0
    crops: tuple[CutFace, ...] = ()


@dataclass(frozen=True, slots=True)
class Cropper:
    """How pictures are cropped, in values that every process understands."""

    options: CropOptions = field(default_factory=CropOptions)
    detector: DetectorChoice = field(default_factory=DetectorChoice)
    encoding: Literal["png", "jpeg", "raw"] = "raw"

    def crop(self, content: bytes | str) -> CroppedPicture:
        """Read one picture's file, or why there is none, and cut its faces."""
        if isinstance(content, str):
            return CroppedPicture("unreadable", content)
        with pillow_quiet():
            try:
                picture = read_upright(content)
            except DataError as error:
                return CroppedPicture("unreadable", reason_of(error))
            crops, n_seen = crop_picture(picture.image, _detector(self.detector), self.options)
            cut = []
            for crop in crops:
                stream = io.BytesIO(crop.image.tobytes() if self.encoding == "raw" else b"")
                if self.encoding != "raw":  # PNG has no quality, and ignores it
                    crop.image.save(stream, self.encoding, quality=JPEG_QUALITY)
                cut.append(CutFace(crop.box, crop.score, stream.getvalue()))
        return CroppedPicture(
            *(("cropped", "") if crops else ("no face", "no face found")),
            *picture.image.size,
            picture.mode,
            picture.n_frames,
            picture.is_turned,
            n_seen,
            tuple(cut),
        )


@functools.lru_cache(maxsize=1)
def _detector(choice: DetectorChoice) -> Detector:
    return load_detector(choice)


def reason_of(error: DataError) -> str:
    """Say in a line why a picture cannot be used."""
    return f"{error.found} (allowed: {error.allowed})" if error.allowed else error.found


def cropped(
    contents: Iterable[bytes | str], n_pictures: int, cropper: Cropper
) -> Generator[CroppedPicture]:
    """Crop pictures in order, on all cores; contents: of their files, or why there are none.

    Raises DataError before the first where the detector cannot be loaded.
    """
    _detector(cropper.detector)
    yield from in_parallel(cropper.crop, contents, n_pictures, a_core=PICTURES_A_CORE)


@dataclass(frozen=True)
class CropReport:
    """What became of the pictures of a source."""

    folder: Path
    table: pd.DataFrame
    """The columns of COLUMNS, by the source's own order."""
    detector: str
    n_new: int
    """Pictures cropped now; the others were done before."""
    n_not_pictures: int
    """Files that are no pictures by their names: left alone, and counted."""

    def counts(self) -> dict[str, int]:
        """Count pictures by outcome; every picture of the source is in one of them."""
        of_picture = self.table.drop_duplicates("file")["outcome"].value_counts()
        return {name: int(of_picture.get(name, 0)) for name in OUTCOMES}

    def without_crop(self) -> pd.DataFrame:
        """Give the rows of pictures that have no crop."""
        return self.table[self.table["outcome"] != "cropped"]


def crop_folder(
    source: Path, target: Path, cropper: Cropper, on_progress: OnProgress = keep_quiet
) -> CropReport:
    """Crop every picture of a folder or archive into `target`.

    Raises DataError where there are no pictures, the detector cannot be loaded, or `target` holds
    the crops of another source, detector or other options.
    """
    if not source.exists():
        raise DataError(f"{source} does not exist", allowed="a folder, .tar, .tar.gz or .zip")
    opened = open_source(source)
    members = dict.fromkeys(member.path for member in opened.members())
    pictures = {path: printable(path) for path in members if is_picture_name(path)}
    if not pictures:
        raise DataError(
            f"{source} holds no pictures ({len(members)} other files)",
            allowed="a folder or archive with " + ", ".join(sorted(PICTURE_SUFFIXES)),
        )
    _check_apart(source, target)
    detector = load_detector(cropper.detector).name
    how = {
        "schema": SCHEMA,
        "source": source.resolve().name,
        "detector": detector,
        "encoding": cropper.encoding,
        **asdict(cropper.options),
    }
    files = list(pictures.values())
    number_of = {file: number for number, file in enumerate(files, start=1)}
    names = dict(zip(files, _crop_names(files, cropper.encoding), strict=True))
    taken = {name.casefold() for name in names.values()}
    with _alone_in(target):
        done = _read_journal(target / JOURNAL_FILE, how)
        todo: list[tuple[str, str]] = []

        def contents() -> Iterator[bytes | str]:
            """Read the source; leave out what the journal has under the same bytes."""
            for path, content in opened.contents(set(pictures)):
                file = pictures[path]
                if isinstance(content, Unreadable):
                    todo.append((file, ""))
                    yield content.reason
                    continue
                sha256 = hashlib.sha256(content).hexdigest()
                entry = done.get(file, {"sha256": "", "crops": []})
                crops = [crop["crop"] for crop in entry["crops"]]
                is_there = all((target / crop).is_file() for crop in crops)
                if (
                    entry["sha256"] != sha256
                    or crops[:1] not in ([], [names[file]])
                    or not is_there
                ):
                    todo.append((file, sha256))
                    yield content

        with (
            contextlib.closing(cropped(contents(), len(files), cropper)) as results,
            (target / JOURNAL_FILE).open("a", encoding="utf-8") as journal,
        ):
            for n_before, result in enumerate(results):
                file, sha256 = todo[n_before]
                crops = list(_written(result, target, names[file], taken))
                done[file] = {"file": file, "sha256": sha256, **asdict(result), "crops": crops}
                journal.write(json.dumps(done[file]) + "\n")
                journal.flush()
                on_progress("cropping", number_of[file], len(files))
        on_progress("cropping", len(files), len(files))
        for file in files:
            if file not in done:
                raise DataError(
                    f"{source} changed while it was read: {file} is gone",
                    fix="Crop it again once nothing writes to it",
                )
        for file in done.keys() - set(files):  # crops of pictures that the source no longer holds
            for crop in done[file]["crops"]:
                (target / crop["crop"]).unlink(missing_ok=True)
        table = _table([done[file] for file in files])
        write_text(target / TABLE_FILE, table.to_csv(index=False))
    return CropReport(target, table, detector, len(todo), len(members) - len(files))


@contextlib.contextmanager
def _alone_in(target: Path) -> Iterator[None]:
    """Keep other processes out of the folder; what its disk refuses becomes a sentence."""
    try:
        with file_lock(target / ".claim") as mine:
            if not mine:
                pid = lock_owner(target / ".claim").get("pid")
                raise DataError(f"process {pid} is cropping into {target}", fix="Let it end first")
            yield
    except OSError as error:
        raise DataError(
            f"{error.filename or target} cannot be written: {error.strerror or error}",
            fix="Free space or choose another --out; the same command resumes",
        ) from error


def _check_apart(source: Path, target: Path) -> None:
    """Refuse crops among the pictures, where the next time they would be taken for pictures."""
    if source.is_dir() and target.resolve().is_relative_to(source.resolve()):
        raise DataError(
            f"the crops would lie in {target}, among the pictures of {source}",
            allowed="a folder outside of it",
            fix="Name one with --out",
        )
    if target.exists() and not target.is_dir():
        raise DataError(f"{target} is a file", allowed="a folder for the crops")
    if target.is_dir() and not (target / JOURNAL_FILE).exists() and any(target.glob("[!.]*")):
        raise DataError(
            f"{target} holds other files", allowed="a new or empty folder, or one of earlier crops"
        )


def _read_journal(path: Path, how: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Give the line of every picture done; raise DataError unless they were cropped as `how` says.

    It is written anew, once per picture and without a line that a crash cut short.
    """
    lines: list[dict[str, Any]] = []
    for text in path.read_text("utf-8", "replace").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            line = json.loads(text)
            if isinstance(line, dict) and ("file" in line or not lines):
                lines.append(line)
    before, *rows = lines or [how]
    for name, value in how.items():
        if before.get(name) != value:
            raise DataError(
                f"{path.parent} holds crops made with {name} {before.get(name)!r}, not {value!r}",
                allowed="crops of one source, made in one way",
                source=str(path),
                fix="Name another folder with --out, or remove this one",
            )
    done = {row["file"]: row for row in rows}
    write_text(path, "".join(json.dumps(row) + "\n" for row in (before, *done.values())))
    return done


def _crop_names(files: list[str], encoding: str) -> Iterator[str]:
    """Name the crop of each picture: its own path with the crop's ending; no two alike.

    Where pictures differ only in their endings, the later ones keep theirs: `a.jpg`, `a.bmp` become
    `a.png`, `a.bmp.png`. Case does not tell names apart: on some file systems it does not either.
    """
    suffix, taken = ".jpg" if encoding == "jpeg" else ".png", {TABLE_FILE, JOURNAL_FILE}
    for file in files:
        name, n = str(PurePosixPath(file).with_suffix(suffix)), 1
        while name.casefold() in taken:
            name, n = f"{file}{f'-{n}' if n > 1 else ''}{suffix}", n + 1
        taken.add(name.casefold())
        yield name


def _written(
    result: CroppedPicture, target: Path, name: str, taken: set[str]
) -> Iterator[dict[str, Any]]:
    """Write a picture's crops to `name`, and with `.face-2` and so on before its ending."""
    for number, face in enumerate(result.crops, start=1):
        path = PurePosixPath(name)
        if number > 1:
            stem = f"{path.stem}.face-{number}"
            while str(path.with_name(stem + path.suffix)).casefold() in taken:
                stem += "_"
            path = path.with_name(stem + path.suffix)
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_bytes(face.image)
        yield {"crop": str(path), "box": face.box, "score": face.score}


def _table(entries: list[dict[str, Any]]) -> pd.DataFrame:
    rows = []
    for entry in entries:
        for crop in entry["crops"] or [{"crop": "", "box": (), "score": None}]:
            rows.append({**entry, **crop, **dict(zip(BOX_COLUMNS, crop["box"], strict=False))})
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype({**dict.fromkeys(BOX_COLUMNS, "Int64"), "score": "Float64"})
