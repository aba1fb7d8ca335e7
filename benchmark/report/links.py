"""Addresses of runs in the MLflow UI; which run is where is for benchmark.tracking to say."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode, urlsplit

from benchmark.errors import RunError

DEFAULT_URL: Final = "http://127.0.0.1:5000"
DIGITS: Final = 12
"""How many digits of an identity name a run on the page."""
COMPARED_AT_MOST: Final = 24
"""More runs than MLflow can show beside each other: the link leads to the list of all."""


@dataclass(frozen=True)
class MlflowLinks:
    """Where a number's runs are shown; no link for runs that MLflow does not know."""

    base: str = DEFAULT_URL
    known: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """By the first digits of an identity: MLflow's ids of the experiment and of the run."""

    def of(self, identities: Sequence[str]) -> str:
        """Give the page of one run, MLflow's comparison of several, or its list of very many.

        Empty where one is unknown.
        """
        places = [self.known.get(identity[:DIGITS]) for identity in dict.fromkeys(identities)]
        found = [place for place in places if place is not None]
        if not found or len(found) < len(places):
            return ""
        experiments = sorted({place for place, _ in found})
        if len(found) > COMPARED_AT_MOST and len(experiments) == 1:
            return f"{self.base}/#/experiments/{experiments[0]}/runs"
        if len(found) == 1:
            experiment, run = found[0]
            return f"{self.base}/#/experiments/{experiment}/runs/{run}"
        query = {
            "runs": json.dumps([run for _, run in found], separators=(",", ":")),
            "experiments": json.dumps(experiments, separators=(",", ":")),
        }
        return f"{self.base}/#/compare-runs?{urlencode(query)}"


def mlflow_links(url: str, known: Mapping[str, tuple[str, str]]) -> MlflowLinks:
    """Make links to the UI at `url`; raise RunError for what is no address of a web page.

    known: by identity, MLflow's ids of the experiment and of the run.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise RunError(
            f"--mlflow-url {url!r} is no address", allowed=f"http://… or https://…, {DEFAULT_URL}"
        )
    short = {identity[:DIGITS]: place for identity, place in known.items()}
    return MlflowLinks(url.rstrip("/"), short)
