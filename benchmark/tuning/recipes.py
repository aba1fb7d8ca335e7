"""The best point of a study as a definition, and where it is registered under a name of its own."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmark.experiment.definition import Experiment
from benchmark.experiment.search_points import experiment_at, settings_at
from benchmark.files import write_json
from benchmark.identity import steering_content
from benchmark.registry import SCHEMA, named, tuned_folder
from benchmark.tuning.study import OBJECTIVE, Study
from benchmark.tuning.trials import Ledger, Told

RECIPE_FILE: Final = "recipe.json"
SAME_SCORE: Final = 1e-9
"""Of one face of a million is 1e-6: below this, two scores differ by rounding alone."""


@dataclass(frozen=True)
class FreshScores:
    """A trial's recipe trained anew: what it scores with seeds that it was not chosen by."""

    trial: Told
    by_seed: Mapping[int, float]
    runs: tuple[str, ...] = ()
    """Their identities, where trainings are runs."""

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.by_seed.values())

    def as_dict(self) -> dict[str, Any]:
        """Give it as plain values, for JSON."""
        return {"trial": self.trial.number, "by_seed": dict(self.by_seed), "mean": self.mean}


def best_of(trials: Sequence[Told]) -> Told | None:
    """Give the complete trial of the highest score; the earliest of those that tie."""
    complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    return _earliest_best([(trial.value or 0.0, trial) for trial in complete])


def _earliest_best(scored: Sequence[tuple[float, Told]]) -> Told | None:
    """Choose by score; scores of equal accuracies differ by rounding, and are a tie."""
    highest = max((score for score, _ in scored), default=0.0)
    tied = [trial for score, trial in scored if score >= highest - SAME_SCORE]
    return min(tied, key=lambda trial: trial.number, default=None)


def finalists(study: Study, trials: Sequence[Told]) -> tuple[Told, ...]:
    """Give the best trial and the runner-up: the best of those with another recipe."""
    best = best_of(trials)
    if best is None:
        return ()
    recipe = _recipe_at(study, best)
    complete = [trial for trial in trials if trial.state == "complete"]
    second = best_of([trial for trial in complete if _recipe_at(study, trial) != recipe])
    return (best,) if second is None else (best, second)


def decided(fresh: Sequence[FreshScores]) -> Told | None:
    """Choose between finalists by their mean over the fresh seeds alone; the earlier on a tie."""
    return _earliest_best([(item.mean, item.trial) for item in fresh])


def is_its_own_best(study: Study, best: Told) -> bool:
    """Tell whether the search found nothing better than where it began."""
    return _recipe_at(study, best) == steering_content(study.experiment.as_dict())


def _recipe_at(study: Study, trial: Told) -> dict[str, Any]:
    return steering_content(experiment_at(study.experiment, trial.point).as_dict())


def recipe_of(
    study: Study, base: Experiment, ledger: Ledger, best: Told, fresh: Sequence[FreshScores] = ()
) -> dict[str, Any]:
    """Say all of a study's best recipe: the definition, and how it was found.

    base: the registered experiment that the study's is, but for the changes of `--set`.
    """
    tuned = named(base, experiment_at(study.experiment, best.point), "tuned")
    untuned = named(base, study.experiment, "untuned") if study.experiment.ad_hoc else None
    trials = ledger.trials()
    settings = settings_at(study.experiment, best.point)
    return {
        "schema": SCHEMA,
        "base": base.name,
        "tuned": tuned.as_dict(),
        "untuned": untuned.as_dict() if untuned else None,
        "objective": OBJECTIVE,
        "value": best.value,
        "trial": best.number,
        "fresh_seeds": [item.as_dict() for item in fresh],
        "run": best.run,
        "point": dict(best.point),
        "settings": {path: _plain(value) for path, value in settings.items()},
        "study": {"identity": study.identity, "name": study.name, **study.about},
        "trials": {
            state: sum(trial.state == state for trial in trials)
            for state in ("complete", "pruned", "failed")
        },
        "sessions": ledger.sessions,
    }


def _plain(value: Any) -> Any:
    return vars(value) if hasattr(value, "__dataclass_fields__") else value


def register(recipe: dict[str, Any], runs_dir: Path) -> Path:
    """Make a recipe an experiment by name; the one tuned before from the same base goes."""
    path = tuned_folder(runs_dir) / f"{recipe['base']}.json"
    write_json(path, recipe)
    return path
