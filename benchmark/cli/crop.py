"""`facebench data crop`: from photographs to faces that the benchmark can read.

The options of finding and cutting faces are here for `predict`, too.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from benchmark.cli.options import DEFAULT_DATA_DIR, AsJson, DataDir, WeightsDir
from benchmark.cli.output import ExitCode, out, print_table, say_error, speaking, watching
from benchmark.errors import DataError
from benchmark.reporting.tables import Table

SHOWN = 10
"""Files that are listed on the screen; crops.csv has every picture."""

# As benchmark.data.crop has them; here so that --help loads no picture library.
DEFAULT_MARGIN = 0.2
DEFAULT_THRESHOLD = 0.7
DEFAULT_PX = 100


def _option(text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel="Cropping", **more)


Margin = Annotated[float, _option("Share of the box's width and height added on each side.")]
FitOption = Annotated[
    Literal["stretch", "square"],
    _option("Stretch the box to a square, as the study did, or widen it to one.", "--fit"),
]
Faces = Annotated[
    Literal["largest", "central", "all"], _option("Which, where there are several.", "--faces")
]
Threshold = Annotated[float, _option("Faces of lower scores are not seen; 0.01 to 1.")]
Border = Annotated[
    float,
    _option(
        "Share of width and height added on each side before looking, for pictures cut so tightly "
        "that no face is seen in them."
    ),
]
DetectorName = Annotated[str, _option("yunet, or module:callable.", "--detector")]
DetectorModel = Annotated[
    Path | None,
    _option(
        "The detector's model file; for yunet the *yunet*.onnx in WEIGHTS_DIR if left out.",
        "--detector-model",
        envvar="FACEBENCH_DETECTOR_MODEL",
    ),
]


def crop(
    source: Annotated[Path, typer.Argument(help="Folder, .tar, .tar.gz or .zip of photographs.")],
    out_dir: Annotated[
        Path | None,
        typer.Option("--out", help="Where the faces go; SOURCE-crops here if left out."),
    ] = None,
    image_px: Annotated[int, typer.Option(help="Side of the faces in pixels.")] = DEFAULT_PX,
    margin: Margin = DEFAULT_MARGIN,
    fit: FitOption = "stretch",
    faces: Faces = "largest",
    threshold: Threshold = DEFAULT_THRESHOLD,
    border: Border = 0.0,
    detector: DetectorName = "yunet",
    detector_model: DetectorModel = None,
    weights_dir: WeightsDir = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Find the faces in photographs and cut them out, as the study did: box, margin, resize.

    crops.csv says of every picture what was found, or why nothing. Exits with 1 if any picture has
    no crop; the others are done.

    Examples:
      facebench data crop holiday --detector-model yunet.onnx
      facebench data crop photos.zip --out faces --faces all --fit square --image-px 224
      facebench data crop UTKFace.tar.gz --border 0.25 && facebench data prepare UTKFace-crops
    """
    with speaking("data crop", as_json=as_json) as answer:
        from benchmark.data.crop import CropOptions, Cropper, DetectorChoice, crop_folder

        cropper = Cropper(
            CropOptions(margin, image_px, fit, faces, threshold, border),
            DetectorChoice(detector, detector_model, weights_dir or data_dir / "weights"),
            as_png=True,
        )
        name = source.resolve().name
        for ending in (".tar.gz", ".tgz", ".tar", ".zip"):
            name = name.removesuffix(ending)
        folder = out_dir or Path(f"{name}-crops")
        with watching(quiet=as_json) as watch:
            report = crop_folder(source, folder, cropper, watch)
        counts, total = report.counts(), sum(report.counts().values())
        without = report.table[report.table["outcome"] != "cropped"]
        missing = [
            f"{file}: {why}" for file, why in without[["file", "reason"]].itertuples(index=False)
        ]
        answer.data = {
            "folder": str(folder),
            "detector": report.detector,
            "pictures": total,
            "not_pictures": len(report.others),
            "passed_over": report.others,
            "outcomes": counts,
            "crops": len(report.table) - len(without),
            "without_crop": without[["file", "outcome", "reason"]].to_dict("records"),
        }
        if report.others:
            answer.warnings.append(
                f"{len(report.others):,} files are no pictures by their names, "
                f"and were passed over: {_some(report.others)}."
            )
        if missing:
            answer.errors.append(
                DataError(
                    f"{len(missing)} of {total} pictures have no crop; {_some(missing)}",
                    source=str(folder / "crops.csv"),
                    fix="The others are done; a lower --threshold or a --border may find more",
                )
            )
        if not as_json:
            several = int((report.table.drop_duplicates("file")["faces_seen"] > 1).sum())
            lines = [("pictures", f"{total:,}"), *((f"  {k}", f"{n:,}") for k, n in counts.items())]
            out.print(f"[bold]{escape(str(folder))}[/], by {report.detector}", soft_wrap=True)
            print_table(Table.of(["", ""], [*lines, ("  with several faces", f"{several:,}")]))
            for finding in answer.errors:
                say_error(finding)
    if answer.errors:
        raise typer.Exit(ExitCode.FINDINGS)


def _some(lines: list[str]) -> str:
    more = len(lines) - SHOWN
    return "; ".join(lines[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")
