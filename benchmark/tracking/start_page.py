"""MLflow's own server, with one page before the first: so that a stranger lands on training runs.

By itself MLflow 3 opens on a page about traces, in its mode for language models, with an assistant
over a quarter of the width. Both are settings of the browser, which only a page of that server can
make: this one makes them once, then leads to the runs. Whatever was chosen since is left alone.
"""

import html
import json
import os
from typing import Any, Final

from mlflow.server.fastapi_app import app as mlflow_app
from starlette.requests import Request
from starlette.responses import HTMLResponse

LANDING_VARIABLE: Final = "FACEBENCH_LANDING"
"""Where to lead, as `/#/experiments/1/runs?…`; in the environment of the server's process."""
COOKIE: Final = "facebench_view"
A_YEAR_SECONDS: Final = 365 * 24 * 3600
BROWSER_SETTINGS: Final = {
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.assistant.panelOpen_v1": "false",
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
}
"""What the pages of MLflow 3.17 keep in a browser; a version that names them otherwise ignores
them, and opens as it does by itself."""

PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>facebench</title>
<p>Opening the runs: <a href="{link}">go on</a>.</p>
<script>
const settings = {settings};
for (const [name, value] of Object.entries(settings))
  if (localStorage.getItem(name) === null) localStorage.setItem(name, value);
if (!location.hash) history.replaceState(null, "", {landing});
location.reload();
</script></html>
"""


class StartPage:
    """MLflow's server; who comes for the first time gets the page above, and then MLflow's own."""

    def __init__(self, inner: Any, landing: str) -> None:
        self._inner = inner
        self._landing = landing

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, as ASGI has it."""
        is_page = scope["type"] == "http" and (scope["method"], scope["path"]) == ("GET", "/")
        if not is_page or COOKIE in Request(scope).cookies:
            await self._inner(scope, receive, send)
            return
        page = PAGE.format(
            link=html.escape(self._landing),
            settings=json.dumps(BROWSER_SETTINGS),
            landing=json.dumps(self._landing).replace("<", "\\u003c"),
        )
        answer = HTMLResponse(page, headers={"Cache-Control": "no-store"})
        answer.set_cookie(COOKIE, "1", max_age=A_YEAR_SECONDS, samesite="lax")
        await answer(scope, receive, send)


app = StartPage(mlflow_app, os.environ.get(LANDING_VARIABLE, "/"))
"""Named in pyproject.toml as an app of MLflow: `mlflow server --app-name facebench`."""
