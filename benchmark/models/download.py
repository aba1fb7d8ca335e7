"""Fetch one file over HTTP: resumed, retried, checked, and never half there.

Which address holds what is for benchmark.models.sources to say.
"""

from __future__ import annotations

import http
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

from benchmark.errors import WeightsError
from benchmark.files import sha256_of

TIMEOUT_SECONDS: Final = 5.0
"""To connect, and without a byte while reading."""
N_ATTEMPTS: Final = 3
PIECE_BYTES: Final = 1 << 16

OnBytes = Callable[[int, int | None], None]
"""Hears how many bytes have arrived, and of how many where the server says so."""


class CutShort(OSError):
    """Raised inside this room when a connection ended early; the next attempt goes on."""


def fetch(
    url: str, target: Path, is_right: Callable[[str], bool], on_bytes: OnBytes | None = None
) -> None:
    """Fetch `url` to `target`; `is_right` judges the file's sha256. Raise WeightsError otherwise.

    Bytes arrive in `<target>.part`, which a later call goes on from.
    """
    part = target.with_name(target.name + ".part")
    reason = ""
    for _ in range(N_ATTEMPTS):
        goes_on = part.exists()
        try:
            _fetch_rest(url, part, on_bytes)
        except CutShort as error:
            reason = str(error)
            continue
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _failed(url, str(getattr(error, "reason", error)) or repr(error)) from None
        reason = _what_is_wrong(part, is_right)
        if not reason:
            part.replace(target)
            return
        part.unlink()
        # Wrong from the first byte on: asking again would bring the same.
        if not goes_on:
            break
    raise _failed(url, reason)


def _failed(url: str, reason: str) -> WeightsError:
    return WeightsError(reason, source=url, fix="Fetch it by hand where there is a network")


def _fetch_rest(url: str, part: Path, on_bytes: OnBytes | None) -> None:
    n_here = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "facebench", "Accept-Encoding": "identity"}
    if n_here:
        headers["Range"] = f"bytes={n_here}-"
    request = urllib.request.Request(url, headers=headers)
    with _opened(request, part) as answer:
        resumed = answer.status == 206
        n_here = n_here if resumed else 0
        length = answer.headers.get("Content-Length")
        n_total = n_here + int(length) if length else None
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab" if resumed else "wb") as stream:
            while piece := _read(answer):
                n_here += stream.write(piece)
                if on_bytes is not None:
                    on_bytes(n_here, n_total)
    if n_total is not None and n_here < n_total:
        raise CutShort(f"the connection ended after {n_here:,} of {n_total:,} bytes")


def _opened(request: urllib.request.Request, part: Path) -> http.client.HTTPResponse:
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)
            raise CutShort("what was here is longer than the file") from None
        message = f"the server answered {error.code} {error.reason}"
        raise OSError(message) from None
    return cast(http.client.HTTPResponse, answer)


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read(PIECE_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise CutShort(f"the connection broke ({error})") from None


def _what_is_wrong(part: Path, is_right: Callable[[str], bool]) -> str:
    """Say why this is not the published file; nothing where it is."""
    sha256 = sha256_of(part)
    if is_right(sha256):
        return ""
    with part.open("rb") as stream:
        is_page = stream.read(512).lstrip()[:1] == b"<"
    what = "an HTML page came instead of the file" if is_page else f"its sha256 is {sha256}"
    return f"{what}, which is not what was published"
