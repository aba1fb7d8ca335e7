"""Fetch one file over HTTP: resumed where a sum tells the halves apart, retried, checked.

Which address holds what is for benchmark.models.weight_manifest to say.
"""

from __future__ import annotations

import http
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmark.errors import WeightsError, WeightsMissing
from benchmark.models.weight_readers import is_markup

TIMEOUT_SECONDS: Final = 5.0
"""To connect, and without a byte while reading."""
N_ATTEMPTS: Final = 3
PAUSE_SECONDS: Final = 0.5
"""Before the second attempt; twice as long before the third."""
PIECE_BYTES: Final = 1 << 16
BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP answers after which asking again may help (RFC 9110, §15; RFC 6585, §4)."""

OnBytes = Callable[[str, int, int | None], None]
"""Hears a file's name, how many bytes of it have arrived, and of how many where the server says."""

Judge = Callable[[Path], None]
"""Raises WeightsError unless the file that arrived, under whatever name, is the right one."""


class TryAgain(OSError):
    """Raised in this module where the connection ended early or the server is busy."""


class NoAnswer(OSError):
    """Raised in this module where an address gives nothing, and will not give more if asked."""


def fetch(
    url: str,
    target: Path,
    judge: Judge,
    on_bytes: OnBytes | None = None,
    *,
    judged_by_sum: bool = True,
) -> None:
    """Fetch `url` to `target`; `judge` looks at the whole file before it gets its name.

    Bytes arrive in `<target>.part`, which a later call goes on from where `judge` compares a sum:
    nothing else finds out two halves of different files. Raise WeightsMissing where nothing is to
    be had, what `judge` raises where it is another file, OSError where nothing can be written.
    """
    part = target.with_name(f"{target.name}.part")
    trouble: WeightsError = _failed(url, "nothing came")
    for attempt in range(N_ATTEMPTS):
        if not judged_by_sum:
            part.unlink(missing_ok=True)
        was_begun = part.exists()
        try:
            _fetch_rest(url, part, target.name, on_bytes)
            _refuse_page(url, part)
            judge(part)
            part.replace(target)
            return
        except TryAgain as error:
            trouble = _failed(url, str(error))
            time.sleep(PAUSE_SECONDS * (attempt + 1))
        except NoAnswer as error:
            raise _failed(url, str(error)) from None
        except WeightsError as error:
            part.unlink(missing_ok=True)
            trouble = error
            # What an earlier call left may have been of another file. Wrong from the first byte
            # on: asking again would bring the same.
            if not was_begun:
                break
    raise trouble


def _failed(url: str, reason: str) -> WeightsMissing:
    return WeightsMissing(reason, source=url, fix="Fetch it by hand where there is a network")


def _refuse_page(url: str, part: Path) -> None:
    with part.open("rb") as stream:
        if is_markup(stream.read(512)):
            raise _failed(url, "an HTML page came instead of the file")


def _fetch_rest(url: str, part: Path, name: str, on_bytes: OnBytes | None) -> None:
    n_here = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "facebench", "Accept-Encoding": "identity"}
    if n_here:
        headers["Range"] = f"bytes={n_here}-"
    with _opened(url, headers, part) as answer:
        if getattr(answer, "status", None) != http.HTTPStatus.PARTIAL_CONTENT:
            n_here = 0
        length = answer.headers.get("Content-Length")
        n_total = n_here + int(length) if length else None
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab" if n_here else "wb") as stream:
            while piece := _read(answer):
                n_here += stream.write(piece)
                if on_bytes is not None:
                    on_bytes(name, n_here, n_total)
    if n_total is not None and n_here < n_total:
        raise TryAgain(f"the connection ended after {n_here:,} of {n_total:,} bytes")


def _opened(url: str, headers: dict[str, str], part: Path) -> http.client.HTTPResponse:
    try:
        request = urllib.request.Request(url, headers=headers)
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)
            raise TryAgain("what was here is longer than the file") from None
        message = f"the server answered {error.code} {error.reason}"
        raise (TryAgain if error.code in BUSY else NoAnswer)(message) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise NoAnswer(str(reason) or repr(error)) from None
    return answer


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read(PIECE_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise TryAgain(f"the connection broke ({error})") from None
