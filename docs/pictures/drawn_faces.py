"""Draw the picture of the README: twelve synthetic faces, as the benchmark draws them.

python docs/pictures/drawn_faces.py docs/pictures/drawn_faces.png
"""

import sys

from PIL import Image

from benchmark.data.drawn import draw_faces

ROWS, COLUMNS, PX = 2, 6, 128


def main() -> None:
    """Write the sheet to the path given."""
    faces = draw_faces(ROWS * COLUMNS, seed=1, image_px=PX).images
    sheet = faces.reshape(ROWS, COLUMNS, PX, PX, 3).transpose(0, 2, 1, 3, 4)
    Image.fromarray(sheet.reshape(ROWS * PX, COLUMNS * PX, 3)).save(sys.argv[1], optimize=True)


if __name__ == "__main__":
    main()
