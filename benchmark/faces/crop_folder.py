"""Crop a folder or archive of photographs into a folder of faces, and say what became of each.

    <picture>.png   the crops, under the pictures' own paths
    crops.csv       one row per picture: found, box, score, faces seen, or why not; written last
    crops.jsonl     the journal: how these are cropped, then a line per picture done

Begun again, it goes on where it was stopped; begun again when done, it looks for pictures that are
new or changed. How one picture is cropped is in benchmark.faces.crop.
"""

import contextlib
import hashlib
import json
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pandas as pd

from benchmark.claims import claimed, holder
from benchmark.errors import DataError
from benchmark.faces.archive import Member, Source, Unreadable, open_source
from benchmark.faces.cropping import CroppedPicture, Cropper, cropped
from benchmark.faces.detector import load_detector
from benchmark.faces.labels import is_picture_name
from benchmark.faces.progress import OnProgress, keep_quiet
from benchmark.files import write_text

SCHEMA: Final = 1
TABLE_FILE: Final = "crops.csv"
JOURNAL_FILE: Final = "crops.jsonl"

COLUMNS: Final = (
    "file", "outcome", "crop", "left", "top", "right", "bottom", "score", "faces_seen",
    "reason", "width", "height", "mode", "n_frames", "is_turned", "sha256",
)  # fmt: skip
"""Of crops.csv. A picture has a row for each of its crops, and one row where there is none."""


@dataclass(frozen=True)
class CropReport:
    """What became of the pictures of a source."""

    folder: Path
    table: pd.DataFrame
    """The columns of COLUMNS, by the source's own order."""
    detector: str
    n_new: int
    """Pictures looked at now; the others were done before."""
    n_not_pictures: int
    """Files that are no pictures by their names: left alone, and counted."""

    def counts(self) -> dict[str, int]:
        """Count pictures by outcome; every picture of the source is in one of them."""
        of_picture = self.table.drop_duplicates("file")["outcome"].value_counts()
        return {name: int(of_picture.get(name, 0)) for name in ("cropped", "no face", "unreadable")}

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
    opened = _opened(source)
    members = list({member.path: member for member in opened.members()}.values())
    pictures = [member for member in members if is_picture_name(member.path)]
    if not pictures:
        raise DataError(
            f"{source} holds no pictures ({len(members)} other files)",
            allowed="a folder or archive with JPEG, PNG, BMP, GIF, TIFF or WEBP files",
        )
    _check_apart(source, target)
    detector = load_detector(cropper.detector).name
    with _alone_in(target):
        journal = _Journal(target / JOURNAL_FILE, _how(source, cropper, detector))
        work = _Work(opened, pictures, target, journal)
        with contextlib.closing(work.done(cropper)) as steps:
            for n_done in steps:
                on_progress("cropping", n_done, len(pictures))
        work.forget_others()
        table = _table(work.entries())
        write_text(target / TABLE_FILE, table.to_csv(index=False))
    n_others = len(members) - len(pictures)
    return CropReport(target, table, detector, work.n_new, n_others)


@contextlib.contextmanager
def _alone_in(target: Path) -> Iterator[None]:
    """Keep other processes out of the folder; what its disk refuses becomes a sentence."""
    try:
        with claimed(target / ".claim") as mine:
            if not mine:
                pid = holder(target / ".claim").get("pid")
                raise DataError(f"process {pid} is cropping into {target}", fix="Let it end first")
            yield
    except OSError as error:
        raise DataError(
            f"{error.filename or target} cannot be written: {error.strerror or error}",
            fix="Free space or choose another --out; the same command goes on",
        ) from error


def _opened(source: Path) -> Source:
    if not source.exists():
        raise DataError(f"{source} does not exist", allowed="a folder, .tar, .tar.gz or .zip")
    return open_source(source)


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


def _how(source: Path, cropper: Cropper, detector: str) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "source": source.resolve().name,
        "detector": detector,
        "encoding": cropper.encoding,
        **asdict(cropper.options),
    }


def _printable(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode()


class _Journal:
    """What is done already, a line per picture; a line cut short by a crash is not done."""

    def __init__(self, path: Path, how: dict[str, Any]) -> None:
        self.path = path
        self.entries: dict[str, dict[str, Any]] = {}
        lines = _lines(path)
        if not lines:
            write_text(path, json.dumps(how) + "\n")
            return
        _check_same(path.parent, lines[0], how)
        self.entries = {line["file"]: line for line in lines[1:]}
        # Written anew: without what a crash cut short, and once per picture.
        self._write(lines[0])

    def _write(self, head: dict[str, Any]) -> None:
        rows = [head, *self.entries.values()]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))

    def add(self, entries: list[dict[str, Any]]) -> None:
        """Note pictures as done, and see that it reaches the file."""
        self.entries |= {entry["file"]: entry for entry in entries}
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write("".join(json.dumps(entry) + "\n" for entry in entries))


def _lines(path: Path) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    if path.exists():
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and ("file" in line or not lines):
                lines.append(line)
    return lines


def _check_same(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise DataError unless a folder's crops were made as these are to be."""
    for name, value in now.items():
        if before.get(name) != value:
            raise DataError(
                f"{folder} holds crops made with {name} {before.get(name)!r}, not {value!r}",
                allowed="crops of one source, made in one way",
                source=str(folder / JOURNAL_FILE),
                fix="Name another folder with --out, or remove this one",
            )


class _Work:
    """The pictures of a source on their way to crops."""

    def __init__(
        self, source: Source, pictures: list[Member], target: Path, journal: _Journal
    ) -> None:
        self.source, self.target, self.journal = source, target, journal
        self.numbers = {member.path: number for number, member in enumerate(pictures)}
        self.files = [_printable(member.path) for member in pictures]
        self.sha256: dict[int, str] = {}
        self.n_new = 0

    def done(self, cropper: Cropper) -> Generator[int]:
        """Crop what is not done yet; yield how many are, now and then."""
        names = _crop_names(self.files, ".jpg" if cropper.is_jpeg else ".png")
        taken = {name.casefold() for name in names}
        todo = self._todo(names)
        with contextlib.closing(cropped(todo, len(self.files), cropper)) as batches:
            for batch in batches:
                entries = [
                    self._kept(number, result, names[number], taken) for number, result in batch
                ]
                self.journal.add(entries)
                self.n_new += len(entries)
                yield batch[-1][0] + 1
        yield len(self.files)

    def _todo(self, names: list[str]) -> Iterator[tuple[int, bytes | str]]:
        """Read the source; leave out what the journal knows under the same bytes."""
        for path, content in self.source.contents(set(self.numbers)):
            number = self.numbers[path]
            if isinstance(content, Unreadable):
                yield number, content.reason
                continue
            self.sha256[number] = hashlib.sha256(content).hexdigest()
            if not self._is_done(number, names[number]):
                yield number, content

    def _is_done(self, number: int, name: str) -> bool:
        entry = self.journal.entries.get(self.files[number])
        if entry is None or entry["sha256"] != self.sha256[number]:
            return False
        crops = [crop["crop"] for crop in entry["crops"]]
        return crops[:1] in ([], [name]) and all((self.target / crop).is_file() for crop in crops)

    def _kept(
        self, number: int, result: CroppedPicture, name: str, taken: set[str]
    ) -> dict[str, Any]:
        """Write a picture's crops to their files; give its line of the journal."""
        crops = []
        for order, face in enumerate(result.crops):
            path = name if order == 0 else _further_name(name, order + 1, taken)
            (self.target / path).parent.mkdir(parents=True, exist_ok=True)
            (self.target / path).write_bytes(face.image)
            crops.append({"crop": path, "box": face.box, "score": face.score})
        about = asdict(result)
        return {
            "file": self.files[number],
            "sha256": self.sha256.get(number, ""),
            **about,
            "crops": crops,
        }

    def entries(self) -> Iterator[dict[str, Any]]:
        """Give the journal's line of every picture, by the source's order."""
        for file in self.files:
            if file not in self.journal.entries:
                raise DataError(
                    f"{self.source.path} changed while it was read: {file} is gone",
                    fix="Crop it again once nothing writes to it",
                )
            yield self.journal.entries[file]

    def forget_others(self) -> None:
        """Remove the crops, made here before, of pictures that the source no longer holds."""
        for file in set(self.journal.entries) - set(self.files):
            for crop in self.journal.entries.pop(file)["crops"]:
                (self.target / crop["crop"]).unlink(missing_ok=True)


def _crop_names(files: list[str], suffix: str) -> list[str]:
    """Name the crop of each picture: its own path with the crop's ending; no two alike.

    Where pictures differ only in their endings, the later ones keep theirs: `a.jpg`, `a.bmp` become
    `a.png`, `a.bmp.png`. Case does not tell names apart: on some file systems it does not either.
    """
    names, taken = [], {TABLE_FILE, JOURNAL_FILE}
    for file in files:
        plain = str(PurePosixPath(file).with_suffix(suffix))
        name, n = plain, 1
        while name.casefold() in taken:
            name, n = f"{file}{f'-{n}' if n > 1 else ''}{suffix}", n + 1
        taken.add(name.casefold())
        names.append(name)
    return names


def _further_name(name: str, number: int, taken: set[str]) -> str:
    """Name the crop of a picture's second face and of those after it."""
    path = PurePosixPath(name)
    stem = f"{path.stem}.face-{number}"
    while (further := str(path.with_name(stem + path.suffix))).casefold() in taken:
        stem += "_"
    return further


def _table(entries: Iterator[dict[str, Any]]) -> pd.DataFrame:
    rows = []
    for entry in entries:
        for crop in entry["crops"] or [{}]:
            box = dict(zip(("left", "top", "right", "bottom"), crop.get("box", ()), strict=False))
            rows.append({**entry, **box, "crop": crop.get("crop", ""), "score": crop.get("score")})
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    boxes = dict.fromkeys(("left", "top", "right", "bottom"), "Int64")
    return table.astype({**boxes, "score": "Float64"})
