"""Find and cut the faces of batches of pictures: the work of one process of many.

Run as `python -m benchmark.faces.cropping` it is such a process: it reads a pickled `Cropper` and
then pickled batches from its standard input, answers each on its standard output, and ends with its
input. Which pictures these are, and what becomes of the crops, is for those who ask.
"""

import io
import os
import pickle
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO, Final, Literal

from PIL import Image

from benchmark.errors import DataError
from benchmark.faces.crop import NO_FACE, Box, CropOptions, crop_picture
from benchmark.faces.detector import Detector, DetectorChoice, load_detector
from benchmark.faces.pictures import pillow_quiet, read_upright
from benchmark.faces.processes import MAX_PROCESSES, Process, in_order
from benchmark.faces.progress import n_cores

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
            "benchmark.faces.cropping",
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


if __name__ == "__main__":
    # Under its full name, so that what is pickled here is known by it there.
    from benchmark.faces import cropping

    cropping.answer_batches(sys.stdin.buffer, _answers_alone())
