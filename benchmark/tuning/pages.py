"""The interactive page of a study: one HTML file that needs nothing else, drawn by plotly.

The library itself is 4.7 MB and stands in each file once: a page opens from a disk, from MLflow's
artifacts, or from a mail, without a network.
"""

import html
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import optuna

from benchmark.files import write_text
from benchmark.tuning.figures import FEWEST_FOR_CONTOUR, importances, label_of
from benchmark.tuning.ledger import Ledger, Told
from benchmark.tuning.study import Study
from benchmark.tuning.tables import trials_table

PAGE_FILE: Final = "study.html"
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


def write_page(
    study: Study, ledger: Ledger, trials: Sequence[Told]
) -> tuple[list[Path], list[str]]:
    """Write the page; say what cannot be drawn of the study yet."""
    done = [trial for trial in trials if trial.state == "complete"]
    if not done:
        return [], []
    try:
        import plotly  # noqa: F401
    except ImportError:
        return [], ["plotly is not installed: there is no interactive page, only pictures"]
    found = importances(ledger, done)
    path = study.own_folder / PAGE_FILE
    write_text(path, _page(study, trials, _sections(ledger.optuna_study, done, found)))
    return [path], []


def _sections(
    study: optuna.Study, done: Sequence[Told], found: dict[str, float]
) -> list[tuple[str, Any]]:
    """Draw each kind of plot that the trials allow, under its title."""
    from optuna import visualization

    drawings: list[tuple[str, Callable[[], Any]]] = [
        (
            "How the search went",
            lambda: visualization.plot_optimization_history(study, target_name=SCORE),
        ),
        ("Epoch by epoch", lambda: visualization.plot_intermediate_values(study)),
    ]
    if found:
        drawings.append(
            (
                "What mattered",
                lambda: visualization.plot_param_importances(study, target_name=SCORE),
            )
        )
    drawings.append(
        ("Each parameter by itself", lambda: visualization.plot_slice(study, target_name=SCORE))
    )
    crossed = list(found)[:MOST_IN_CONTOUR]
    if len(done) >= FEWEST_FOR_CONTOUR and len(crossed) > 1:
        drawings.append(
            (
                "Parameters together",
                lambda: visualization.plot_contour(study, params=crossed, target_name=SCORE),
            )
        )
    return [(title, draw()) for title, draw in drawings]


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
