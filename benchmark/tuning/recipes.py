"""The best point of a study as a definition, and where it is registered under a name of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmark.experiment import Experiment
from benchmark.experiment_search import experiment_at, settings_at
from benchmark.files import write_json
from benchmark.identity import steering_content
from benchmark.tuned import SCHEMA, named, tuned_folder
from benchmark.tuning.ledger import Ledger, Told
from benchmark.tuning.study import OBJECTIVE, Study

RECIPE_FILE: Final = "recipe.json"


def best_of(trials: Sequence[Told]) -> Told | None:
    """Give the complete trial of the highest score; of the first such on a tie."""
    complete = [trial for trial in trials if trial.state == "complete"]
    return max(complete, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)


def is_its_own_best(study: Study, best: Told) -> bool:
    """Tell whether the search found nothing better than where it began."""
    found = experiment_at(study.experiment, best.point)
    return steering_content(found.as_dict()) == steering_content(study.experiment.as_dict())


def recipe_of(study: Study, base: Experiment, ledger: Ledger, best: Told) -> dict[str, Any]:
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
