"""Files of finished and of half-done runs, damaged at random: found, named, refused or rebuilt."""

import json
import random
import shutil
from pathlib import Path

from benchmark.comparison.status import standing
from benchmark.data.sample import choose_dataset
from benchmark.errors import BenchmarkError
from benchmark.record import RunRecord, all_records
from benchmark.runs.verify import verify
from tests.torture.archives import damaged
from tests.torture.command import (
    EXPERIMENTS,
    kill,
    outcomes,
    run,
    run_arguments,
    start,
    wait_for,
)
from tests.torture.rows import Room, Row

SEALED = ("experiment.json", "predictions.csv", "history.csv", "model.safetensors", "done.json")
RECOMPUTED = ("metrics.json",)


def damaged_records(room: Room) -> Row:
    """Damage one file of a finished run at a time; `verify` must find and name it."""
    row = Row("damaged experiment.json, predictions.csv, …")
    runs_dir = room.folder / "runs"
    whole = run(run_arguments(room, runs_dir, EXPERIMENTS[:1], epochs=2, tracking="files"))
    row.expect(whole.code == 0, whole.tail())
    record = next(all_records(runs_dir))
    faces = choose_dataset(room.data_dir)
    rng = random.Random(room.seed)
    for number in range(room.times(300, 24)):
        name = (*SEALED, *RECOMPUTED)[number % 6]
        content = (record.folder / name).read_bytes()
        changed = damaged(content, rng)
        (record.folder / name).write_bytes(changed)
        row.expect(*_found(RunRecord(record.folder), name, faces, content, changed))
        (record.folder / name).write_bytes(content)
    holds = verify(RunRecord(record.folder), [faces])
    row.expect(all(item.verdict == "holds" for item in holds), f"put back: {holds}")
    return row


def _found(
    record: RunRecord, name: str, faces: object, before: bytes, after: bytes
) -> tuple[bool, str]:
    """Tell whether `verify` finds a damaged file, and nothing else falls over it."""
    try:
        standing(record)
        found = verify(record, [faces])  # type: ignore[list-item]
    except BenchmarkError:
        return True, ""
    except Exception as error:  # noqa: BLE001
        return False, f"{name}: {type(error).__name__}: {error}"
    if any(item.verdict == "differs" for item in found):
        return True, ""
    # What is sealed is the content: a changed blank, or a line that is there twice, is no damage.
    harmless = name in (*RECOMPUTED, "done.json") and _same_content(after, before)
    return harmless, f"{name} with {_difference(before, after)} was not noticed"


def _same_content(now: bytes, before: bytes) -> bool:
    """Compare all but the seal of metrics.json, which has others to tell what is in it."""
    contents = [json.loads(content) for content in (now, before)]
    for content in contents:
        if "metrics" in content:
            content.pop("seal", None)
    return bool(contents[0] == contents[1])


def _difference(before: bytes, after: bytes) -> str:
    at = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), -1)
    return f"{before[at : at + 12]!r} → {after[at : at + 12]!r} at byte {at}"


def damaged_tables(room: Room) -> Row:
    """Damage a file of one run of two; the leaderboard says which it left out."""
    row = Row("a leaderboard beside a damaged run")
    runs_dir = room.folder / "runs"
    both = run_arguments(room, runs_dir, EXPERIMENTS[:2], epochs=1, tracking="files")
    whole = run(both)
    row.expect(whole.code == 0, whole.tail())
    rng = random.Random(room.seed)
    records = list(all_records(runs_dir))
    for _ in range(room.times(6, 1)):
        path = rng.choice(records).folder / "experiment.json"
        content = path.read_bytes()
        path.write_bytes(content[: rng.randrange(1, len(content))])
        end = run(["leaderboard", "--ad-hoc", "--runs-dir", str(runs_dir),
                   "--data-dir", str(room.data_dir)])  # fmt: skip
        row.expect(end.is_clear and "experiment.json" in end.err + end.out, end.tail())
        path.write_bytes(content)
    return row


def damaged_checkpoint(room: Room) -> Row:
    """Stop a run, damage its checkpoint; it must end as an undisturbed one all the same."""
    row = Row("damaged checkpoints of stopped runs")
    names = EXPERIMENTS[:1]
    reference = run_arguments(room, room.folder / "whole", names, epochs=4, tracking="files")
    end = run(reference)
    row.expect(end.code == 0, end.tail())
    wanted = outcomes(room.folder / "whole")
    stopped = room.folder / "stopped"
    process = start(run_arguments(room, stopped, names, epochs=4, tracking="files"))
    row.expect(wait_for(lambda: bool(list(stopped.glob("work/*/checkpoint.pt"))), process), "none")
    kill(process)
    rng = random.Random(room.seed)
    for number in range(room.times(8, 1)):
        here = Path(shutil.copytree(stopped, room.folder / str(number)))
        checkpoint = next(here.glob("work/*/checkpoint.pt"))
        checkpoint.write_bytes(damaged(checkpoint.read_bytes(), rng))
        end = run(run_arguments(room, here, names, epochs=4, tracking="files"))
        row.expect(end.code == 0 and outcomes(here) == wanted, end.tail())
    return row


def damaged_cache(room: Room) -> Row:
    """Damage the cached features of a frozen network; they are built again, and equal."""
    row = Row("damaged files of the prefix cache")
    frozen = EXPERIMENTS[2:]
    wanted = None
    rng = random.Random(room.seed)
    cache = room.folder / "cache"
    for number in range(room.times(8, 1) + 1):
        runs_dir = room.folder / str(number)
        arguments = run_arguments(room, runs_dir, frozen, epochs=2, tracking="files")
        arguments[arguments.index("--cache-dir") + 1] = str(cache)
        for path in cache.glob("*.prefix"):
            path.write_bytes(damaged(path.read_bytes(), rng))
        end = run(arguments)
        found = outcomes(runs_dir)
        wanted = wanted or found
        row.expect(end.code == 0 and found == wanted, end.tail())
    return row


def damaged_store(room: Room) -> Row:
    """Damage MLflow's database; runs go on, a sentence says so, and import mends it all."""
    row = Row("damaged MLflow database")
    runs_dir = room.folder / "runs"
    arguments = run_arguments(room, runs_dir, EXPERIMENTS[:1], epochs=1)
    row.expect(run(arguments).code == 0, "the first run")
    database = runs_dir / "mlflow.db"
    database.write_bytes(b"no database" + database.read_bytes()[11:])
    second = run([*arguments, "--seeds", "1"])
    row.expect(second.code == 0 and second.is_clear, second.tail())
    row.expect("MLflow store cannot be used" in second.err, f"not said: {second.tail()}")
    database.rename(runs_dir / "broken.db")
    mended = run(["runs", "import", "--runs-dir", str(runs_dir)])
    row.expect(mended.code == 0 and "2 runs" in mended.out, mended.tail())
    return row
