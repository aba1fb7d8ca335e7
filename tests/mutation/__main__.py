"""Mutation testing: how many small faults do the tests notice? Called by `make mutation`.

    python -m tests.mutation --mutants 320 --seed 7 --jobs 2 --json mutation.json
    python -m tests.mutation --mutants 320 --seed 7 --before mutation.json

The second tries only what no test noticed the first time, once there are further tests. Exits 1
where fewer than 85 % are noticed, or where a survivor is not explained in survivors.json.
"""

import argparse
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.mutation.operators import Mutant, mutants_of
from tests.mutation.trial import ROOT, ByDuration, Trial, baseline, load_heavy_packages, start

TESTS = {
    "benchmark/data/splits.py": ("tests/faces/test_splits.py",),
    "benchmark/evaluation/metrics.py": ("tests/evaluation/test_metrics.py",),
    "benchmark/evaluation/subgroups.py": ("tests/evaluation/test_subgroups.py",),
    "benchmark/comparison/statistics.py": ("tests/comparison/test_statistics.py",),
    "benchmark/comparison/pairs.py": ("tests/comparison/test_pairs.py",),
}
"""The files that are broken, and the tests that are to notice."""
ENOUGH = 0.85
SURVIVORS = Path(__file__).with_name("survivors.json")
"""Of each survivor, by its place and what changes there, why no test notices it."""
Outcome = tuple[Mutant, str]
BEFORE = "noticed before"


def chosen(n_mutants: int, seed: int) -> list[Mutant]:
    """Draw from all faults of all files, each as likely as any other."""
    everything = [
        mutant
        for file in TESTS
        for mutant in mutants_of(file, (ROOT / file).read_text(encoding="utf-8"))
    ]
    drawn = random.Random(seed).sample(everything, min(n_mutants, len(everything)))
    return sorted(drawn, key=lambda item: (item.file, item.line, item.column))


def noticed_before(path: Path | None) -> frozenset[str]:
    """Read which faults, of these very modules, the tests of an earlier run noticed."""
    lines = json.loads(path.read_text(encoding="utf-8")) if path else []
    return frozenset(line["sha256"] for line in lines if line["outcome"] != "survived")


def outcomes(mutants: Sequence[Mutant], jobs: int) -> Iterator[Outcome]:
    """Try each mutant with the tests of its file, a few at a time."""
    sound: dict[str, tuple[ByDuration, float]] = {}
    under_way: list[tuple[Mutant, Trial]] = []
    for mutant in mutants:
        if mutant.file not in sound:
            source = (ROOT / mutant.file).read_text(encoding="utf-8")
            sound[mutant.file] = baseline(mutant.file, source, TESTS[mutant.file])
        order, cpu = sound[mutant.file]
        while len(under_way) >= jobs:
            yield from _ended(under_way)
        limit = int(4 * cpu) + 30
        trial = start(mutant.file, mutant.source, TESTS[mutant.file], order, limit)
        under_way.append((mutant, trial))
    while under_way:
        yield from _ended(under_way)


def _ended(under_way: list[tuple[Mutant, Trial]]) -> Iterator[Outcome]:
    for entry in list(under_way):
        outcome = entry[1].finished(wait=False)
        if outcome is not None:
            under_way.remove(entry)
            yield entry[0], outcome
    time.sleep(0.05)


def report(found: Sequence[Outcome], seconds: float, arguments: argparse.Namespace) -> bool:
    """Print the table and the survivors; tell whether it is good enough."""
    why = json.loads(SURVIVORS.read_text(encoding="utf-8")) if SURVIVORS.is_file() else {}
    tried = Counter(mutant.file for mutant, _ in found)
    alive = Counter(mutant.file for mutant, outcome in found if outcome == "survived")
    print(f"{'file':<36}{'tried':>7}{'noticed':>9}{'survived':>10}{'noticed':>9}")
    for file in TESTS:
        _line(file, tried[file], alive[file])
    _line("all", tried.total(), alive.total())
    again = sum(outcome != BEFORE for _, outcome in found)
    print(f"seed {arguments.seed}, {again} tried in {seconds:.0f} s, {arguments.jobs} at a time\n")
    unexplained = 0
    for mutant, outcome in found:
        if outcome == "survived":
            reason = why.get(mutant.key, "")
            unexplained += not reason
            print(f"{mutant.file}:{mutant.line} {mutant.operator}\n  - {mutant.before}")
            print(f"  + {mutant.after}\n  {reason or 'NOT EXPLAINED'}")
    print(f"{unexplained} survivors are not explained in {SURVIVORS.name}.")
    return 1 - alive.total() / max(1, tried.total()) >= ENOUGH and unexplained == 0


def _line(name: str, tried: int, alive: int) -> None:
    share = f"{1 - alive / tried:.1%}" if tried else "-"
    print(f"{name:<36}{tried:>7}{tried - alive:>9}{alive:>10}{share:>9}")


def main() -> None:
    """Read the options, try the mutants, print and keep what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--mutants", type=int, default=320)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="files whose path holds this")
    parser.add_argument("--before", type=Path, help="the JSON of an earlier run")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    started = time.monotonic()
    mutants = [item for item in chosen(arguments.mutants, arguments.seed)
               if arguments.only in item.file]  # fmt: skip
    load_heavy_packages()
    settled = noticed_before(arguments.before)
    found: list[Outcome] = [(item, BEFORE) for item in mutants if item.sha256 in settled]
    to_try = [item for item in mutants if item.sha256 not in settled]
    for mutant, outcome in outcomes(to_try, arguments.jobs):
        found.append((mutant, outcome))
        print(f"{len(found)}/{len(mutants)} {outcome}: {mutant.key}", file=sys.stderr, flush=True)
    found.sort(key=lambda item: (item[0].file, item[0].line, item[0].column))
    good = report(found, time.monotonic() - started, arguments)
    if arguments.json:
        lines = [
            {"mutant": item.key, "line": item.line, "sha256": item.sha256, "outcome": outcome}
            for item, outcome in found
        ]
        arguments.json.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
