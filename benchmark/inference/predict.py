"""A trained network and pictures: what it predicts of each face, with probabilities.

A prediction is a guess at how an annotator would have seen a person, and no fact about them.
"""

import contextlib
import itertools
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from benchmark.data.archive import list_pictures, printable, read_file
from benchmark.data.crop import BOX_COLUMNS, Box, CropOptions, cropped
from benchmark.data.pictures import decode
from benchmark.data.progress import OnProgress, keep_quiet
from benchmark.errors import RunError
from benchmark.evaluation.calibration import tempered
from benchmark.evaluation.predictions import Probabilities, probability_columns
from benchmark.inference.load import Pixels, TrainedNetwork, trained_run
from benchmark.tasks import CLASS_NAMES, n_classes
from benchmark.training.device import Device, choose_device
from benchmark.training.steps import EVALUATION_BATCH

CHUNK_FACES: Final = 4 * EVALUATION_BATCH
"""Faces held in memory before the network sees them: 30 MB at 100 pixels."""
Face = tuple[dict[str, Any], Pixels | None, int]
"""A row's cells by column; the face, (px, px, 3) RGB, or None where `reason` says why it is none;
the number of its picture."""


def predict(
    pictures: str | Path | Iterable[str | Path], run: str | Path, *,
    runs_dir: str | Path = "mlruns", crop: CropOptions | bool = False, calibrated: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """Predict age group, gender and race of faces in pictures, files or folders of them.

    run: a run's id, or an experiment with one finished run, in `runs_dir`; or, as a Path, a run's
    model.safetensors. crop: whether, and how, faces are found in the pictures first; else a picture
    is a face. calibrated: apply the temperatures that the run fitted on validation.

    Gives one row per face, in order: file, face (its number), reason; with crop left, top, right,
    bottom, score, faces_seen; per task `<task>_label`, `<task>_probability`, `<task>_pred` and
    `<task>_p0`… as in predictions.csv. A picture that cannot be read, or shows no face, has one row
    with the reason. Raises BenchmarkError where there are no pictures, or no network can be loaded.
    """
    named = [pictures] if isinstance(pictures, str | Path) else pictures
    cropping = crop if isinstance(crop, CropOptions) else CropOptions() if crop else None
    network, device = trained_run(run, Path(runs_dir)), choose_device(precision="fp32")
    return Predictor(network, device, cropping, calibrated).read([Path(path) for path in named])


@dataclass(frozen=True)
class Predictor:
    """A network on its device, and how pictures are brought to it."""

    network: TrainedNetwork
    device: Device
    cropping: CropOptions | None = None
    calibrated: bool = False

    def __post_init__(self) -> None:
        missing = [task for task in self.network.tasks if task not in self.network.temperatures]
        if self.calibrated and missing:
            found = f"no temperature is known for {', '.join(missing)} of {self.network.title}"
            allowed = "a finished run, named by --run, with calibration.json in its folder"
            fix = "`facebench runs rescore` writes it; or leave --calibrated out"
            raise RunError(found, allowed=allowed, fix=fix)
        self.device.place(self.network.network)

    def read(self, pictures: Sequence[Path], on_progress: OnProgress = keep_quiet) -> pd.DataFrame:
        """Predict files and folders of pictures; the columns are those of `predict`."""
        (paths, _), tables = list_pictures(pictures), []
        found = self._cut_faces(paths) if self.cropping else self._whole_pictures(paths)
        with contextlib.closing(found):
            while chunk := [*itertools.islice(found, CHUNK_FACES)]:
                tables.append(self._table(chunk))
                on_progress("reading", chunk[-1][-1], len(paths))
        return pd.concat(tables, ignore_index=True)

    def _whole_pictures(self, paths: Sequence[Path]) -> Generator[Face]:
        """Give each picture as a face, as `facebench data prepare` makes it, or why it is none."""
        px = self.network.faces_px
        for number, path in enumerate(paths, start=1):
            content, found = decode(px, read_file(path))
            reason = found if isinstance(found, str) else ""
            face = None if reason else np.frombuffer(content, np.uint8).reshape(px, px, 3)
            row = {"file": printable(str(path)), "face": int(not reason), "reason": reason}
            yield row, face, number

    def _cut_faces(self, paths: Sequence[Path]) -> Generator[Face]:
        assert self.cropping is not None
        options = replace(self.cropping, size_px=self.network.faces_px)
        contents = ((path, read_file(path)) for path in paths)
        found = cropped(contents, len(paths), options)
        with contextlib.closing(found) as results:
            for number, (path, result) in enumerate(results, start=1):
                row = {"file": printable(str(path)), "face": 0, "reason": result.reason}
                if result.outcome != "unreadable":
                    row["faces_seen"] = result.faces_seen
                if not result.crops:
                    yield row, None, number
                for place, (image, box) in enumerate(result.crops, start=1):
                    yield row | {"face": place, "reason": "", **box}, np.asarray(image), number

    def _table(self, faces: Sequence[Face]) -> pd.DataFrame:
        table = pd.DataFrame([row for row, *_ in faces])
        if self.cropping is not None:
            types = dict.fromkeys(BOX_COLUMNS, "Int64")
            types |= {"score": "Float64", "faces_seen": "Int64"}
            table = table.reindex(columns=["file", "face", "reason", *types]).astype(types)
        is_face = (table["face"] > 0).to_numpy()
        answers = self._probabilities([pixels for _, pixels, _ in faces if pixels is not None])
        for task in self.network.tasks:
            every = np.full((len(table), n_classes(task)), np.nan)
            every[is_face] = answers.get(task, np.nan)
            best = pd.Series(every.argmax(axis=1), dtype="Int64").where(is_face)
            table[f"{task}_label"] = best.map(dict(enumerate(CLASS_NAMES[task]))).fillna("")
            table[f"{task}_probability"] = every.max(axis=1)
            table[f"{task}_pred"] = best
            table[probability_columns(task)] = every
        return table

    def _probabilities(self, faces: Sequence[Pixels]) -> Probabilities:
        """Predict faces, (px, px, 3) uint8 RGB each: (n, classes) per task; nothing of none."""
        with self.device.arithmetic():
            found = self.network.probabilities(np.stack(faces)) if faces else {}
        at = self.network.temperatures if self.calibrated else {}
        return {
            task: tempered(it.astype(np.float64), at[task]) if at else it
            for task, it in found.items()
        }


SHORTEST_SIDE_PX: Final = 360
"""Smaller pictures are enlarged to it, so that the writing is no larger than the picture."""
INK: Final = (255, 255, 255)
PLATE: Final = (20, 60, 110)
LINE: Final = (255, 196, 0)


def annotated(picture: Image.Image, remarks: Sequence[tuple[str, Box | None]]) -> Image.Image:
    """Give an RGB copy, enlarged by a whole factor if it is small, with the remarks beneath it:
    texts, each with its face's box, which is drawn and numbered, or None of a whole picture."""
    factor = max(1, -(-SHORTEST_SIDE_PX // min(picture.size)))
    width, height = picture.width * factor, picture.height * factor
    text_px = max(14, round(min(width, height) / 24))
    font, caption = ImageFont.load_default(text_px), "\n".join(text for text, _ in remarks)
    caption_px = round(1.3 * text_px * (caption.count("\n") + 2))  # with a line's margin
    drawn = Image.new("RGB", (width, height + caption_px), PLATE)
    drawn.paste(picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))
    pen = ImageDraw.Draw(drawn)
    pen.multiline_text((text_px // 2, height + text_px // 2), caption, INK, font)
    for number, (_, box) in enumerate(remarks, start=1):
        if box:
            ends = 2 * (width - 1, height - 1)
            sides = [min(max(factor * it, 0), end) for it, end in zip(box, ends, strict=True)]
            left, top, *_ = sides
            pen.rectangle(sides, outline=LINE, width=max(2, text_px // 7))
            pen.text((left + text_px // 2, top), f"#{number}", LINE, font)
    return drawn
