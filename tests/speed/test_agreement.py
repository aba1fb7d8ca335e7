"""Fast and plain trainings of drawn faces, met over two seeds."""

from dataclasses import replace

import pytest
import torch

from benchmark.errors import RunError
from benchmark.experiment import Backbone, Experiment, Head, Recipe
from benchmark.faces.store import FaceSet
from benchmark.speed.agreement import Agreement, agreements, as_data, cells_of, meetings_for
from benchmark.training.device import Device, cpu_has_bf16

CPU = Device(torch.device("cpu"), "fp32")


SMALL = Experiment(
    name="small",
    asks="Do they agree?",
    backbone=Backbone("cnn", trainable_stages=1, input_px=32),
    head=Head(hidden_units=8),
    recipe=Recipe(learning_rate=1e-3, max_epochs=1),
    ad_hoc=True,
)


@pytest.fixture(scope="module")
def found(drawn_faces: FaceSet) -> Agreement:
    events = agreements(SMALL, None, (0, 1), drawn_faces, meetings_for(CPU)[:1])
    return next(event for event in events if isinstance(event, Agreement))


def test_cached_and_live_training_end_in_equal_weights_and_answers(found: Agreement) -> None:
    assert found.meeting.name == "cached against live"
    assert found.n_equal == found.n_seeds == 2
    assert all(difference.accuracy == 0 for difference in found.differences.values())
    assert found.agrees


def test_an_interval_without_zero_is_said(found: Agreement) -> None:
    worse = replace(found.differences["race"], accuracy=-0.02, low=-0.03, high=-0.01)
    apart = replace(found, differences={**found.differences, "race": worse})
    assert not apart.agrees
    assert as_data(apart)["tasks"]["race"]["contains_zero"] is False
    assert [cells[4] for cells in cells_of(apart)] == ["yes", "yes", "NO"]


def test_what_the_hardware_has_is_compared() -> None:
    names = [meeting.name for meeting in meetings_for(CPU)]
    assert names == ["cached against live", *(["bf16 against fp32"] if cpu_has_bf16() else [])]
    on_cuda = [meeting.name for meeting in meetings_for(Device(torch.device("cuda"), "bf16"))]
    assert on_cuda == ["cached against live", "bf16 against fp32", "graph against eager"]
    assert [meeting.name for meeting in meetings_for(CPU, compiled=True)] == [
        *names, "compiled against eager"
    ]  # fmt: skip


def test_where_nothing_compiles_nothing_is_compared(
    drawn_faces: FaceSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(*_arguments: object, **_options: object) -> object:
        raise OSError("no room")

    monkeypatch.setattr(torch, "compile", lambda *_arguments, **_options: no_compiler)
    last = meetings_for(CPU, compiled=True)[-1:]
    with pytest.raises(RunError, match="torch.compile does not work here, and cannot be compared"):
        list(agreements(SMALL, None, (0,), drawn_faces, last))
