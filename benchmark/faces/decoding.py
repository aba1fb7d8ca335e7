"""Decode batches of pictures into their rows: the work of one process, called by packing.

Run as `python -m benchmark.faces.decoding FACES_NPY IMAGE_PX` it is such a process: it reads
pickled batches from its standard input, answers each on its standard output, and ends with its
input.
"""

import pickle
import sys
from pathlib import Path
from typing import BinaryIO

from benchmark.errors import DataError
from benchmark.faces.pictures import Picture, pillow_quiet, read_picture
from benchmark.faces.pixels import PixelWriter

Batch = list[tuple[int, bytes]]
"""Row, and the bytes of the file."""
Results = list[tuple[int, Picture | str]]
"""Row, and the picture or the reason why there is none."""


def decode_batch(batch: Batch, writer: PixelWriter) -> Results:
    """Write the pixels of each picture to its row, and say what it was or why it is unusable."""
    results: Results = []
    for row, content in batch:
        try:
            pixels, picture = read_picture(content, writer.image_px)
        except DataError as error:
            results.append((row, f"{error.found} (allowed: {error.allowed})"))
            continue
        writer.write(row, pixels)
        results.append((row, picture))
    return results


def answer_batches(batches: BinaryIO, answers: BinaryIO, writer: PixelWriter) -> None:
    """Decode batch after batch until there are no more; a full disk is an answer, too."""
    with pillow_quiet():
        while True:
            try:
                batch: Batch = pickle.load(batches)
            except EOFError:
                return
            answer: Results | OSError
            try:
                answer = decode_batch(batch, writer)
            except OSError as error:
                answer = OSError(error.errno, error.strerror)
            pickle.dump(answer, answers)
            answers.flush()


if __name__ == "__main__":
    opened = PixelWriter.joining(Path(sys.argv[1]), int(sys.argv[2]))
    answer_batches(sys.stdin.buffer, sys.stdout.buffer, opened)
