"""Networks by themselves: confusion matrices, learning curves, stored tables, depths."""

import numpy as np
import pytest

from benchmark.evaluation.fairness import gender_gap_table
from benchmark.evaluation.predictions import read_predictions
from benchmark.reporting.evidence import Evidence
from benchmark.reporting.questions import stored_tables
from benchmark.reporting.report import answers_of, network_sections
from tests.reporting.stores import QUICK, evidence_of, fill
from tests.results.conftest import RunBuilder


def test_a_confusion_matrix_has_the_mean_shares_of_the_true_class(drawn_runs: RunBuilder) -> None:
    fill(drawn_runs, QUICK[:1], seeds=(0, 1), n=400)
    (section,) = network_sections(evidence_of(drawn_runs))
    (matrix,) = (m for m in section["matrices"] if m.title.startswith("Gender: confusion"))
    tables = [read_predictions(record.predictions_path) for record in drawn_runs.records()]
    tests = [table[table["part"] == "test"] for table in tables]
    shares = [
        np.mean([((t["gender"] == 0) & (t["gender_pred"] == said)).sum() for t in tests])
        / (tests[0]["gender"] == 0).sum()
        for said in (0, 1)
    ]
    name, *cells = matrix.rows[0].cells
    assert name.text == f"male ({(tests[0]['gender'] == 0).sum()})"
    assert [cell.text for cell in cells] == [f"{100 * share:.0f}" for share in shares]
    assert [cell.style for cell in cells] == ["right", "share"]
    assert len(section["matrices"]) == 6
    assert len(section["curves"]) == 4
    assert "Training loss" in section["curves"][0]


def test_what_cannot_be_read_is_said_and_the_rest_is_shown(drawn_runs: RunBuilder) -> None:
    fill(drawn_runs, QUICK[:1], n=400)
    (record,) = drawn_runs.records()
    (record.folder / "history.csv").unlink()
    (section,) = network_sections(evidence_of(drawn_runs))
    assert "learning curves" in section["trouble"] or section["curves"] == ()
    assert len(section["matrices"]) == 6


def test_stored_tables_are_means_over_seeds_with_the_largest_p(drawn_runs: RunBuilder) -> None:
    fill(drawn_runs, QUICK[:1], seeds=(0, 1), n=1_600)
    best = evidence_of(drawn_runs).first_ranked[0]
    assert list(stored_tables(best)) == []
    stored = [
        gender_gap_table(
            table := read_predictions(record.predictions_path).query("part == 'test'"),
            {"gender": (table["gender"] == table["gender_pred"]).to_numpy()},
        )
        for record in drawn_runs.records()
    ]
    for record, table in zip(drawn_runs.records(), stored, strict=True):
        table.to_csv(record.folder / "gender_gaps.csv", index=False)
    (shown,) = stored_tables(best)
    first = shown.rows[0].cells
    means = [float(np.mean([table[name].iloc[0] for table in stored])) * 100
             for name in ("difference", "permuted")]  # fmt: skip
    assert [cell.text for cell in first[:2]] == ["gender", "all"]
    assert [first[2].value, first[3].value] == pytest.approx(means)
    assert first[4].value == max(table["p"].iloc[0] for table in stored)


def test_accuracy_by_depth_has_a_line_per_backbone(evidence: Evidence) -> None:
    (depth,) = (it for it in answers_of(evidence) if it.question.slug == "depth")
    lines, _ = depth.figures
    assert lines.title == "Accuracy by unfreezing depth"
    assert len(lines.panels) == 3
    assert ">frozen<" in lines.panels[0]
