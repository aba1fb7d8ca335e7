"""The seal of a finished run: done.json lists the digests of its files, and carries its own.

What is computed from the predictions (metrics, tables, pictures) may be computed anew, and is not
in that list; benchmark.verification computes it again. metrics.json carries a seal of its own.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmark.files import canonical_json, sha256_of
from benchmark.results.record import RunRecord

SEALED: Final = (
    "experiment.json",
    "environment.txt",
    "history.csv",
    "predictions.csv",
    "predictions_outside.csv",
    "exposure.csv",
    "model.safetensors",
)
"""What training left, of which nothing can be computed again without training again."""
DIGESTS: Final = "sha256"
SEAL: Final = "seal"
SCORED: Final = {
    "schema", "scoring_version", "predictions_sha256", "metrics", "subgroups", "answers"
}  # fmt: skip
"""What metrics.json may hold without a seal: runs scored before there was one hold no more."""


def sealed(folder: Path, done: Mapping[str, Any]) -> dict[str, Any]:
    """Give what done.json says, with the digests of the run's files and one of it all."""
    digests = {name: sha256_of(folder / name) for name in SEALED if (folder / name).is_file()}
    return with_seal(dict(done) | {DIGESTS: digests})


def with_seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Add the digest of plain values to them."""
    return dict(content) | {SEAL: _digest(content)}


def scores_are_sealed(record: RunRecord) -> bool | None:
    """Tell whether metrics.json is as it was written, to the last digit; None: nothing tells.

    Its costs, and digits beyond what another library computes alike, are covered by this alone.
    """
    content = json.loads((record.folder / "metrics.json").read_text(encoding="utf-8"))
    seal = content.pop(SEAL, None)
    if seal is None:
        # Of a seal whose name is damaged its value is left.
        return None if content.keys() <= SCORED else False
    return bool(seal == _digest(content))


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def broken_seals(record: RunRecord) -> list[str] | None:
    """Name the files that are not as they were when the run ended; None where nothing tells.

    Weights that were removed on purpose (`facebench clean`) are no change.
    """
    done = dict(record.done)
    seal = done.pop(SEAL, None)
    if seal is None:
        # Digests have always been written with a seal: the one without the other is damage.
        return ["done.json"] if DIGESTS in done else None
    changed = [] if seal == _digest(done) else ["done.json"]
    for name, digest in dict(done.get(DIGESTS, {})).items():
        path = record.folder / Path(str(name)).name
        if not path.is_file():
            changed += [] if path.suffix == ".safetensors" else [f"{name} (gone)"]
        elif sha256_of(path) != digest:
            changed.append(str(name))
    return changed
