"""Take the picture of a report's top; needs playwright and Chromium.

python docs/pictures/report.py docs/pictures/report.png           # made-up predictions, said in it
python docs/pictures/report.py docs/pictures/report.png PAGE.html # of a page of yours

On synthetic faces: `make demo`, then the second line with its
page.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

WIDTH, HEIGHT, COLOURS = 1280, 1500, 64
DATASET = "synthetic faces, predictions made up"


def made_up_page(folder: Path) -> Path:
    """Write the page of the tests' store; its title says what its predictions are."""
    from tests.reporting.stores import EVERY_QUESTION, builder, evidence_of, fill, page_of

    runs = builder(folder / "mlruns", dataset=DATASET)
    fill(runs, EVERY_QUESTION, seeds=(0, 1), n=1_200)
    page = folder / "report.html"
    page.write_text(page_of(evidence_of(runs)), encoding="utf-8")
    return page


def take(page: Path, target: Path) -> None:
    """Open the page as a desk shows it, and keep its top in few colours."""
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        shown = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        shown.goto(page.resolve().as_uri())
        shown.screenshot(path=target)
        browser.close()
    few = Image.open(target).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(target, optimize=True)


def main() -> None:
    """Write the picture to the path given first, of the page given second."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(sys.argv[2]) if len(sys.argv) > 2 else made_up_page(Path(folder))
        take(page, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
