"""Losses that are no numbers, memory that does not suffice, and the same answer twice."""

import json

import torch

from benchmark.record import all_records
from benchmark.runs.checkpoints import CHECKPOINT_FILE, load_checkpoint
from tests.torture.command import (
    ENTRY,
    EXPERIMENTS,
    environment,
    outcomes,
    run,
    run_arguments,
)
from tests.torture.rows import Room, Row

RUNS_FAILED = 3
POISONED = """
import torch
from benchmark.training.losses import TaskLoss
count = [0]
sound = TaskLoss.__call__
def poisoned(self, logits, rows):
    count[0] += 1
    answer = sound(self, logits, rows)
    return answer._replace(loss=answer.loss * float('nan')) if count[0] == {at} else answer
TaskLoss.__call__ = poisoned
"""
"""What a bad driver or memory cell does: one loss of many is no number."""
HUNGRY = """
import os, resource, torch, benchmark.runs.run, benchmark.cli.run
sound = benchmark.runs.run.fit
def fit(*arguments, **named):
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(open('/proc/self/statm').read().split()[0])
    most = pages * os.sysconf('SC_PAGE_SIZE') + {mib} * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        return (yield from sound(*arguments, **named))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
benchmark.runs.run.fit = fit
"""
"""Give each training little more memory than the process has when it begins."""
LIKE_A_DEVICE = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "1048576"}
"""Have the allocator give back what is freed and reserve nothing for threads to come: else the
limit is on what it keeps, and no batch is small enough."""


DIVIDED = (
    ("mtl-squeezenet1_1-imagenet-full-short", 200),
    ("mtl-cnn-none-full-short", 60),
)
"""A network that reads each face by itself, and one with batch normalisation; MiB it may take."""
LARGE = {
    "backbone.input_px=32": "backbone.input_px=96",
    "recipe.batch_size=32": "recipe.batch_size=96",
}
"""What makes a batch take some hundred MiB."""


def bad_loss(room: Room) -> Row:
    """One loss is NaN: that run stops within the epoch and keeps its last good state."""
    row = Row("a loss that is NaN")
    for at in (3, 9, 15, 22)[: room.times(4, 1)]:
        runs_dir = room.folder / str(at)
        arguments = run_arguments(room, runs_dir, EXPERIMENTS[:2], epochs=4, tracking="files")
        end = run(arguments, entry=POISONED.format(at=at) + ENTRY)
        row.expect(end.code == RUNS_FAILED and end.is_clear, end.tail())
        states = {record.experiment_name: record for record in all_records(runs_dir)}
        failed, other = states[EXPERIMENTS[0]], states[EXPERIMENTS[1]]
        row.expect(other.state == "done", f"the other run is {other.state}")
        why = json.loads((failed.folder / "failed.json").read_text())["why"]
        row.expect("epoch" in why and "nan" in why, f"it says {why}")
        kept = load_checkpoint(failed.folder / CHECKPOINT_FILE)
        finite = kept is None or all(
            bool(torch.isfinite(value).all()) for value in kept["network"].values()
        )
        row.expect(finite, "the checkpoint that was kept has weights that are no numbers")
        again = run(arguments)
        row.expect(again.code == 0, f"run again: {again.tail()}")
    return row


def no_memory(room: Room) -> Row:
    """Limit the memory: a batch is divided, or its run fails clearly; the next run goes on."""
    row = Row("out of memory on the device")
    more = ["--no-cache", "--set", "backbone.weights=none"]
    for name, mib in DIVIDED[: room.times(2, 1)]:
        runs_dir = room.folder / name
        arguments = run_arguments(
            room, runs_dir, (name, EXPERIMENTS[1]), epochs=1, tracking="files"
        )
        arguments = [LARGE.get(argument, argument) for argument in arguments]
        end = run([*arguments, *more], entry=HUNGRY.format(mib=mib) + ENTRY,
                  env=environment(**LIKE_A_DEVICE))  # fmt: skip
        row.expect(end.code in (0, RUNS_FAILED) and end.is_clear, end.tail())
        row.expect("memory" in end.err, f"it had enough, or said nothing: {end.tail()}")
        for record in all_records(runs_dir):
            pieces = record.about["speed"].get("steps", {}).get("pieces", 1)
            clear = record.state == "failed" and "memory" in str(record.failed["why"])
            row.expect(clear or record.state == "done", f"{record.experiment_name}: {record.state}")
            row.note += f"{record.experiment_name}: {record.state}"
            row.note += f" in {pieces} pieces; " if pieces > 1 else "; "
        again = run([*arguments, *more])
        row.expect(again.code == 0, f"with memory again: {again.tail()}")
    return row


def same_twice(room: Room) -> Row:
    """Run a suite in two processes, in deterministic mode: equal to the last bit."""
    row = Row("the same answer in two processes")
    found = []
    for number in range(2):
        runs_dir = room.folder / str(number)
        end = run(run_arguments(room, runs_dir, EXPERIMENTS, tracking="files"))
        row.expect(end.code == 0, end.tail())
        found.append(outcomes(runs_dir))
    for identity, first in found[0].items():
        row.expect(first == found[1].get(identity), f"run {identity[:12]} differs")
    where = ["--runs-dir", str(room.folder / "0"), "--data-dir", str(room.data_dir)]
    held = run(["verify", *where])
    row.expect(held.code == 0 and held.out.count("bit for bit") == 3, held.tail())
    return row
