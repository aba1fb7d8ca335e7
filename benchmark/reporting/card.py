"""A model card: what a trained run is, its accuracy by subgroup, its uses and limitations.

After M. Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019), from the run's stored files
alone. Its text is templates/card.md.jinja.
"""

import shlex
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from benchmark import registry
from benchmark.comparison.wording import joined, one_place, p_text
from benchmark.errors import RunError
from benchmark.evaluation.calibration import SUBGROUP_FACES
from benchmark.evaluation.figures import BY_TITLES
from benchmark.evaluation.predictions import LIMITS_DRAWN, limits_of
from benchmark.evaluation.red_flags import UTKFACE_NAME, flag_state, warning
from benchmark.evaluation.subgroups import EQUALIZED_ODDS, GAP_BY, SMALL_GROUP
from benchmark.experiment.parts import changed_settings
from benchmark.models.weight_manifest import FILES
from benchmark.record import RunRecord
from benchmark.reporting.tables import environment
from benchmark.tasks import TASK_TITLES, TASKS
from benchmark.tracking.notes import code, plain, rate

if TYPE_CHECKING:
    from jinja2 import Template

CARD_FILE: Final = "card.md"
LEAKY: Final = "LEAKY: test faces were seen in training. No number here is an honest test result."
AD_HOC: Final = "AD HOC: changed on the command line, and kept off leaderboards."


def model_card(record: RunRecord) -> str:
    """Write the card of a finished run as Markdown; RunError where its files hold too little.

    What an older facebench did not compute is left out, with the command that computes it.
    """
    from jinja2 import UndefinedError

    try:
        return _template().render(_content(record)).rstrip() + "\n"
    except (KeyError, TypeError, ValueError, UndefinedError) as error:
        which, why = record.identity[:12], f"{type(error).__name__}: {error}"
        found = f"the files of run {which} hold too little for a card ({why})"
        allowed, where = "what facebench writes", str(record.folder)
        raise RunError(found, allowed=allowed, source=where) from error


@cache
def _template() -> "Template":
    """Load the template; its text is not escaped as HTML is, but by `plain` and `code`."""
    made = environment()
    made.filters |= {"plain": plain, "code": code, "joined": joined}
    # Of the test part, or of validation where test was not evaluated.
    made.filters["last_part"] = lambda by_part: by_part.get("test", by_part.get("val"))
    made.filters["title_of"] = TASK_TITLES.__getitem__
    made.globals |= {"rate": rate, "p_text": p_text, "one_place": one_place}
    made.globals |= {"by_titles": BY_TITLES, "gap_by": GAP_BY, "small": SMALL_GROUP}
    made.globals |= {"odds": EQUALIZED_ODDS, "subgroup_faces": SUBGROUP_FACES}
    return made.get_template("card.md.jinja")


def _content(record: RunRecord) -> dict[str, Any]:
    """Read what the template shows; tables as lists of rows."""
    about, metrics = record.about, record.metrics
    drawn, definition = bool(about["dataset"]["drawn"]), about["experiment"]
    tasks = [task for task in TASKS if task in definition["head"]["tasks"]]
    tested = [task for task in tasks if f"test/{task}/accuracy" in metrics]
    flagged = warning({record.identity[:12]: flag_state(record)}, record.identity[:12])
    said = [(text, drawn) for text in LIMITS_DRAWN]
    said += [(LEAKY, about["leaky"]), (AD_HOC, about["ad_hoc"]), (flagged, bool(flagged))]
    origin = about["weights"].get("origin")
    ours = [row for row in _rows(record, "gaps") if row["by"] == GAP_BY[row["task"]]]
    rates, errors = _rows(record, "subgroup_rates"), _rows(record, "subgroup_ece")
    base = registry.experiments().get(record.experiment_name) if about["ad_hoc"] else None
    changed = changed_settings(base.as_dict(), definition) if base else ()
    changes = "".join(f" --set {shlex.quote(text)}" for text in changed)
    changes += " --evaluate-test" * bool(about["ad_hoc"] and tested)
    return {
        "about": about,
        "record": record,
        "origin": next((it for it in FILES if it.file_name == origin), None),
        "changes": changes,
        "has_model": (record.folder / "model.safetensors").is_file(),
        "metrics": metrics,
        "tasks": tasks,
        "tested": tested,
        "warnings": [text for text, is_so in said if is_so],
        "limits": limits_of(about["dataset"]),
        "groups": record.subgroups().to_dict("records") if tested else [],
        # Of few faces there is a row, and no gap.
        "gaps": {row["task"]: row for row in ours if pd.notna(row["gap"])} if ours else None,
        "rates": [row for row in rates if pd.notna(row["difference"])],
        **{name: _rows(record, name) for name in ("gender_gaps", "age_edges", "age_years")},
        "subgroup_ece": [row | {"is_above": row["low"] > row["chance"]} for row in errors],
        "calibration": record.calibration,
        "utkface": UTKFACE_NAME,
    }


def _rows(record: RunRecord, table: str) -> list[dict[Any, Any]]:
    """Give the rows of a table of the run's folder; none where an older facebench wrote none."""
    path = record.folder / f"{table}.csv"
    if not path.is_file():
        return []
    return pd.read_csv(path, dtype={"group": str, "within": str}).to_dict("records")
