"""What a study leaves in its folder: table, an interactive page, the best recipe."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmark.errors import BenchmarkError
from benchmark.experiment import Experiment
from benchmark.files import write_json
from benchmark.tuning.ledger import Ledger, Told
from benchmark.tuning.recipes import (
    RECIPE_FILE,
    FreshScores,
    best_of,
    decided,
    is_its_own_best,
    recipe_of,
)
from benchmark.tuning.study import Study

MOST_REASONS: Final = 3


@dataclass(frozen=True)
class Outcome:
    """A study as it stands."""

    trials: tuple[Told, ...]
    best: Told | None
    files: tuple[Path, ...]
    recipe: dict[str, Any] | None
    """Of the best trial; None where none is complete, or none beat the definition itself."""
    remarks: tuple[str, ...]
    fresh: tuple[FreshScores, ...] = ()
    """Of the best trial and the runner-up, which decided between them; none of a grid."""

    @property
    def counts(self) -> dict[str, int]:
        """How many trials ended how."""
        states = ("complete", "pruned", "failed")
        return {state: sum(trial.state == state for trial in self.trials) for state in states}


def write_outcome(
    study: Study, base: Experiment, ledger: Ledger, fresh: Sequence[FreshScores] = ()
) -> Outcome:
    """Write all that a study shows; what cannot be drawn of it yet is remarked."""
    from benchmark.tuning.pages import write_pages

    trials, folder = tuple(ledger.trials()), study.own_folder
    best = decided(fresh) or best_of(trials)
    files, remarks = write_pages(study, ledger, trials)
    recipe = None
    if best is not None and is_its_own_best(study, best):
        remarks.append("no trial beat the definition itself: its own recipe is the best tried")
    elif best is not None:
        try:
            recipe = recipe_of(study, base, ledger, best, fresh)
            write_json(folder / RECIPE_FILE, recipe)
            files.append(folder / RECIPE_FILE)
        except BenchmarkError as error:
            remarks.append(f"the best recipe cannot be registered: {error}")
    return Outcome(trials, best, tuple(files), recipe, tuple(dict.fromkeys(remarks)), tuple(fresh))


def reasons(trials: Sequence[Told]) -> list[str]:
    """Say why trials failed, the most frequent reasons first."""
    counts = Counter(trial.reason for trial in trials if trial.state == "failed")
    return [f"{n} × {reason}" for reason, n in counts.most_common(MOST_REASONS)]
