"""A storage that cannot be used is said in a sentence, with what to do."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from benchmark.data.dataset import FaceSet
from benchmark.errors import RunError
from benchmark.tuning import study as storage
from tests.tuning.planted import a_ledger, a_study

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def trouble(tmp_path: Path, faces: FaceSet, address: str) -> RunError:
    with pytest.raises(RunError) as raised:
        a_ledger(a_study(tmp_path, faces), address)
    return raised.value


def test_a_file_that_is_no_database(tmp_path: Path, drawn_faces: FaceSet) -> None:
    (tmp_path / "o.db").write_text("no database, but text long enough to be taken for a page" * 9)
    error = trouble(tmp_path, drawn_faces, f"sqlite:///{tmp_path}/o.db")
    assert "file is not a database" in error.found
    assert error.fix.startswith("Move that file away")


def test_a_journal_that_is_no_journal(tmp_path: Path, drawn_faces: FaceSet) -> None:
    (tmp_path / "log").write_text("not json\nnor this\n")
    error = trouble(tmp_path, drawn_faces, f"journal:{tmp_path}/log")
    assert "the study's storage cannot be used" in error.found


def test_a_journal_with_a_line_that_was_torn_is_lost_and_said_to_be(
    tmp_path: Path, drawn_faces: FaceSet
) -> None:
    address = f"journal:{tmp_path}/log"
    a_ledger(a_study(tmp_path, drawn_faces), address)
    with (tmp_path / "log").open("ab") as log:
        log.write(b'{"op_code":5,"worker_id":"x')

    def go_on() -> None:
        for _ in range(2):
            a_ledger(a_study(tmp_path, drawn_faces), address).take(9)

    with pytest.raises(RunError) as raised:
        go_on()
    assert "a record in it is damaged" in raised.value.found
    assert raised.value.fix.startswith("Move that file away")


def test_a_database_of_another_version_of_optuna(tmp_path: Path, drawn_faces: FaceSet) -> None:
    address = f"sqlite:///{tmp_path}/o.db"
    a_ledger(a_study(tmp_path, drawn_faces), address)
    with contextlib.closing(sqlite3.connect(tmp_path / "o.db")) as base, base:
        base.execute("UPDATE version_info SET schema_version = 3, library_version = '0.1.0'")
        base.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    error = trouble(tmp_path, drawn_faces, address)
    assert "optuna storage upgrade" in error.fix


def test_a_database_that_another_program_holds(
    tmp_path: Path, drawn_faces: FaceSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"sqlite:///{tmp_path}/o.db"
    a_ledger(a_study(tmp_path, drawn_faces), address)
    monkeypatch.setattr(storage, "PATIENCE_SECONDS", 0.1)
    with contextlib.closing(sqlite3.connect(tmp_path / "o.db")) as base:
        base.execute("BEGIN EXCLUSIVE")
        error = trouble(tmp_path / "other", drawn_faces, address)
    assert error.found.endswith("database is locked.") or "locked" in error.found
    assert error.fix.startswith("Another program holds it")


@pytest.mark.parametrize("address", ["mlruns/o.db", "nosuch://host/db"])
def test_an_address_that_means_nothing(tmp_path: Path, drawn_faces: FaceSet, address: str) -> None:
    assert "sqlite:///FILE" in trouble(tmp_path, drawn_faces, address).allowed


def test_a_mistake_in_a_program_is_not_called_damage() -> None:
    for mistake in (KeyError("typo"), AttributeError("typo"), ValueError("typo")):
        with pytest.raises(type(mistake), match="typo"), storage.storage_errors("sqlite:///o.db"):
            raise mistake


def test_a_password_is_not_shown() -> None:
    assert storage.shown("postgresql://me:secret@host/db") == "host/db"
