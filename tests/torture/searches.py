"""Recipes that a search wrote, and the journal it is kept in, damaged at random."""

import importlib
import importlib.util
import random
import warnings
from typing import Any

from benchmark import registry
from benchmark.errors import BenchmarkError
from benchmark.files import write_json
from tests.torture.archives import damaged
from tests.torture.command import EXPERIMENTS
from tests.torture.rows import Room, Row


def damaged_recipes(room: Room) -> Row:
    """Damage a recipe.json: it is refused with a sentence, or is still a valid definition."""
    row = Row("damaged recipe.json")
    if importlib.util.find_spec("benchmark.registry") is None:
        row.skipped = "no tuning here"
        return row
    tuned = importlib.import_module("benchmark.registry")
    path, rng = room.folder / "recipe.json", random.Random(room.seed)
    definition = registry.experiment(EXPERIMENTS[0]).as_dict()
    write_json(path, {"schema": tuned.SCHEMA, "base": EXPERIMENTS[0], "tuned": definition})
    sound = path.read_bytes()
    for number in range(room.times(500, 40)):
        path.write_bytes(damaged(sound, rng))
        row.expect(*_refused_or_read(lambda: tuned.tuned_module(path), f"recipe {number}"))
    return row


def damaged_journal(room: Room) -> Row:
    """Damage a study's journal: it is refused with a sentence, or read as far as it is whole."""
    row = Row("damaged journal of a search")
    if importlib.util.find_spec("benchmark.tuning") is None:
        row.skipped = "no tuning here"
        return row
    storage = importlib.import_module("benchmark.tuning.study")
    optuna = importlib.import_module("optuna")
    path, rng = room.folder / "journal.log", random.Random(room.seed)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(
            study_name="s", storage=storage.open_storage(f"journal:{path}"), direction="maximize"
        )
        study.optimize(lambda trial: trial.suggest_float("rate", 0, 1), n_trials=8)
        sound = path.read_bytes()
        for number in range(room.times(200, 20)):
            path.write_bytes(damaged(sound, rng))
            row.expect(*_refused_or_read(lambda: _trials(storage, optuna, path), f"{number}"))
    return row


def _trials(storage: Any, optuna: Any, path: object) -> int:
    address = f"journal:{path}"
    kept = storage.open_storage(address)
    with storage.storage_errors(address):
        return len(optuna.load_study(study_name="s", storage=kept).trials)


def _refused_or_read(read: Any, what: str) -> tuple[bool, str]:
    try:
        read()
    except BenchmarkError:
        return True, ""
    except Exception as error:  # noqa: BLE001
        return False, f"{what}: {type(error).__name__}: {error}"
    return True, ""
