"""`facebench data fetch`: a published data set, after its licence was shown and accepted."""

import sys
from typing import Annotated

import typer
from rich.markup import escape

from benchmark.cli.options import DEFAULT_DATA_DIR, AsJson, DataDir, Quiet
from benchmark.cli.output import err, out, speaking
from benchmark.errors import DataError

EXAMPLES = """
Examples:

  facebench data fetch utkface

  facebench data fetch utkface --accept-licence --quiet
"""


def fetch(
    name: Annotated[str, typer.Argument(help="A published data set: utkface.")],
    accept: Annotated[
        bool, typer.Option("--accept-licence", help="You have read its licence and accept it.")
    ] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Show the licence of a published data set and, once it is accepted, fetch its archive.

    What was interrupted is resumed. Needs the extra: pip install 'facebench[fetch]'.
    """
    with speaking("data fetch", as_json=as_json) as answer:
        from benchmark.data.fetch import fetch as fetch_published
        from benchmark.data.fetch import published_as

        published = published_as(name)
        for line in published.terms:
            err.print(escape(line), soft_wrap=True)
        if not accept:
            _ask(name)
        fetched = fetch_published(published, data_dir, progress=not (quiet or as_json))
        answer.data = {
            "file": str(fetched.path),
            "is_new": fetched.is_new,
            "faces": fetched.n_faces,
            "sha256": fetched.sha256,
            "terms": list(published.terms),
        }
        if not as_json and not quiet:
            came = "fetched" if fetched.is_new else "there already"
            out.print(
                f"[bold]{escape(str(fetched.path))}[/] {came}: names of {fetched.n_faces:,} faces, "
                f"sha256 {fetched.sha256[:16]}\nNext: "
                f"facebench data prepare {escape(str(fetched.path))}",
                soft_wrap=True,
            )


def _ask(name: str) -> None:
    """Let a person accept; where nobody can answer, say which option does."""
    if sys.stdin.isatty() and typer.confirm("Do you accept this?", default=False, err=True):
        return
    raise DataError(
        f"the licence of {name} was not accepted",
        fix=f"Read it above; `facebench data fetch {name} --accept-licence` says that you accept",
    )
