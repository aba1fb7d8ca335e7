"""Detect a face (YuNet) and cut it out of a photograph as UTKFace's faces are cut.

From a photograph to benchmark input, as the study cut its faces: find, add a margin, resize.

One picture at a time and in memory; folders of them are for benchmark.data.crop_folder, and who
finds the faces for benchmark.data.crop.

Who finds the faces in a photograph: OpenCV's YuNet, or a detector of somebody else's.

A detector is any object with `name` and `find`. An installed package offers one under the
entry-point group `facebench.detectors`, as a callable that takes the path of a model file (or None)
and gives the detector; without a package it is named as `module:callable`. What is done with what
it finds is for benchmark.data.crop.
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

NMS_THRESHOLD: Final = 0.3
MAX_FACES: Final = 5000
"""As OpenCV's own defaults have them."""


@dataclass(frozen=True, slots=True)
class FoundFace:
    """A face that a detector saw: its box in pixels from the top left corner, and how surely.

    The box may reach beyond the picture.
    """

    left: float
    top: float
    width: float
    height: float
    score: float
    """0 to 1, as the detector counts."""


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
    if choice.name == YUNET:
        return YuNet(_yunet_model(choice))
    if choice.model is not None and not choice.model.is_file():
        raise DataError(f"the model file {choice.model} does not exist", allowed="an existing file")
    detector: object = _factory(choice.name)(choice.model)
    if not isinstance(detector, Detector):
        raise DataError(
            f"detector {choice.name!r} gave {type(detector).__name__}",
            allowed="an object with `name` and `find(pixels, threshold)`",
            source="benchmark.data.crop.Detector",
        )
    return detector


def _yunet_model(choice: DetectorChoice) -> Path:
    if choice.model is not None:
        if not choice.model.is_file():
            raise DataError(f"the model file {choice.model} does not exist", fix=MODEL_SOURCE)
        return choice.model
    folder = choice.weights_dir
    found = sorted(folder.glob(MODEL_PATTERN)) if folder is not None else []
    if len(found) == 1:
        return found[0]
    listed = ", ".join(path.name for path in found)
    raise DataError(
        f"{len(found)} model files of YuNet are there: {listed}"
        if found
        else "the model file of YuNet is missing",
        allowed=f"one file {MODEL_PATTERN}",
        source=str(folder) if folder is not None else "",
        fix="Name one with --detector-model" if found else MODEL_SOURCE,
    )


def _factory(name: str) -> Any:
    points = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    try:
        if name in points:
            factory = points[name].load()
        elif ":" in name:
            module, attribute = name.split(":", 1)
            factory = getattr(importlib.import_module(module), attribute)
        else:
            raise DataError(
                f"there is no detector {name!r}",
                allowed=", ".join([YUNET, *sorted(points), "module:callable"]),
                source=f"entry points {ENTRY_POINT_GROUP}",
            )
    except (ImportError, AttributeError) as error:
        raise DataError(
            f"detector {name!r} cannot be loaded: {error}",
            allowed="an entry point, or module:callable",
            fix="Install its package into this environment",
        ) from error
    return factory


class YuNet:
    """OpenCV's detector of upright faces; raises DataError without it or with another model file.

    Source: W. Wu, H. Peng, S. Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine
    Intelligence Research 20 (2023); `cv2.FaceDetectorYN`. It finds faces of some 10 to 300 pixels
    (its page in opencv_zoo), so that large pictures are looked at smaller.
    """

    def __init__(self, model: Path) -> None:
        self._cv2 = _opencv()
        content = _model_bytes(model)
        self._name = f"yunet-{hashlib.sha256(content).hexdigest()[:12]}"
        try:
            self._network: Any = self._cv2.FaceDetectorYN.create(
                str(model), "", (320, 320), 0.5, NMS_THRESHOLD, MAX_FACES
            )
        except self._cv2.error as error:
            raise _not_yunet(model, error) from error
        # A file of another network loads, and fails only at work.
        try:
            self.find(np.zeros((64, 64, 3), np.uint8), 0.5)
        except self._cv2.error as error:
            raise _not_yunet(model, error) from error

    @property
    def name(self) -> str:
        """`yunet-` and the first digits of the sha256 of its model file."""
        return self._name

    def find(self, pixels: NDArray[np.uint8], threshold: float) -> list[FoundFace]:
        """Find upright faces, (height, width, 3) RGB, at the first of the sizes that shows any."""
        longest = max(pixels.shape[:2])
        for side in dict.fromkeys(min(look, longest) for look in LOOKS_PX):
            found = self._look(pixels, side / longest, threshold)
            if found:
                return found
        return []

    def _look(self, pixels: NDArray[np.uint8], scale: float, threshold: float) -> list[FoundFace]:
        image: NDArray[Any] = pixels
        height, width = pixels.shape[:2]
        if scale < 1:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            image = self._cv2.resize(image, size, interpolation=self._cv2.INTER_AREA)
        image = np.ascontiguousarray(image[:, :, ::-1])  # OpenCV reads BGR
        self._network.setInputSize((image.shape[1], image.shape[0]))
        self._network.setScoreThreshold(threshold)
        faces: Any = self._network.detect(image)[1]
        if faces is None:
            return []
        across, down = width / image.shape[1], height / image.shape[0]
        return [
            FoundFace(left * across, top * down, wide * across, high * down, score)
            for left, top, wide, high, *_, score in np.asarray(faces, float).tolist()
        ]


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise DataError(
            f"OpenCV is not installed ({error})",
            allowed="the optional extra `crop`",
            fix="pip install 'facebench[crop]', or choose another --detector",
        ) from error
    # One picture a process at a time: its own threads would only get in each other's way. What it
    # logs on loading ("targets are not supported by the new graph engine") is nobody's business.
    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    return cv2


def _model_bytes(model: Path) -> bytes:
    try:
        return model.read_bytes()
    except OSError as error:
        raise DataError(f"the model file {model} cannot be read: {error.strerror}") from error


def _not_yunet(model: Path, error: Exception) -> DataError:
    first_line = str(error).strip().splitlines()[0]
    return DataError(
        f"{model} is not a YuNet model that OpenCV can use: {first_line}",
        allowed="face_detection_yunet of opencv_zoo, with a dynamic input size for OpenCV 5",
        fix="Name another file with --detector-model",
    )


Fit = Literal["stretch", "square"]
Choice = Literal["largest", "central", "all"]
BorderFill = Literal["replicate", "blur", "black"]

STUDY_MARGIN: Final = 0.2
STUDY_PX: Final = 100
DEFAULT_THRESHOLD: Final = 0.7
SIZE_PX: Final = range(16, 1025)
RESIZE: Final = Image.Resampling.BICUBIC
"""Pillow's own choice, which the study did not change."""

NO_FACE: Final = "no face found"

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the picture; right and bottom not included."""


@dataclass(frozen=True, slots=True)
class CropOptions:
    """How faces are chosen and cut; validated at birth.

    The defaults are the study's (its cropping notebook: RetinaFace, a margin of 20 % of the box
    on each side, clipped to the picture, resized to 100 x 100 whatever its shape), but for the
    detector and for the choice among several faces, which it left to chance.
    """

    margin: float = STUDY_MARGIN
    """Share of the box's width added left and right, and of its height above and below."""
    size_px: int = STUDY_PX
    fit: Fit = "stretch"
    """`stretch` changes the shape to a square; `square` takes more of the picture, and black where
    there is no more."""
    faces: Choice = "largest"
    threshold: float = DEFAULT_THRESHOLD
    """Faces with lower scores are not seen."""
    border: float = 0.0
    """Share of width and height added on each side before looking, for pictures that are cut so
    tightly that a detector sees no face in them."""
    border_fill: BorderFill = "replicate"

    def __post_init__(self) -> None:
        _check_range("margin", self.margin, 0, 2)
        _check_range("threshold", self.threshold, 0.01, 1)
        _check_range("border", self.border, 0, 2)
        if self.size_px not in SIZE_PX:
            allowed = f"{SIZE_PX[0]} to {SIZE_PX[-1]} pixels"
            raise DataError(
                f"crops of {self.size_px} pixels a side were asked for", allowed=allowed
            )
        for what, value, allowed_values in (
            ("fit", self.fit, get_args(Fit)),
            ("faces", self.faces, get_args(Choice)),
            ("border fill", self.border_fill, get_args(BorderFill)),
        ):
            if value not in allowed_values:
                raise DataError(f"{what} is {value!r}", allowed=", ".join(allowed_values))


def _check_range(what: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # False for nan, too
        raise DataError(f"{what} is {value}", allowed=f"{low} to {high}")


@dataclass(frozen=True, slots=True)
class Crop:
    """One face, cut out."""

    box: Box
    """What the detector saw, without the margin; it may reach beyond the picture."""
    score: float
    image: Image.Image
    """RGB, `size_px` a side."""


@dataclass(frozen=True, slots=True)
class CropResult:
    """What became of one picture."""

    crops: tuple[Crop, ...]
    """The faces chosen: none or one; with `all` every one, the largest first."""
    n_faces: int
    """Faces seen, chosen or not."""
    reason: str = ""
    """Why there is no crop; empty where there is one."""

    @property
    def found(self) -> bool:
        """Whether there is a crop."""
        return bool(self.crops)

    @property
    def box(self) -> Box | None:
        """Box of the first face chosen."""
        return self.crops[0].box if self.crops else None

    @property
    def score(self) -> float | None:
        """Score of the first face chosen."""
        return self.crops[0].score if self.crops else None

    @property
    def image(self) -> Image.Image | None:
        """The first face chosen, cut out."""
        return self.crops[0].image if self.crops else None


def crop_picture(
    image: Image.Image, detector: Detector, options: CropOptions | None = None
) -> CropResult:
    """Find the faces of an upright picture and cut out those that the options choose.

    image: as Pillow reads it; anything but RGB is converted by Pillow's own rules. Files are
    turned upright and converted by ours in benchmark.data.pictures.read_upright. A picture
    without a face is no error: the result says so.
    """
    options = options or CropOptions()
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    bordered, offset = with_border(rgb, options.border, options.border_fill)
    pixels: NDArray[np.uint8] = np.asarray(bordered)
    seen = [
        face
        for face in detector.find(pixels, options.threshold)
        if face.score >= options.threshold and _is_inside(face, bordered.size)
    ]
    if not seen:
        return CropResult((), 0, NO_FACE)
    chosen = chosen_faces(seen, bordered.size, options.faces)
    crops = tuple(_cut(bordered, face, offset, options) for face in chosen)
    return CropResult(crops, len(seen))


def _is_inside(face: FoundFace, size: tuple[int, int]) -> bool:
    """Tell whether at least a pixel of a face lies in the picture."""
    left, top = max(face.left, 0), max(face.top, 0)
    right = min(face.left + face.width, size[0])
    bottom = min(face.top + face.height, size[1])
    return right - left >= 1 and bottom - top >= 1


def chosen_faces(
    seen: Sequence[FoundFace], size: tuple[int, int], choice: Choice
) -> list[FoundFace]:
    """Choose the largest face, the one nearest to the middle, or all, the largest first.

    Where two are alike, the surer one comes first, then the one further to the left.
    """
    by_area = sorted(seen, key=lambda face: (-face.width * face.height, -face.score, face.left))
    if choice == "all":
        return by_area
    if choice == "largest":
        return by_area[:1]
    middle = (size[0] / 2, size[1] / 2)

    def from_middle(face: FoundFace) -> float:
        across = face.left + face.width / 2 - middle[0]
        down = face.top + face.height / 2 - middle[1]
        return across**2 + down**2

    return sorted(by_area, key=from_middle)[:1]


def _cut(
    picture: Image.Image, face: FoundFace, offset: tuple[int, int], options: CropOptions
) -> Crop:
    cut = cut_box(face, picture.size, options.margin)
    # Beyond the picture Pillow fills with black.
    piece = picture.crop(_squared(cut) if options.fit == "square" else cut)
    image = piece.resize((options.size_px, options.size_px), RESIZE)
    left, top = int(face.left) - offset[0], int(face.top) - offset[1]
    right, bottom = left + int(face.width), top + int(face.height)
    return Crop((left, top, right, bottom), round(face.score, 4), image)


def cut_box(face: FoundFace, size: tuple[int, int], margin: float) -> Box:
    """Add the margin to a face's box and clip it to the picture, in whole pixels as the study did.

    Source: its cropping notebook, `int(0.2 * w)` left and right, `int(0.2 * h)` above and below.
    """
    left, top = int(face.left), int(face.top)
    right, bottom = int(face.left + face.width), int(face.top + face.height)
    across, down = int(margin * (right - left)), int(margin * (bottom - top))
    cut = (
        max(left - across, 0),
        max(top - down, 0),
        min(right + across, size[0]),
        min(bottom + down, size[1]),
    )
    # A face of a pixel or two rounds to nothing.
    return (cut[0], cut[1], max(cut[2], cut[0] + 1), max(cut[3], cut[1] + 1))


def _squared(box: Box) -> Box:
    """Lengthen the shorter side about the middle; the result may reach beyond the picture."""
    left, top, right, bottom = box
    side = max(right - left, bottom - top)
    left -= (side - (right - left)) // 2
    top -= (side - (bottom - top)) // 2
    return (left, top, left + side, top + side)


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
