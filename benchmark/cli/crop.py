"""`facebench data crop`: from photographs to faces that the benchmark can read.

The options of finding and cutting faces are here for `predict`, too.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from benchmark.cli.options import DEFAULT_DATA_DIR, AsJson, DataDir, Quiet, WeightsDir
from benchmark.cli.output import ExitCode, out, print_table, say_error, speaking, watching
from benchmark.errors import DataError
from benchmark.reporting.tables import Table

if TYPE_CHECKING:
    from benchmark.data.crop_folder import CropReport

SHOWN = 10
"""Pictures without a crop that are listed on the screen; crops.csv has them all."""

# As benchmark.data.crop has them; here so that --help loads no picture library.
DEFAULT_MARGIN = 0.2
DEFAULT_THRESHOLD = 0.7
DEFAULT_PX = 100
CROPPING = "Cropping"
"""The panel of finding and cutting faces."""
Fit = Literal["stretch", "square"]
Choice = Literal["largest", "central", "all"]
BorderFill = Literal["replicate", "blur", "black"]

Margin = Annotated[
    float,
    typer.Option(
        help="Share of the box's width and height added on each side.", rich_help_panel=CROPPING
    ),
]
FitOption = Annotated[
    Fit,
    typer.Option(
        "--fit",
        help="Stretch the box to a square, as the study did, or widen it to one.",
        rich_help_panel=CROPPING,
    ),
]
Faces = Annotated[
    Choice,
    typer.Option("--faces", help="Which, where there are several.", rich_help_panel=CROPPING),
]
Threshold = Annotated[
    float,
    typer.Option(help="Faces of lower scores are not seen; 0.01 to 1.", rich_help_panel=CROPPING),
]
Border = Annotated[
    float,
    typer.Option(
        help="Share of width and height added on each side before looking, for pictures cut so "
        "tightly that no face is seen in them.",
        rich_help_panel=CROPPING,
    ),
]
BorderFillOption = Annotated[
    BorderFill,
    typer.Option("--border-fill", help="What the border is made of.", rich_help_panel=CROPPING),
]
DetectorName = Annotated[
    str,
    typer.Option(
        "--detector",
        help="yunet, an installed one, or module:callable.",
        rich_help_panel=CROPPING,
    ),
]
DetectorModel = Annotated[
    Path | None,
    typer.Option(
        "--detector-model",
        envvar="FACEBENCH_DETECTOR_MODEL",
        help="The detector's model file; for yunet the *yunet*.onnx in WEIGHTS_DIR if left out.",
        rich_help_panel=CROPPING,
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
    border_fill: BorderFillOption = "replicate",
    file_format: Annotated[
        Literal["png", "jpeg"],
        typer.Option("--format", help="png loses nothing; jpeg takes a quarter of the space."),
    ] = "png",
    detector: DetectorName = "yunet",
    detector_model: DetectorModel = None,
    weights_dir: WeightsDir = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find the faces in photographs and cut them out, as the study did: box, margin, resize.

    crops.csv says of every picture what was found, or why nothing. Stopped, the same command
    resumes. Exits with 1 if any picture has no crop; the others are done.

    Examples:
      facebench data crop holiday --detector-model yunet.onnx
      facebench data crop photos.zip --out faces --faces all --fit square --image-px 224
      facebench data crop UTKFace.tar.gz --border 0.25 && facebench data prepare UTKFace-crops
    """
    with speaking("data crop", as_json=as_json) as answer:
        from benchmark.data.crop import CropOptions, DetectorChoice
        from benchmark.data.crop_folder import Cropper, crop_folder

        cropper = Cropper(
            CropOptions(margin, image_px, fit, faces, threshold, border, border_fill),
            DetectorChoice(detector, detector_model, weights_dir or data_dir / "weights"),
            file_format,
        )
        name = source.resolve().name
        for ending in (".tar.gz", ".tgz", ".tar", ".zip"):
            name = name.removesuffix(ending)
        with watching(quiet=quiet or as_json) as watch:
            report = crop_folder(source, out_dir or Path(f"{name}-crops"), cropper, watch)
        counts, without = report.counts(), report.without_crop()
        answer.data = {
            "folder": str(report.folder),
            "detector": report.detector,
            "pictures": sum(counts.values()),
            "new": report.n_new,
            "not_pictures": report.n_not_pictures,
            "outcomes": counts,
            "crops": int((report.table["outcome"] == "cropped").sum()),
            "without_crop": without[["file", "outcome", "reason"]].to_dict("records"),
        }
        for entry in answer.data["without_crop"][:1]:
            answer.errors.append(
                DataError(
                    f"{len(without)} of {sum(counts.values())} pictures have no crop; "
                    f"{entry['file']}: {entry['reason']}",
                    source=str(report.folder / "crops.csv"),
                    fix="The others are done; a lower --threshold or a --border may find more",
                )
            )
        if not as_json and not quiet:
            _print(report)
    for finding in answer.errors:
        if not as_json:
            say_error(finding)
        raise typer.Exit(ExitCode.FINDINGS)


def _print(report: "CropReport") -> None:
    counts = report.counts()
    total = sum(counts.values())
    lines = [("pictures", f"{total:,}", "")]
    for name, n in counts.items():
        lines.append((f"  {name}", f"{n:,}", f"{100 * n / total:.2f} %"))
    several = report.table.drop_duplicates("file")["faces_seen"] > 1
    lines.append(("  with several faces", f"{int(several.sum()):,}", ""))
    lines.append(("files that are no pictures", f"{report.n_not_pictures:,}", ""))
    if total > report.n_new:
        lines.append(("done before", f"{total - report.n_new:,}", ""))
    out.print(f"[bold]{escape(str(report.folder))}[/], by {report.detector}", soft_wrap=True)
    print_table(Table.of(["", "", ""], lines))
    without = report.without_crop()
    for file, reason in without[["file", "reason"]].head(SHOWN).itertuples(index=False):
        out.print(f"[yellow]–[/] {escape(file)}: {escape(reason)}")
    if len(without) > SHOWN:
        out.print(f"  and {len(without) - SHOWN:,} more")
