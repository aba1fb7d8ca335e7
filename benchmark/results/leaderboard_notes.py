"""What stands beneath a leaderboard's tables: how these very intervals, marks and rows are read."""

from collections.abc import Iterable, Iterator, Sequence

from benchmark.errors import RunError
from benchmark.results.board import Table
from benchmark.results.comparison_notes import gap_sentences
from benchmark.results.meetings import Gap
from benchmark.results.red_flags import RED_FLAG_ABOVE
from benchmark.results.reference_rows import LOGISTIC
from benchmark.results.row import Row
from benchmark.results.rows import Run
from benchmark.results.verdicts import family_text
from benchmark.tasks import TASK_TITLES


def reading_notes(tables: Sequence[Table], families: Iterable[Sequence[Run]]) -> list[str]:
    """Say how the intervals and seeds of these very tables are to be read."""
    done = [row for table in tables for row in table.rows if row.status == "done"]
    notes = []
    if any(row.status != "reference" for table in tables for row in table.rows[:1]):
        notes.append("No majority-class row: the data set with this split is not prepared here.")
    elif not any(row.name.startswith(LOGISTIC) for table in tables for row in table.rows[:4]):
        notes.append(
            "No logistic regression beside the rows yet: `facebench leaderboard --fit-references` "
            "fits it once, on small pictures and on the frozen trunks of finished runs."
        )
    if any(len(row.seeds) == 1 for row in done):
        notes.append(
            "Rows with one seed tell of that training alone and permit no claim about the "
            "experiment; their intervals are Wilson's, over test faces."
        )
        shared = max((_faces_sharing_a_cluster(runs) for runs in families), default=0)
        if shared:
            notes.append(
                f"{shared} test faces are near-duplicates of others there; Wilson's interval "
                "counts them as independent and is a little too narrow."
            )
    if any(row.red_flag for row in done):
        limits = ", ".join(
            f"{100 * limit:.0f} % ({TASK_TITLES[task]})" for task, limit in RED_FLAG_ABOVE.items()
        )
        notes.append(
            f"A row above {limits} on the leak-free UTKFace test is stopped: it stays, marked !, "
            "and is not ranked until somebody has looked for a leak and acknowledges it."
        )
    if any(len(row.seeds) > 1 for row in done):
        notes.append(
            "Rows with several seeds show mean ± sd over seeds; their intervals are a bootstrap "
            "of the seed-averaged correctness over clusters of test faces."
        )
    if any(table.kind == "mtl" for table in tables):
        notes.append(
            "val is the combined validation accuracy, 0.4 age group + 0.2 gender + 0.4 race; "
            "in single-task tables it is the task's."
        )
    return [*notes, *_against_notes(tables), *_column_notes(done)]


def _against_notes(tables: Sequence[Table]) -> Iterator[str]:
    """Say how rows were set against each other, and who was missing there."""
    rows = [row for table in tables for row in table.rows]
    outcomes = [outcome for row in rows for outcome in row.against]
    judged = [outcome.judged for outcome in outcomes if outcome.judged]
    if judged:
        yield (
            "Differences are a row minus the other on the same test faces, in percentage points, "
            f"with their 95 % interval. {family_text(judged)} Without it there is no significant "
            "difference, which does not mean that the two are equal."
        )
    if any(outcome.of_trainings_alone for outcome in outcomes):
        yield (
            "Where a side has one seed, one run met one run (the lowest seed that both have): "
            "that speaks of these trainings alone."
        )
    if any(row.tied for row in rows):
        yield (
            "= marks rows without a significant difference from the first of their table in its "
            "test score (combined, or the task's)."
        )
    yield from gap_sentences(
        [
            Gap(row.name, outcome.other, outcome.why, outcome.task)
            for row in rows
            for outcome in row.against
            if outcome.why and outcome.kind != "first"
        ]
    )


def _column_notes(done: Sequence[Row]) -> Iterator[str]:
    if any(row.gap for row in done):
        yield (
            "Gap: the best-read group minus the worst-read one, by gender and race together (of "
            "the gender task by race, of the race task by gender), over groups of 30 faces or "
            "more; beside it what names drawn by lot would give. Over seeds, a mean."
        )
    if any(row.study for row in done):
        yield (
            "What the study printed was measured on a split that leaks: about 80 % of its test "
            "faces were training faces. It stands beside the row, and nothing is subtracted."
        )


def _faces_sharing_a_cluster(runs: Sequence[Run]) -> int:
    """Count the test faces beyond the first of each cluster, as the run's metrics tell."""
    try:
        metrics = [run.record.metrics for run in runs if run.record.state == "done"]
    except (RunError, KeyError):
        return 0
    counts = [m["test/n_faces"] - m["test/n_clusters"] for m in metrics if "test/n_clusters" in m]
    return int(max(counts, default=0))
