"""Where Optuna keeps studies: opened so that processes may share it, its errors as sentences.

SQLite by default, in a file of its own. Both it and Optuna's journal file were killed and opened
again many times: docs/TUNING.md says what became of them.
"""

import contextlib
import json
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from benchmark.errors import BenchmarkError, RunError

FILE: Final = "optuna.db"
PATIENCE_SECONDS: Final = 60
"""How long one process waits for another's write; a write takes milliseconds."""
JOURNAL_PREFIX: Final = "journal:"


def default_storage(folder: Path) -> str:
    """Give the address of the studies' own SQLite file."""
    return f"sqlite:///{(folder / FILE).resolve()}"


def shown(address: str) -> str:
    """Give an address without a password in it."""
    return address.split("@")[-1]


def open_storage(address: str) -> optuna.storages.BaseStorage:
    """Open a storage: `sqlite:///FILE`, another database's URL, or `journal:FILE`.

    Raises RunError where it is locked, unreadable, or of another version of Optuna.
    """
    with storage_errors(address):
        if address.startswith(JOURNAL_PREFIX):
            path = Path(address.removeprefix(JOURNAL_PREFIX))
            path.parent.mkdir(parents=True, exist_ok=True)
            backend = JournalFileBackend(str(path))
            return optuna.storages.JournalStorage(backend)
        if "://" not in address:
            raise RunError(
                f"the storage {address!r} is no address",
                allowed="sqlite:///FILE, the URL of another database, or journal:FILE",
            )
        options = {}
        if address.startswith("sqlite:///"):
            Path(address.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
            options = {"connect_args": {"timeout": PATIENCE_SECONDS}}
        return optuna.storages.RDBStorage(address, engine_kwargs=options)


@contextlib.contextmanager
def storage_errors(address: str) -> Iterator[None]:
    """Turn what a broken storage raises into a RunError that says what to do.

    An error that was not raised within Optuna's storages is a mistake in a program, not damage in a
    file, and comes through as it is.
    """
    try:
        yield
    except (NoSuchModuleError, ArgumentError, ImportError) as error:
        raise RunError(
            f"the storage {shown(address)} cannot be reached: {error}",
            allowed="sqlite:///FILE, journal:FILE, or a database whose driver is installed",
        ) from error
    except Exception as error:
        known = isinstance(error, (SQLAlchemyError, StorageInternalError, OSError))
        if isinstance(error, BenchmarkError) or not (known or _is_of_a_storage(error)):
            raise
        raise RunError(
            f"the study's storage cannot be used: {_reason(error)}",
            source=shown(address),
            fix=_remedy(str(error.__cause__ or error)),
        ) from error


def _is_of_a_storage(error: Exception) -> bool:
    """Tell whether an error came up while Optuna read or wrote: a torn line raises many kinds."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(
        frame.f_globals.get("__name__", "").startswith("optuna.storages") for frame, _ in frames
    )


def _reason(error: Exception) -> str:
    """Give the innermost error's first line, or what it means where only Optuna knows that."""
    if isinstance(error, (KeyError, AttributeError, TypeError, json.JSONDecodeError)):
        return "a record in it is damaged"
    inner = error.__cause__ or error
    inner = getattr(inner, "orig", None) or inner
    return (str(inner).strip().splitlines() or [repr(inner)])[0]


def _remedy(text: str) -> str:
    if "locked" in text:
        return "Another program holds it: try again once that is done"
    if "no longer compatible" in text or "version" in text or "schema" in text:
        return (
            "It is of another version of Optuna: `optuna storage upgrade --storage URL` brings it "
            "up to date, or name another with --storage"
        )
    if "readonly" in text or "Permission" in text or "unable to open" in text:
        return "Make it writable, or name another with --storage"
    return "Move that file away and begin anew, or name another with --storage"
