"""What a study shows: its trials as a CSV file, and one interactive page drawn by Optuna.

The page needs nothing else: plotly's library, 4.7 MB, stands in it once, so that it opens from a
disk, from MLflow's artifacts, or from a mail, without a network.
"""

import html
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import optuna
import pandas as pd
from optuna import visualization

from benchmark.files import write_text
from benchmark.tuning.ledger import Ledger, Told
from benchmark.tuning.study import Study

PAGE_FILE: Final = "study.html"
TRIALS_FILE: Final = "trials.csv"
FEWEST_FOR_IMPORTANCE: Final = 4
FEWEST_FOR_CONTOUR: Final = 6
MOST_IN_CONTOUR: Final = 4
SCORE: Final = "combined validation accuracy"
STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:1180px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.35rem;margin-bottom:.2rem} h2{font-size:1.1rem;margin:2rem 0 .3rem}
p{max-width:48rem} .wide{overflow-x:auto} table{border-collapse:collapse;font-size:.85rem}
td,th{padding:.25rem .6rem;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}
th{position:sticky;top:0;background:#f5f5f5} tr.best td{background:#fff2cc}
tr.failed td,tr.pruned td{color:#767676} .drawn{background:#fff2cc;padding:.4rem .6rem}
"""


def trials_table(trials: Sequence[Told], paths: Sequence[str]) -> pd.DataFrame:
    """Give trial, state, value, epochs, seconds, each searched path, run, retry_of and reason."""
    rows = [
        {
            "trial": trial.number,
            "state": trial.state,
            "value": trial.value,
            "best_score": max(trial.scores.values(), default=None),
            "epochs": len(trial.scores),
            "seconds": trial.seconds,
            **{path: trial.point.get(path) for path in paths},
            "run": trial.run,
            "retry_of": trial.retry_of,
            "reason": trial.reason,
        }
        for trial in trials
    ]
    table = pd.DataFrame(rows)
    return table.astype({"retry_of": "Int64"}) if len(table) else table


def write_pages(
    study: Study, ledger: Ledger, trials: Sequence[Told]
) -> tuple[list[Path], list[str]]:
    """Write the table and, once a trial is complete, the page; say what cannot be drawn yet."""
    folder = study.own_folder
    files, remarks = [folder / TRIALS_FILE], list[str]()
    write_text(files[0], trials_table(trials, study.space.paths).to_csv(index=False))
    done = [trial for trial in trials if trial.state == "complete"]
    if done:
        important = _importances(ledger.optuna_study, done)
        if not important:
            remarks.append("too few trials are complete, or all alike: no importance is shown")
        sections = _sections(ledger.optuna_study, len(done), important)
        write_text(folder / PAGE_FILE, _page(study, trials, sections))
        files.append(folder / PAGE_FILE)
    return files, remarks


def _importances(study: optuna.Study, done: Sequence[Told]) -> list[str]:
    """Name the parameters, the most important first; none where that cannot be told."""
    if len(done) < FEWEST_FOR_IMPORTANCE or len({trial.value for trial in done}) < 2:
        return []
    try:
        return list(optuna.importance.get_param_importances(study))
    except (ValueError, RuntimeError):
        return []


def _sections(study: optuna.Study, n_done: int, important: list[str]) -> list[tuple[str, Any]]:
    """Draw each kind of plot that the trials allow, under its title."""
    drawings: dict[str, Callable[[], Any]] = {
        "How the search went": lambda: visualization.plot_optimization_history(
            study, target_name=SCORE
        ),
        "Epoch by epoch": lambda: visualization.plot_intermediate_values(study),
    }
    if important:
        drawings["What mattered"] = lambda: visualization.plot_param_importances(
            study, target_name=SCORE
        )
    drawings["Each parameter by itself"] = lambda: visualization.plot_slice(
        study, target_name=SCORE
    )
    if n_done >= FEWEST_FOR_CONTOUR and len(important) > 1:
        drawings["Parameters together"] = lambda: visualization.plot_contour(
            study, params=important[:MOST_IN_CONTOUR], target_name=SCORE
        )
    return [(title, draw()) for title, draw in drawings.items()]


def label_of(path: str) -> str:
    """Name a path on an axis."""
    return path.removeprefix("recipe.").removeprefix("backbone.").removeprefix("head.")


def _page(study: Study, trials: Sequence[Told], sections: list[tuple[str, Any]]) -> str:
    asks = f"Which recipe suits {study.experiment.name} best on {study.faces.name}?"
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'>",
        f"<title>{html.escape(asks)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{html.escape(asks)}</h1>",
    ]
    if study.faces.drawn:
        parts.append("<p class='drawn'><b>Drawn faces</b>, which say nothing of people.</p>")
    parts.append(
        "<p>Each trial trained on the training faces and was scored on validation faces; no trial "
        "read a test face. The best of many trials is flattered by its choice: what it is worth "
        "is said by the runs of the refit, on test faces.</p>"
    )
    for place, (title, figure) in enumerate(sections):
        figure.update_layout(title=None, margin={"t": 30}, template="plotly_white")
        drawn = figure.to_html(
            full_html=False,
            include_plotlyjs="inline" if place == 0 else False,
            config={"displaylogo": False},
        )
        parts.append(f"<h2>{title}</h2><div class='wide'>{drawn}</div>")
    parts.append(f"<h2>Trials</h2><div class='wide'>{_table(study, trials)}</div></body></html>")
    return "\n".join(parts)


def _table(study: Study, trials: Sequence[Told]) -> str:
    table = trials_table(trials, study.space.paths).drop(columns=["run", "retry_of"])
    best = table["value"].idxmax() if table["value"].notna().any() else None
    head = "".join(f"<th>{html.escape(label_of(name))}</th>" for name in table.columns)
    rows = []
    for place, row in table.iterrows():
        kind = "best" if place == best else row["state"]
        cells = "".join(f"<td>{html.escape(_cell(value))}</td>" for value in row)
        rows.append(f"<tr class='{kind}'>{cells}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
