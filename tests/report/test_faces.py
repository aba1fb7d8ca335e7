"""Mistakes in pictures: of drawn faces, small, within the page, and of the very faces that ran."""

import base64
import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from benchmark import registry
from benchmark.errors import DataError
from benchmark.reporting.subgroups import SHOWN_PER_TASK, gallery
from tests.report.stores import builder, evidence_of, finish, page_of, predictions_on
from tests.results.conftest import RunBuilder

if TYPE_CHECKING:
    from benchmark.data.dataset import FaceSet

MTL = registry.experiment("mtl-cnn-none-full-short")


@pytest.fixture
def runs(tmp_path: Path, drawn_faces: "FaceSet") -> RunBuilder:
    """A run about the drawn faces that are prepared."""
    runs = builder(tmp_path / "mlruns")
    runs.dataset |= {"pixel_digest": drawn_faces.pixel_digest}
    finish(runs, MTL, predictions=predictions_on(drawn_faces, MTL))
    return runs


def test_mistakes_are_shown_surest_first_as_pictures_within_the_page(
    runs: RunBuilder, drawn_faces: "FaceSet"
) -> None:
    shown = gallery(evidence_of(runs), drawn_faces)
    assert shown is not None
    assert [item.task for item in shown.tasks] == ["age_group", "gender", "race"]
    for item in shown.tasks:
        sure = [face.sure for face in item.shown]
        assert 0 < len(sure) <= SHOWN_PER_TASK
        assert sure == sorted(sure, reverse=True)
        assert all(face.truth != face.predicted for face in item.shown)
    coded = shown.tasks[0].shown[0].picture.removeprefix("data:image/webp;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(coded))).size == (32, 32)


def test_a_page_with_drawn_faces_says_that_they_are_drawn(
    runs: RunBuilder, drawn_faces: "FaceSet"
) -> None:
    evidence = evidence_of(runs)
    text = page_of(evidence, gallery(evidence, drawn_faces))
    assert "personal data" not in text
    assert 'alt="A drawn face labelled' in text


def test_a_page_with_people_says_that_it_is_personal_data(
    runs: RunBuilder, drawn_faces: "FaceSet"
) -> None:
    evidence = evidence_of(runs)
    shown = gallery(evidence, drawn_faces)
    assert shown is not None
    text = page_of(evidence, replace(shown, drawn=False))
    assert "This page holds pictures of people: personal data." in text


def test_faces_that_were_prepared_anew_are_not_mistaken(
    tmp_path: Path, drawn_faces: "FaceSet"
) -> None:
    runs = builder(tmp_path / "mlruns")
    finish(runs, MTL, predictions=predictions_on(drawn_faces, MTL))
    with pytest.raises(DataError, match="prepared anew"):
        gallery(evidence_of(runs), drawn_faces)
