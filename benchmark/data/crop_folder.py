"""Crop all faces of a folder or archive, in parallel processes.

Crop a folder or archive of photographs into a folder of faces, and say what became of each.

    <picture>.png   the crops, under the pictures' own paths
    crops.csv       one row per picture: found, box, score, faces seen, or why not; written last
    crops.jsonl     the journal: how these are cropped, then a line per picture done

Begun again, it goes on where it was stopped; begun again when done, it looks for pictures that are
new or changed. How one picture is cropped is in benchmark.data.crop.

Find and cut the faces of batches of pictures: the work of one process of many.

Run as `python -m benchmark.data.crop_folder` it is such a process: it reads a pickled `Cropper` and
then pickled batches from its standard input, answers each on its standard output, and ends with its
input. Which pictures these are, and what becomes of the crops, is for those who ask.

Write on a picture what was read off its faces: boxes with plates, or a caption beneath.
"""

import contextlib
import hashlib
import io
import json
import os
import pickle
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final, Literal

import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from benchmark.data.archive import Member, Source, Unreadable, open_source
from benchmark.data.crop import (
    NO_FACE,
    Box,
    CropOptions,
    Detector,
    DetectorChoice,
    crop_picture,
    load_detector,
)
from benchmark.data.labels import is_picture_name
from benchmark.data.packing import MAX_PROCESSES, Process, in_order
from benchmark.data.pictures import pillow_quiet, read_upright
from benchmark.data.progress import OnProgress, keep_quiet, n_cores
from benchmark.errors import DataError
from benchmark.files import claimed, holder, write_text

Encoding = Literal["png", "jpeg", "raw"]
Outcome = Literal["cropped", "no face", "unreadable"]
Batch = list[tuple[int, bytes | str]]
"""Number of a picture, and the bytes of its file; or, where there are none, why."""

JPEG_QUALITY: Final = 95
MIN_PICTURES_TO_SHARE: Final = 24
"""Fewer are done before the processes would have started."""
BATCH_PICTURES: Final = 8
BATCH_BYTES: Final = 8 << 20
"""A batch is closed early at this size, so that large pictures do not pile up in memory."""


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

    outcome: Outcome
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
    """How pictures are cropped, in words that every process understands."""

    options: CropOptions = field(default_factory=CropOptions)
    detector: DetectorChoice = field(default_factory=DetectorChoice)
    encoding: Encoding = "raw"

    def crop(self, content: bytes | str, detector: Detector) -> CroppedPicture:
        """Read one picture's file and cut its faces; a picture that cannot be read is no error."""
        if isinstance(content, str):
            return CroppedPicture("unreadable", content)
        try:
            picture = read_upright(content)
        except DataError as error:
            return CroppedPicture("unreadable", reason_of(error))
        found = crop_picture(picture.image, detector, self.options)
        return CroppedPicture(
            "cropped" if found.found else "no face",
            "" if found.found else NO_FACE,
            *picture.image.size,
            picture.mode,
            picture.n_frames,
            picture.is_turned,
            found.n_faces,
            tuple(CutFace(crop.box, crop.score, self._encoded(crop.image)) for crop in found.crops),
        )

    def _encoded(self, image: Image.Image) -> bytes:
        if self.encoding == "raw":
            return image.tobytes()
        stream = io.BytesIO()
        image.save(stream, self.encoding, quality=JPEG_QUALITY)  # PNG has none, and ignores it
        return stream.getvalue()

    @property
    def is_jpeg(self) -> bool:
        """Whether crops lose something on the way to their files."""
        return self.encoding == "jpeg"


def reason_of(error: DataError) -> str:
    """Say in a line why a picture cannot be used."""
    return f"{error.found} (allowed: {error.allowed})" if error.allowed else error.found


def cropped(
    pictures: Iterator[tuple[int, bytes | str]], n_pictures: int, cropper: Cropper
) -> Generator[list[tuple[int, CroppedPicture]]]:
    """Crop picture after picture, on all cores where there are enough; results in order.

    Raises DataError before the first where the detector cannot be loaded.
    """
    detector = load_detector(cropper.detector)
    n_processes = min(n_cores(), MAX_PROCESSES)
    batches = batched(pictures)
    if n_pictures < MIN_PICTURES_TO_SHARE or n_processes == 1:
        with pillow_quiet():
            for batch in batches:
                yield [(number, cropper.crop(content, detector)) for number, content in batch]
        return
    open_worker = partial(Worker, cropper)
    yield from in_order(batches, open_worker, lambda worker, batch: worker.ask(batch), n_processes)


def batched(pictures: Iterator[tuple[int, bytes | str]]) -> Iterator[Batch]:
    """Put pictures together into batches as they come."""
    batch: Batch = []
    n_bytes = 0
    for number, content in pictures:
        batch.append((number, content))
        n_bytes += len(content)
        if len(batch) >= BATCH_PICTURES or n_bytes >= BATCH_BYTES:
            yield batch
            batch, n_bytes = [], 0
    if batch:
        yield batch


class Worker(Process):
    """A process that crops; it ends with its `with` block."""

    def __init__(self, cropper: Cropper) -> None:
        super().__init__(
            "benchmark.data.crop_folder",
            doing="cropping",
            fix="Where memory is short, crop on fewer cores (taskset)",
        )
        self.ask(cropper)


def answer_batches(questions: BinaryIO, answers: BinaryIO) -> None:
    """Load the detector that the first question names, then crop batch after batch."""

    def answer(value: object) -> None:
        pickle.dump(value, answers)
        answers.flush()

    cropper: Cropper = pickle.load(questions)
    try:
        detector = load_detector(cropper.detector)
    except DataError as error:
        answer(DataError(error.found))
        return
    answer(None)
    with pillow_quiet():
        while True:
            try:
                batch: Batch = pickle.load(questions)
            except EOFError:
                return
            answer([(number, cropper.crop(content, detector)) for number, content in batch])


def _answers_alone() -> BinaryIO:
    """Keep standard output for answers: what a detector's library prints goes to standard error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


SHORTEST_SIDE_PX: Final = 360
"""Smaller pictures are enlarged to it, so that the writing is no larger than the picture."""
INK: Final = (255, 255, 255)
PLATE: Final = (20, 60, 110)
LINE: Final = (255, 196, 0)


@dataclass(frozen=True)
class Remark:
    """What is to be written of one face; without a box it is about the whole picture."""

    lines: tuple[str, ...]
    box: Box | None = None


def annotated(picture: Image.Image, remarks: Sequence[Remark]) -> Image.Image:
    """Give an RGB copy with every remark on it, enlarged by a whole factor if it is small."""
    factor = max(1, -(-SHORTEST_SIDE_PX // min(picture.size)))
    size = (picture.width * factor, picture.height * factor)
    drawn = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    text_px = max(14, round(min(size) / 24))
    boxed = [remark for remark in remarks if remark.box is not None]
    for remark in boxed:
        _frame(drawn, remark, factor, text_px)
    for remark in boxed:  # after all frames, so that none of them crosses a plate
        _plate(drawn, remark, factor, text_px)
    about_all = [line for remark in remarks if remark.box is None for line in remark.lines]
    return _captioned(drawn, about_all, text_px) if about_all else drawn


def _scaled(box: Box, factor: int) -> Box:
    left, top, right, bottom = (factor * place for place in box)
    return (left, top, right, bottom)


def _frame(drawn: Image.Image, remark: Remark, factor: int, text_px: int) -> None:
    assert remark.box is not None
    width = max(2, text_px // 7)
    ImageDraw.Draw(drawn).rectangle(_scaled(remark.box, factor), outline=LINE, width=width)


def _plate(drawn: Image.Image, remark: Remark, factor: int, text_px: int) -> None:
    """Put the lines under a face, or where that is beyond the picture, as far down as it goes."""
    assert remark.box is not None
    pen = ImageDraw.Draw(drawn)
    font, text = ImageFont.load_default(text_px), "\n".join(remark.lines)
    width, height = _text_size(pen, text, font)
    pad = text_px // 3
    left, _, _, bottom = _scaled(remark.box, factor)
    left = max(0, min(left, drawn.width - width - 2 * pad))
    top = max(0, min(bottom, drawn.height - height - 2 * pad))
    pen.rectangle((left, top, left + width + 2 * pad, top + height + 2 * pad), fill=PLATE)
    pen.multiline_text((left + pad, top + pad), text, INK, font=font)


def _captioned(drawn: Image.Image, lines: Sequence[str], text_px: int) -> Image.Image:
    """Lengthen the picture by a caption in the colour of plates."""
    font, text = ImageFont.load_default(text_px), "\n".join(lines)
    width, height = _text_size(ImageDraw.Draw(drawn), text, font)
    pad = text_px // 2
    size = (max(drawn.width, width + 2 * pad), drawn.height + height + 2 * pad)
    longer = Image.new("RGB", size, PLATE)
    longer.paste(drawn, ((size[0] - drawn.width) // 2, 0))
    place = (pad, drawn.height + pad)
    ImageDraw.Draw(longer).multiline_text(place, text, INK, font=font)
    return longer


def _text_size(
    pen: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> tuple[int, int]:
    _, _, right, bottom = pen.multiline_textbbox((0, 0), text, font=font)
    return round(right), round(bottom)


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


if __name__ == "__main__":
    answer_batches(sys.stdin.buffer, _answers_alone())
