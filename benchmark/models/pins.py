"""Pins: the sums of files whose publishers say none, or not the whole of one, as first met.

A file that later comes with another sum is refused. They are kept in `pins.json` beside the
converted weights, by the published file's name.
"""

from __future__ import annotations

import datetime
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmark.errors import WeightsError
from benchmark.files import write_json
from benchmark.models.sources import PublishedFile

SCHEMA: Final = 1
FILE_NAME: Final = "pins.json"


@dataclass(frozen=True)
class Pin:
    """The sum that a published file had when it was first met."""

    sha256: str
    when: str
    """ISO 8601, UTC."""


def read_pins(weights_dir: Path) -> dict[str, Pin]:
    """Read the pins by file name; none where there is no `pins.json`.

    Raise WeightsError for one that cannot be read: going on would trust anything anew.
    """
    path = weights_dir / FILE_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            message = f"its schema is {content['schema']!r}, not {SCHEMA}"
            raise ValueError(message)
        return {name: Pin(str(pin["sha256"]), str(pin["when"])) for name, pin in
                content["pins"].items()}  # fmt: skip
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{FILE_NAME} cannot be read ({error})",
            allowed="the JSON that facebench wrote",
            source=str(path),
            fix="Restore it from a backup; or delete it, and every sum in it is taken anew",
        ) from None


def check_pin(known: PublishedFile, sha256: str, weights_dir: Path) -> None:
    """Raise WeightsError if `known` is pinned to another sum than this."""
    pin = read_pins(weights_dir).get(known.file_name)
    if pin is not None and pin.sha256 != sha256:
        raise WeightsError(
            f"{known.file_name} has the sha256 {sha256}, but was pinned to another",
            allowed=f"{pin.sha256}, pinned {pin.when[:10]}",
            source=str(weights_dir / FILE_NAME),
            fix="Something between its publisher and you has changed it. If its publisher says so "
            f"too, remove the entry {known.file_name!r} from {FILE_NAME} and add the file again; "
            "results from before and after are not comparable",
        )


def pin(known: PublishedFile, sha256: str, weights_dir: Path) -> None:
    """Remember the sum of a file whose published sum, if any, could be another's too.

    Raise WeightsError if it is pinned to another, OSError where nothing can be written.
    """
    if known.has_whole_sha256:
        return
    check_pin(known, sha256, weights_dir)
    pins = read_pins(weights_dir)
    if known.file_name not in pins:
        when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        pins[known.file_name] = Pin(sha256, when)
        content = {name: asdict(pinned) for name, pinned in pins.items()}
        write_json(weights_dir / FILE_NAME, {"schema": SCHEMA, "pins": content})
