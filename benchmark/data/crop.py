"""Find the faces of one photograph and cut them out as the study cut its own: box, margin, resize.

A detector is any object with `name` and `find`: OpenCV's YuNet, or somebody else's. An installed
package offers one under the entry-point group `facebench.detectors`, as a callable that takes the
path of a model file (or None) and gives the detector; without a package it is `module:callable`.
Folders of photographs are for benchmark.data.crop_folder.
"""

import hashlib
import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from benchmark.errors import DataError

ENTRY_POINT_GROUP: Final = "facebench.detectors"
YUNET: Final = "yunet"
MODEL_PATTERN: Final = "*yunet*.onnx"
MODEL_SOURCE: Final = (
    "Get the YuNet model file (MIT licence) from github.com/opencv/opencv_zoo, "
    "models/face_detection_yunet, and name it with --detector-model or put it into the weights "
    "folder"
)
LOOKS_PX: Final = (640, 320, 1600)
"""Longest sides at which a larger picture is looked at, until faces are found: first for people who
stand in a photograph, then close up, then far away."""

Fit = Literal["stretch", "square"]
Choice = Literal["largest", "central", "all"]
BorderFill = Literal["replicate", "blur", "black"]
SIZE_PX: Final = range(16, 1025)
RESIZE: Final = Image.Resampling.BICUBIC
"""Pillow's own choice, which the study did not change."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the picture; right and bottom not included."""


@dataclass(frozen=True, slots=True)
class FoundFace:
    """A face that a detector saw: its box in pixels from the top left corner, and its score.

    The box may reach beyond the picture. Scores are 0 to 1, as the detector counts.
    """

    left: float
    top: float
    width: float
    height: float
    score: float


@runtime_checkable
class Detector(Protocol):
    """What finds faces. One object serves one thread."""

    @property
    def name(self) -> str:
        """What it is and of which version; crops by another name are other crops."""
        ...

    def find(self, pixels: NDArray[np.uint8], threshold: float) -> Sequence[FoundFace]:
        """Find the faces of a picture, (height, width, 3) RGB, with scores from `threshold` on."""
        ...


@dataclass(frozen=True, slots=True)
class DetectorChoice:
    """Which detector, by a name that every process can load it by."""

    name: str = YUNET
    """`yunet`, the name of an entry point, or `module:callable`."""
    model: Path | None = None
    """Its model file; for YuNet the only one in `weights_dir` if left out."""
    weights_dir: Path | None = None

    @classmethod
    def here(cls) -> "DetectorChoice":
        """Choose as the command line does where no option says otherwise."""
        model = os.environ.get("FACEBENCH_DETECTOR_MODEL")
        weights_dir = os.environ.get("FACEBENCH_WEIGHTS_DIR", "data/weights")
        return cls(model=Path(model) if model else None, weights_dir=Path(weights_dir))


def load_detector(choice: DetectorChoice | None = None) -> Detector:
    """Load the detector chosen; raise DataError if it, its package or its model is not there."""
    choice = choice or DetectorChoice()
    if choice.model is not None and not choice.model.is_file():
        raise DataError(f"the model file {choice.model} does not exist", fix=MODEL_SOURCE)
    if choice.name == YUNET:
        return YuNet(choice.model or _only_model(choice.weights_dir))
    points = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    module, _, attribute = choice.name.partition(":")
    if choice.name not in points and not attribute:
        raise DataError(
            f"there is no detector {choice.name!r}",
            allowed=", ".join([YUNET, *sorted(points), "module:callable"]),
            source=f"entry points {ENTRY_POINT_GROUP}",
        )
    try:
        if choice.name in points:
            factory = points[choice.name].load()
        else:
            factory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise DataError(
            f"detector {choice.name!r} cannot be loaded: {error}",
            allowed="an entry point, or module:callable",
            fix="Install its package into this environment",
        ) from error
    detector: object = factory(choice.model)
    if not isinstance(detector, Detector):
        raise DataError(
            f"detector {choice.name!r} gave {type(detector).__name__}",
            allowed="an object with `name` and `find(pixels, threshold)`",
            source="benchmark.data.crop.Detector",
        )
    return detector


def _only_model(folder: Path | None) -> Path:
    found = sorted(folder.glob(MODEL_PATTERN)) if folder is not None else []
    if len(found) == 1:
        return found[0]
    listed = ", ".join(path.name for path in found)
    raise DataError(
        f"{len(found)} model files of YuNet are there: {listed}"
        if found
        else "the model file of YuNet is missing",
        allowed=f"one file {MODEL_PATTERN}",
        source=str(folder or ""),
        fix="Name one with --detector-model" if found else MODEL_SOURCE,
    )


class YuNet:
    """OpenCV's detector of upright faces; raises DataError without it or with another model file.

    Source: W. Wu, H. Peng, S. Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine
    Intelligence Research 20 (2023); `cv2.FaceDetectorYN`. It finds faces of some 10 to 300 pixels
    (its page in opencv_zoo), so that large pictures are looked at smaller.
    """

    def __init__(self, model: Path) -> None:
        try:
            import cv2
        except ImportError as error:
            raise DataError(
                f"OpenCV is not installed ({error})",
                allowed="the optional extra `crop`",
                fix="pip install 'facebench[crop]', or choose another --detector",
            ) from error
        # One picture a process at a time: its own threads would only get in each other's way.
        cv2.setNumThreads(1)
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        self._cv2: Any = cv2
        self.name = f"yunet-{hashlib.sha256(model.read_bytes()).hexdigest()[:12]}"
        try:  # 0.3: overlap of boxes, 5000: faces, as OpenCV's own defaults have them
            self._network: Any = cv2.FaceDetectorYN.create(
                str(model), "", (320, 320), 0.5, 0.3, 5000
            )
            # A file of another network loads, and fails only at work.
            self.find(np.zeros((64, 64, 3), np.uint8), 0.5)
        except cv2.error as error:
            first_line = str(error).strip().splitlines()[0]
            raise DataError(
                f"{model} is not a YuNet model that OpenCV can use: {first_line}",
                allowed="face_detection_yunet of opencv_zoo, of dynamic input size for OpenCV 5",
                fix="Name another file with --detector-model",
            ) from error

    def find(self, pixels: NDArray[np.uint8], threshold: float) -> list[FoundFace]:
        """Find upright faces, (height, width, 3) RGB, at the first of LOOKS_PX that shows any."""
        height, width = pixels.shape[:2]
        longest = max(height, width)
        self._network.setScoreThreshold(threshold)
        for side in dict.fromkeys(min(look, longest) for look in LOOKS_PX):
            image: NDArray[Any] = pixels
            if side < longest:
                size = [max(1, round(px * (side / longest))) for px in (width, height)]
                image = self._cv2.resize(image, size, interpolation=self._cv2.INTER_AREA)
            self._network.setInputSize((image.shape[1], image.shape[0]))
            faces: Any = self._network.detect(np.ascontiguousarray(image[:, :, ::-1]))[1]  # BGR
            if faces is not None:
                across, down = width / image.shape[1], height / image.shape[0]
                return [
                    FoundFace(left * across, top * down, wide * across, high * down, score)
                    for left, top, wide, high, *_, score in np.asarray(faces, float).tolist()
                ]
        return []


@dataclass(frozen=True, slots=True)
class CropOptions:
    """How faces are chosen and cut; validated at birth.

    The defaults are the study's (its cropping notebook: RetinaFace, a margin of 20 % of the box
    on each side, clipped to the picture, resized to 100 x 100 whatever its shape), but for the
    detector and for the choice among several faces, which it left to chance.
    """

    margin: float = 0.2
    """Share of the box's width added left and right, and of its height above and below."""
    size_px: int = 100
    fit: Fit = "stretch"
    """`stretch` changes the shape to a square; `square` takes more of the picture, and black where
    there is no more."""
    faces: Choice = "largest"
    threshold: float = 0.7
    """Faces with lower scores are not seen."""
    border: float = 0.0
    """Share of width and height added on each side before looking, for pictures that are cut so
    tightly that a detector sees no face in them."""
    border_fill: BorderFill = "replicate"

    def __post_init__(self) -> None:
        for what, value, low, high in (
            ("margin", self.margin, 0, 2),
            ("threshold", self.threshold, 0.01, 1),
            ("border", self.border, 0, 2),
        ):
            if not low <= value <= high:  # False for nan, too
                raise DataError(f"{what} is {value}", allowed=f"{low} to {high}")
        if self.size_px not in SIZE_PX:
            allowed = f"{SIZE_PX[0]} to {SIZE_PX[-1]} pixels"
            raise DataError(
                f"crops of {self.size_px} pixels a side were asked for", allowed=allowed
            )
        for what, choice, choices in (
            ("fit", self.fit, get_args(Fit)),
            ("faces", self.faces, get_args(Choice)),
            ("border fill", self.border_fill, get_args(BorderFill)),
        ):
            if choice not in choices:
                raise DataError(f"{what} is {choice!r}", allowed=", ".join(choices))


@dataclass(frozen=True, slots=True)
class Crop:
    """One face, cut out."""

    box: Box
    """What the detector saw, without the margin; it may reach beyond the picture."""
    score: float
    image: Image.Image
    """RGB, `size_px` a side."""


def crop_picture(
    image: Image.Image, detector: Detector, options: CropOptions | None = None
) -> tuple[list[Crop], int]:
    """Cut out the faces that the options choose, the largest first; say how many are seen in all.

    image: upright. Files are turned and converted by benchmark.data.pictures.read_upright; what
    is not RGB is converted by Pillow's own rules.
    """
    options = options or CropOptions()
    picture, offset = with_border(image.convert("RGB"), options.border, options.border_fill)
    width, height = picture.size
    pixels: NDArray[np.uint8] = np.asarray(picture)
    seen = [
        face
        for face in detector.find(pixels, options.threshold)
        if face.score >= options.threshold
        and min(face.left + face.width, width) - max(face.left, 0) >= 1
        and min(face.top + face.height, height) - max(face.top, 0) >= 1
    ]
    # Where two are alike, the one of the higher score comes first, then the one further left.
    chosen = sorted(seen, key=lambda face: (-face.width * face.height, -face.score, face.left))
    if options.faces == "central":
        chosen.sort(
            key=lambda face: (
                (face.left + face.width / 2 - width / 2) ** 2
                + (face.top + face.height / 2 - height / 2) ** 2
            )
        )
    crops = []
    for face in chosen if options.faces == "all" else chosen[:1]:
        left, top, right, bottom = cut_box(face, picture.size, options.margin)
        if options.fit == "square":  # about the middle; beyond the picture Pillow fills with black
            side = max(right - left, bottom - top)
            left, top = left - (side - (right - left)) // 2, top - (side - (bottom - top)) // 2
            right, bottom = left + side, top + side
        piece = picture.crop((left, top, right, bottom))
        piece = piece.resize((options.size_px, options.size_px), RESIZE)
        left, top = int(face.left) - offset[0], int(face.top) - offset[1]
        box = (left, top, left + int(face.width), top + int(face.height))
        crops.append(Crop(box, round(face.score, 4), piece))
    return crops, len(seen)


def cut_box(face: FoundFace, size: tuple[int, int], margin: float) -> Box:
    """Add the margin to a face's box and clip it to the picture, in whole pixels as the study did.

    Source: its cropping notebook, `int(0.2 * w)` left and right, `int(0.2 * h)` above and below.
    """
    left, top = int(face.left), int(face.top)
    right, bottom = int(face.left + face.width), int(face.top + face.height)
    across, down = int(margin * (right - left)), int(margin * (bottom - top))
    left, top = max(left - across, 0), max(top - down, 0)
    right, bottom = min(right + across, size[0]), min(bottom + down, size[1])
    return (left, top, max(right, left + 1), max(bottom, top + 1))  # a pixel rounds to nothing


def with_border(
    picture: Image.Image, share: float, fill: BorderFill
) -> tuple[Image.Image, tuple[int, int]]:
    """Surround an RGB picture by `share` of its width and height on each side.

    `replicate` repeats the outermost pixels, `blur` blurs these strips, `black` is black. Gives the
    picture and how far the old one now lies from the left and the top.
    """
    across, down = round(share * picture.width), round(share * picture.height)
    if across == 0 and down == 0:
        return picture, (0, 0)
    mode: Literal["edge", "constant"] = "constant" if fill == "black" else "edge"
    pixels = np.pad(np.asarray(picture), ((down, down), (across, across), (0, 0)), mode=mode)
    bordered = Image.fromarray(pixels)
    if fill == "blur":
        bordered = bordered.filter(ImageFilter.GaussianBlur(max(across, down) / 4))
        bordered.paste(picture, (across, down))
    return bordered, (across, down)
