"""Decoding in processes gives what decoding alone gives, and a process that dies is told."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest

from benchmark.data import packing
from benchmark.data.packing import Decoder, answer_batches
from benchmark.data.prepare import prepare
from benchmark.data.table import PixelWriter, open_pixels
from benchmark.errors import DataError
from tests.faces.sources import face_name, faces, jpeg, tar_of


@pytest.fixture
def in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few the faces are, processes share them."""
    monkeypatch.setattr(packing, "MIN_FACES_TO_SHARE", 1)
    monkeypatch.setattr(packing, "BATCH_FACES", 3)
    monkeypatch.setattr(packing, "n_cores", lambda: 2)


def test_processes_give_the_same_data_set_as_one(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = tar_of(tmp_path / "faces.tar", {**faces(40), face_name(90): b"no picture"})
    alone = prepare(source, tmp_path / "alone", image_px=32)
    request.getfixturevalue("in_processes")
    shared = prepare(source, tmp_path / "shared", image_px=32)
    for file in ("faces.npy", "table.csv", "quarantine.csv", "manifest.json"):
        assert (shared.faces.folder / file).read_bytes() == (alone.faces.folder / file).read_bytes()


class Killed(BaseException):
    """As sudden as a signal: nothing that catches errors catches it."""


@pytest.mark.usefixtures("in_processes")
def test_being_stopped_while_processes_decode_leaves_nothing(tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "packing faces":
            raise Killed

    with pytest.raises(Killed):
        prepare(tar_of(tmp_path / "faces.tar", faces(80)), tmp_path / "data", on_progress=stop)
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.usefixtures("in_processes")
def test_a_process_that_dies_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = Decoder.decode

    def decode_and_die(decoder: Decoder, batch: packing.Batch) -> packing.Results:
        results = decode(decoder, batch)
        decoder.process.kill()
        return results

    monkeypatch.setattr(Decoder, "decode", decode_and_die)
    with pytest.raises(DataError, match=r"a decoding process died \(exit code -9\)"):
        prepare(tar_of(tmp_path / "faces.tar", faces(80)), tmp_path / "data", image_px=32)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_process_writes_into_the_rows_it_is_given(tmp_path: Path) -> None:
    writer = PixelWriter(tmp_path / "faces.npy", 3, 32)
    with Decoder(writer.path, 32) as decoder:
        ((row, picture),) = decoder.decode([(2, jpeg(1))])
    writer.finish(range(3))
    writer.close()
    pixels = open_pixels(writer.path)
    assert (row, picture.width) == (2, 48)
    assert [bool(np.any(pixels[i])) for i in range(3)] == [False, False, True]


def test_a_write_that_fails_is_answered_and_not_died_of(tmp_path: Path) -> None:
    writer = PixelWriter(tmp_path / "faces.npy", 1, 32)
    writer.close()  # so that the next write fails
    answers = io.BytesIO()
    answer_batches(io.BytesIO(pickle.dumps([(0, jpeg(1))])), answers, writer)
    answer = pickle.loads(answers.getvalue())
    assert isinstance(answer, OSError)
    assert answer.strerror == "Bad file descriptor"
