"""Too good to be true: who raises a flag, what stops, and what an acknowledgement does."""

import json
from typing import Any

import pytest

from benchmark.errors import RunError
from benchmark.evaluation.red_flags import UTKFACE_SPLIT_DIGESTS, acknowledge, flag_state, red_flags
from benchmark.files import write_json
from benchmark.record import RunRecord
from tests.made_runs import RunBuilder, an_experiment, build, exact_predictions

MTL = an_experiment("a")
OTHER = MTL.varied(name="mtl-cnn-none-full-b", **{"recipe.learning_rate": 3e-3})
WHEN = "2026-11-24T10:00:00+00:00"
GOOD = {"test/age_group/accuracy": 0.8301, "test/gender/accuracy": 0.98, "test/race/accuracy": 0.9}


def about(*, drawn: bool = False, leaky: bool = False, **changes: Any) -> dict[str, Any]:
    dataset = {"name": "utkface-100", "drawn": drawn, "split_digest": "cd" * 32}
    subset = changes.pop("subset", None)
    return {"dataset": dataset | changes, "experiment": {"subset": subset}, "leaky": leaky}


def test_only_what_is_above_its_task_s_limit_on_all_of_utkface_raises_a_flag() -> None:
    # 83.01 % is above 83 %; 98 % gender is not above 98 %.
    assert red_flags(about(), GOOD) == ("age group 83.0 % is above 83 %",)
    assert red_flags(about(), {**GOOD, "test/age_group/accuracy": 0.83}) == ()
    other = {"drawn": True}, {"leaky": True}, {"name": "other"}, {"subset": {"gender": "female"}}
    for changes in other:
        assert red_flags(about(**changes), GOOD) == (), changes  # type: ignore[arg-type]
    renamed = about(name="faces", split_digest=UTKFACE_SPLIT_DIGESTS[0])
    assert len(red_flags(renamed, GOOD)) == 1


def test_a_flagged_row_stays_unranked_until_every_seed_is_acknowledged(runs: RunBuilder) -> None:
    def rows() -> Any:
        return build(runs.records(), [MTL, OTHER], "utkface-100").tables[0].rows

    first, second = (runs.done(MTL, exact_predictions(60, 90), seed=seed) for seed in (0, 1))
    runs.done(MTL, exact_predictions(60, 70), seed=2)
    runs.done(OTHER, exact_predictions(50, 50))
    found = [(row.name, row.rank, row.stopped) for row in rows()]
    assert found == [(MTL.name, None, True), (OTHER.name, 1, False)]
    acknowledge(first, "Looked at  by hand", WHEN)
    said = rows()[0].red_flag
    assert said.startswith("LEAK WARNING, not ranked: age group 90.0 % is above 83 %")
    assert f"(run {second.identity[:12]})" in said
    assert f"--acknowledge {MTL.name}" in said
    acknowledge(second, "Looked at  by hand", WHEN)
    row = rows()[0]
    assert (row.rank, row.stopped) == (1, False)
    assert row.red_flag.startswith("RED FLAG, acknowledged on 2026-11-24: Looked at by hand")
    stored = json.loads((first.folder / "acknowledged.json").read_text())
    assert (stored["when"], stored["why"]) == (WHEN, "Looked at by hand")
    # It is of these very predictions.
    content = json.loads((first.folder / "metrics.json").read_text())
    write_json(first.folder / "metrics.json", content | {"predictions_sha256": "00" * 32})
    assert flag_state(RunRecord(first.folder)).stopped


def test_what_cannot_be_acknowledged(runs: RunBuilder) -> None:
    flagged, usual = (
        runs.done(item, exact_predictions(60, n)) for item, n in ((MTL, 90), (OTHER, 80))
    )
    with pytest.raises(RunError, match=r"no reason is given.*--why"):
        acknowledge(flagged, "  ", WHEN)
    with pytest.raises(RunError, match="raises no red flag"):
        acknowledge(usual, "Looked at", WHEN)
    (flagged.folder / "acknowledged.json").write_text("{")
    with pytest.raises(RunError, match=r"acknowledged\.json of run .* cannot be read"):
        flag_state(flagged)
