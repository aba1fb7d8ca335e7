"""Small leaderboards made by hand: rows without runs, for what only arranges and writes them."""

from typing import Any

from benchmark.comparison import rows
from benchmark.comparison.leaderboard import BoardTable, Leaderboard
from benchmark.comparison.library import RunGroup, Setting
from benchmark.comparison.rows import Outcome, Row, TaskScore, WorstGroup
from benchmark.comparison.statistics import Difference, Family
from benchmark.comparison.wording import TaskComparison
from benchmark.experiment.definition import Protocol, StudyRow
from benchmark.tasks import TASKS, TaskName
from tests.made_runs import an_experiment

SETTING = Setting("utkface-100", False, "leak-free-2", "cd" * 32, "ab" * 32, Protocol())
NASTY = 'mtl-<script>alert("1")</script>&_x|$%#{}~^\\'


def outcome(
    family: Family, task: TaskName | None, value: float, p: float, other: str = "gender-other"
) -> Outcome:
    """Give what came of a comparison, with an interval of two points to either side; a corrected p
    of 0.05 or less is significant."""
    found = Difference(
        accuracy=value, low=value - 0.02, high=value + 0.02, se=0.01, se_seeds=0.006, df=12.0,
        test="faces_and_seeds", p=p, only_reference=None, only_arm=None,
        n_faces=200, n_clusters=200,
    )  # fmt: skip
    groups: dict[str, Any] = {"reference": RunGroup(other), "group": RunGroup("a"), "task": task}
    return family, TaskComparison(found, p, 0.04, family, 2, **groups)


def a_row(name: str = "mtl-cnn-none-full-a", accuracy: float = 0.7, **changes: Any) -> Row:
    """Give a finished row over three seeds with something in every column."""
    low, high = accuracy - 0.02, accuracy + 0.02
    values: dict[str, Any] = {
        "rank": 1, "val_combined": accuracy, "val_combined_sd": 0.01,
        "scores": {
            task: TaskScore(accuracy, low, high, accuracy - 0.05, 0.01, 0.02) for task in TASKS
        },
        "combined": rows.CombinedScore(accuracy, low, high, 0.01),
        "worst": WorstGroup("age_group", "gender_race", "female Others", 57, 0.561, 0.433, 0.682),
        "gap": rows.GroupGap("age_group", "gender_race", 0.15, 0.05, 0.25, 0.08),
        "comparisons": (
            outcome("mtl_stl", "gender", 0.031, 0.004),
            outcome("compare_with", "race", -0.012, 0.3, other="mtl-cnn-none-full-b"),
        ),
        "study": StudyRow("2.2", age_group=0.9028, gender=0.9758, race=0.9253),
        "parameters": 722_496, "trainable_parameters": 12_345, "gmacs": 0.0512, "seconds": 750.0,
        "images_per_second": 1320.0, "peak_memory_mib": 2048.0, "seeds": (0, 1, 2),
        "devices": ("CPU, 2 threads",), "precisions": ("fp32",), "commits": ("0123456789ab",),
        "identities": ("aa", "bb", "cc"), "definition": an_experiment().as_dict(),
    }  # fmt: skip
    return Row("done", name, **(values | changes))


def a_board(*members: Row) -> Leaderboard:
    """Put rows in one table of multi-task networks."""
    tables, notes = (BoardTable(SETTING, "mtl", members),), ("A note with <b>tags</b> & signs.",)
    return Leaderboard("utkface-100", None, False, tables, notes, limits=("A limit.",))
