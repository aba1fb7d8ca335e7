"""A model card: what a trained run is, its accuracy by subgroup, its uses and limitations.

After M. Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019), from the run's stored files
alone. Its text is templates/card.md.jinja.
"""

import contextlib
import html
import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from benchmark.comparison.wording import joined, one_place, p_text
from benchmark.errors import RunError
from benchmark.evaluation.figures import BY_TITLES
from benchmark.evaluation.predictions import LIMITS_DRAWN, limits_of
from benchmark.evaluation.red_flags import UTKFACE_NAME, flag_state, warning
from benchmark.evaluation.subgroups import GAP_BY, SMALL_GROUP
from benchmark.models.weight_manifest import FILES
from benchmark.record import RunRecord
from benchmark.tasks import TASK_TITLES, TASKS, TaskName
from benchmark.tracking.notes import code, plain, rate

if TYPE_CHECKING:
    from jinja2 import Environment

CARD_FILE: Final = "card.md"
LEAKY: Final = "LEAKY: test faces were seen in training. No number here is an honest test result."
AD_HOC: Final = "AD HOC: changed on the command line, and kept off leaderboards."
STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: 1rem 0; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #8886; text-align: left; }
td[style*=right], th[style*=right] { font-variant-numeric: tabular-nums; white-space: nowrap; }
blockquote { margin: 1rem 0; padding: .1rem 1rem; border-left: .4rem solid #c60; }
code { overflow-wrap: anywhere; }
@media print { body { max-width: none; margin: 0; } }
"""


def model_card(record: RunRecord) -> str:
    """Write the card of a finished run as Markdown; raises RunError where it is not finished.

    What an older facebench did not compute is left out, with the command that computes it.
    """
    from jinja2 import UndefinedError

    if record.state != "done":
        raise RunError(
            f"run {record.identity[:12]} ({record.experiment_name}, seed {record.seed}) is "
            f"{record.state}",
            allowed="a finished run",
            source=str(record.folder),
            fix=f"`facebench run {record.experiment_name} --seeds {record.seed}` resumes it",
        )
    try:
        template = _environment().get_template("card.md.jinja")
        return template.render(**_content(record)).rstrip() + "\n"
    except (KeyError, TypeError, ValueError, UndefinedError) as error:
        raise RunError(
            f"the files of run {record.identity[:12]} hold too little for a card "
            f"({type(error).__name__}: {error})",
            allowed="what facebench writes",
            source=str(record.folder),
        ) from error


def card_page(markdown: str, title: str) -> str:
    """Turn a card into one HTML page that needs nothing else; HTML within the text stays text."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style></head>\n"
        f"<body><main>\n{body}</main></body></html>\n"
    )


@cache
def _environment() -> "Environment":
    """Make what renders Markdown: not escaped as HTML is, but by `plain` and `code`."""
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.PackageLoader("benchmark.reporting"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"plain": plain, "code": code, "joined": joined, "last_part": _last_part}
    made.filters["title_of"] = TASK_TITLES.__getitem__
    made.globals |= {"rate": rate, "one_place": one_place, "p_text": p_text}
    return made


def _last_part(by_part: Mapping[str, float]) -> float | None:
    """Give a number of the test part, or of validation where test was not evaluated."""
    return by_part.get("test", by_part.get("val"))


def _content(record: RunRecord) -> dict[str, Any]:
    """Read what the template shows; tables as lists of rows."""
    about, metrics = record.about, record.metrics
    drawn = bool(about["dataset"]["drawn"])
    tasks = [task for task in TASKS if task in about["experiment"]["head"]["tasks"]]
    tested = [task for task in tasks if f"test/{task}/accuracy" in metrics]
    groups = record.subgroups() if tested else pd.DataFrame()
    flagged = warning({record.identity[:12]: flag_state(record)}, record.identity[:12])
    said = [(text, drawn) for text in LIMITS_DRAWN]
    said += [(LEAKY, about["leaky"]), (AD_HOC, about["ad_hoc"]), (flagged, bool(flagged))]
    weights = about["weights"]
    known = FILES if weights["source"] != "none" else ()
    origins = [item for item in known if item.file_name == weights.get("origin")]
    return {
        "about": about,
        "origin": origins[0] if origins else None,
        "definition": about["experiment"],
        "backbone": about["experiment"]["backbone"],
        "dataset": about["dataset"],
        "done": record.done,
        "identity": record.identity,
        "experiment_name": record.experiment_name,
        "predictions_sha256": record.predictions_sha256,
        "has_model": (record.folder / "model.safetensors").is_file(),
        "metrics": metrics,
        "tasks": tasks,
        "tested": tested,
        "warnings": [text for text, is_so in said if is_so],
        "limits": (LIMITS_DRAWN if drawn else ()) + limits_of(about["dataset"]),
        "groups": groups.to_dict("records"),
        "gaps": _gaps(record, groups) if (record.folder / "gaps.csv").is_file() else None,
        "calibration": _calibration(record),
        "by_titles": BY_TITLES,
        "small": SMALL_GROUP,
        "utkface": UTKFACE_NAME,
    }


def _rows(record: RunRecord, name: str) -> list[dict[Any, Any]]:
    """Read a table of the run's folder; no row where it was scored before there was one."""
    path = record.folder / f"{name}.csv"
    if not path.is_file():
        return []
    return pd.read_csv(path, dtype={"group": str, "within": str}).to_dict("records")


def _gaps(record: RunRecord, groups: pd.DataFrame) -> dict[TaskName, dict[Any, Any]]:
    """Give each task's gap in the division that says most of it, with the row of its lowest."""
    found = {}
    for row in _rows(record, "gaps"):
        task = row["task"]
        if row["by"] == GAP_BY[task] and pd.notna(row["gap"]):
            ours = groups[(groups["task"] == task) & (groups["by"] == row["by"])]
            lowest = ours[ours["group"] == row["worst_group"]].iloc[0]
            found[task] = row | {"worst_row": dict(lowest)}
    return found


def _calibration(record: RunRecord) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, KeyError):
        content = (record.folder / "calibration.json").read_text(encoding="utf-8")
        return dict(json.loads(content)["tasks"])
    return {}
