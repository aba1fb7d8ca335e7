"""Where Optuna keeps studies: opened so that processes may share it, its errors as sentences.

SQLite by default, in a file of its own. Both it and Optuna's journal file were killed and opened
again many times: docs/TUNING.md says what became of them.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import optuna
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from benchmark.errors import RunError

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
    """Turn whatever a broken storage raises into a RunError that says what to do."""
    try:
        yield
    except (NoSuchModuleError, ArgumentError, ImportError) as error:
        raise RunError(
            f"the storage {shown(address)} cannot be reached: {error}",
            allowed="sqlite:///FILE, journal:FILE, or a database whose driver is installed",
        ) from error
    # AttributeError and KeyError: what Optuna's journal raises after a line that was torn.
    except (
        SQLAlchemyError, optuna.exceptions.StorageInternalError, json.JSONDecodeError, OSError,
        ValueError, KeyError, RuntimeError, AttributeError,
    ) as error:  # fmt: skip
        raise RunError(
            f"the study's storage cannot be used: {_reason(error)}",
            source=shown(address),
            fix=_remedy(str(error.__cause__ or error)),
        ) from error


def _reason(error: Exception) -> str:
    """Give the innermost error's first line, or what it means where only Optuna knows that."""
    if isinstance(error, (KeyError, AttributeError, json.JSONDecodeError)):
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
