"""A trained network and pictures: what it predicts of each face, with probabilities.

Labels are perceived age, gender and race, as the faces of training were labelled: a prediction is a
guess at how an annotator would have seen a person, and no fact about them.
"""

import contextlib
import os
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image, ImageDraw, ImageFont

from benchmark.data.archive import list_pictures, printable, read_file
from benchmark.data.batches import FaceBatches
from benchmark.data.crop import Box, CropOptions, Cropper, DetectorChoice, cropped
from benchmark.data.pictures import pillow_quiet, read_picture, reason_of
from benchmark.data.progress import OnProgress, keep_quiet
from benchmark.errors import DataError, RunError
from benchmark.evaluation.calibration import tempered
from benchmark.evaluation.predictions import probability_columns
from benchmark.inference.load import TrainedRun, network_of_file, network_of_run
from benchmark.tasks import CLASS_NAMES, TaskName
from benchmark.training.device import Device, choose_device
from benchmark.training.predict import EVALUATION_BATCH, probabilities

Pixels = npt.NDArray[np.uint8]
BOX_COLUMNS: Final = ("left", "top", "right", "bottom")
CHUNK_FACES: Final = 4 * EVALUATION_BATCH
"""Faces held in memory before the network sees them: 30 MB at 100 pixels."""

Face = tuple[dict[str, Any], Pixels | None]
"""A row's cells by column, and the face, (px, px, 3) RGB; None where there is none, and `reason`
says why. A picture has one of these at least; its faces are numbered from 1, 0 is none."""


@dataclass(frozen=True)
class Cropping:
    """How faces are found in photographs first; the size is the network's."""

    options: CropOptions = field(default_factory=CropOptions)
    detector: DetectorChoice = field(default_factory=DetectorChoice.here)


def predict(
    pictures: str | Path | Iterable[str | Path],
    run: str | Path,
    *,
    runs_dir: str | Path = "mlruns",
    crop: Cropping | bool = False,
    calibrated: bool = False,
) -> pd.DataFrame:
    """Predict age group, gender and race of faces in pictures.

    Parameters
    ----------
    pictures : path or paths
        Files or folders.
    run : str or Path
        A run's id, or an experiment with one finished run, in `runs_dir`; or, as a Path, a run's
        model.safetensors.
    runs_dir : path
        Where runs are.
    crop : bool or Cropping
        Whether, and how, faces are found in the pictures first; else a picture is a face, as the
        benchmark's own are.
    calibrated : bool
        Apply the temperatures that the run fitted on validation.

    Returns
    -------
    DataFrame
        One row per face, in order: file, face (its number), reason; with crop left, top, right,
        bottom, score, faces_seen; per task `<task>_label`, `<task>_probability`, `<task>_pred` and
        `<task>_p0`… as in predictions.csv. A picture that cannot be read, or shows no face, has one
        row with the reason and nothing else.

    Raises
    ------
    BenchmarkError
        Where there are no pictures, or the network cannot be loaded.
    """
    named = [pictures] if isinstance(pictures, str | Path) else pictures
    data_dir = Path(os.environ.get("FACEBENCH_DATA_DIR", "data"))
    network = (
        network_of_file(run, data_dir=data_dir)
        if isinstance(run, Path)
        else network_of_run(run, Path(runs_dir), data_dir=data_dir)
    )
    cropping = (Cropping() if crop else None) if isinstance(crop, bool) else crop
    predictor = Predictor(network, choose_device(precision="fp32"), cropping, calibrated)
    return predictor.read([Path(path) for path in named])


def picture_as_face(path: Path, image_px: int) -> Pixels:
    """Read a picture as `facebench data prepare` does: (image_px, image_px, 3) RGB.

    Raise DataError where it cannot be read.
    """
    content = read_file(path)
    if isinstance(content, str):
        raise DataError(content, source=str(path))
    try:
        with pillow_quiet():
            pixels, _ = read_picture(content, image_px)
    except DataError as error:
        raise DataError(error.found, allowed=error.allowed, source=str(path)) from error
    return _square(pixels, image_px)


def _square(pixels: bytes, image_px: int) -> Pixels:
    return np.frombuffer(pixels, np.uint8).reshape(image_px, image_px, 3)


@dataclass(frozen=True)
class Predictor:
    """A network on its device, and how pictures are brought to it."""

    network: TrainedRun
    device: Device
    cropping: Cropping | None = None
    calibrated: bool = False

    def __post_init__(self) -> None:
        missing = [task for task in self.network.tasks if task not in self.network.temperatures]
        if self.calibrated and missing:
            raise RunError(
                f"no temperature is known for {', '.join(missing)} of {self.network.title}",
                allowed="a finished run, named by --run, with calibration.json in its folder",
                fix="`facebench runs rescore` writes it; or leave --calibrated out",
            )
        self.device.place(self.network.trained.network)

    def read(self, pictures: Sequence[Path], on_progress: OnProgress = keep_quiet) -> pd.DataFrame:
        """Predict files and folders of pictures; the columns are those of `predict`."""
        listed = list_pictures(pictures)
        tables: list[pd.DataFrame] = []
        chunk: list[Face] = []
        n_done = 0
        faces = self._cut_faces if self.cropping else self._whole_pictures
        with contextlib.closing(faces(listed)) as found:
            for face, n_done in found:
                chunk.append(face)
                if len(chunk) == CHUNK_FACES:
                    tables.append(self._table(chunk))
                    on_progress("reading", n_done, len(listed))
                    chunk = []
        if chunk:
            tables.append(self._table(chunk))
            on_progress("reading", n_done, len(listed))
        return pd.concat(tables, ignore_index=True)

    def _whole_pictures(self, paths: Sequence[Path]) -> Generator[tuple[Face, int]]:
        """Give each picture as a face, so that the network sees what it would be trained on."""
        for number, path in enumerate(paths, start=1):
            row = {"file": printable(str(path)), "face": 1, "reason": ""}
            try:
                yield (row, picture_as_face(path, self.network.faces_px)), number
            except DataError as error:
                yield (row | {"face": 0, "reason": reason_of(error)}, None), number

    def _cut_faces(self, paths: Sequence[Path]) -> Generator[tuple[Face, int]]:
        """Give the faces that are found in pictures, or one row that says why there are none."""
        assert self.cropping is not None
        px = self.network.faces_px
        cropper = Cropper(replace(self.cropping.options, size_px=px), self.cropping.detector)
        contents = ((path, read_file(path)) for path in paths)
        with contextlib.closing(cropped(contents, len(paths), cropper)) as results:
            for number, (path, result) in enumerate(results, start=1):
                row = {"file": printable(str(path)), "face": 0, "reason": ""}
                seen = None if result.outcome == "unreadable" else result.faces_seen
                if not result.crops:
                    yield (row | {"reason": result.reason, "faces_seen": seen}, None), number
                for place, cut in enumerate(result.crops, start=1):
                    row |= {"face": place, "score": cut.score, "faces_seen": result.faces_seen}
                    box = dict(zip(BOX_COLUMNS, cut.box, strict=True))
                    yield (row | box, _square(cut.image, px)), number

    def _table(self, faces: Sequence[Face]) -> pd.DataFrame:
        types: dict[str, str] = {}
        if self.cropping is not None:
            types = dict.fromkeys(BOX_COLUMNS, "Int64") | {
                "score": "Float64",
                "faces_seen": "Int64",
            }
        names = ["file", "face", "reason", *types]
        table = pd.DataFrame([row for row, _ in faces], columns=names).astype(types)
        shown = [pixels for _, pixels in faces if pixels is not None]
        rows = np.flatnonzero([pixels is not None for _, pixels in faces])
        found = self.probabilities(np.stack(shown)) if shown else {}
        columns: dict[str, Any] = {}
        for task in self.network.tasks:
            labels = np.array([*CLASS_NAMES[task], ""], dtype=object)
            every = np.full((len(table), len(labels) - 1), np.nan)
            predicted = np.full(len(table), -1)
            if shown:
                every[rows], predicted[rows] = found[task], found[task].argmax(axis=1)
            classes = pd.Series(predicted, dtype="Int64")
            columns |= {
                f"{task}_label": labels[predicted],
                f"{task}_probability": every.max(axis=1),
                f"{task}_pred": classes.mask(classes < 0),
                **dict(zip(probability_columns(task), every.T, strict=True)),
            }
        return table.assign(**columns)

    def probabilities(self, pixels: Pixels) -> dict[TaskName, npt.NDArray[np.floating[Any]]]:
        """Predict faces, (n, px, px, 3) uint8 RGB of the network's size: (n, classes) per task."""
        network, place = self.network.trained.network, self.device.torch_device
        every = torch.arange(len(pixels), device=place)
        faces = FaceBatches(torch.from_numpy(pixels).to(place), {"gender": every})
        with self.device.arithmetic():
            found = probabilities(network, faces, every)
        if not self.calibrated:
            return dict(found)
        known = self.network.temperatures
        return {
            task: tempered(values.astype(np.float64), known[task]) for task, values in found.items()
        }


SHORTEST_SIDE_PX: Final = 360
"""Smaller pictures are enlarged to it, so that the writing is no larger than the picture."""
INK: Final = (255, 255, 255)
PLATE: Final = (20, 60, 110)
LINE: Final = (255, 196, 0)


@dataclass(frozen=True)
class Remark:
    """What is written of one face; without a box it is about the whole picture."""

    lines: tuple[str, ...]
    box: Box | None = None


def annotated(picture: Image.Image, remarks: Sequence[Remark]) -> Image.Image:
    """Give an RGB copy with every remark on it, enlarged by a whole factor if it is small.

    A plate is under its face's box, or as far down as the picture goes; what is about the whole
    picture is a caption beneath it.
    """
    factor = max(1, -(-SHORTEST_SIDE_PX // min(picture.size)))
    size = (picture.width * factor, picture.height * factor)
    drawn = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    text_px = max(14, round(min(size) / 24))
    font, pen = ImageFont.load_default(text_px), ImageDraw.Draw(drawn)

    def size_of(text: str, pad: int) -> list[int]:
        return [round(px) + 2 * pad for px in pen.multiline_textbbox((0, 0), text, font)[2:]]

    boxes = [[factor * place for place in remark.box] for remark in remarks if remark.box]
    for box in boxes:
        pen.rectangle(box, outline=LINE, width=max(2, text_px // 7))
    texts = ["\n".join(remark.lines) for remark in remarks if remark.box]
    for text, (left, _, _, bottom) in zip(texts, boxes, strict=True):  # no frame crosses a plate
        pad = text_px // 3
        width, height = size_of(text, pad)
        left = max(0, min(left, drawn.width - width))
        top = max(0, min(bottom, drawn.height - height))
        pen.rectangle((left, top, left + width, top + height), fill=PLATE)
        pen.multiline_text((left + pad, top + pad), text, INK, font)
    caption = "\n".join(line for remark in remarks if not remark.box for line in remark.lines)
    if not caption:
        return drawn
    pad = text_px // 2
    width, height = size_of(caption, pad)
    longer = Image.new("RGB", (max(drawn.width, width), drawn.height + height), PLATE)
    longer.paste(drawn, ((longer.width - drawn.width) // 2, 0))
    ImageDraw.Draw(longer).multiline_text((pad, drawn.height + pad), caption, INK, font)
    return longer
