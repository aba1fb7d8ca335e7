"""Fetch one file over HTTP: resumed, retried, checked, and never half there.

Which address holds what is for benchmark.models.sources to say.
"""

from __future__ import annotations

import http
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

from benchmark.errors import WeightsError, WeightsMissing
from benchmark.files import write_text
from benchmark.models.readers import is_markup

TIMEOUT_SECONDS: Final = 5.0
"""To connect, and without a byte while reading."""
N_ATTEMPTS: Final = 3
PAUSE_SECONDS: Final = 0.5
"""Before the second attempt after a busy server; twice as long before the third."""
PIECE_BYTES: Final = 1 << 16
BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP answers after which asking again may help (RFC 9110, §15; RFC 6585, §4)."""

OnBytes = Callable[[str, int, int | None], None]
"""Hears a file's name, how many bytes of it have arrived, and of how many where the server says."""

Judge = Callable[[Path], None]
"""Raises WeightsError unless the file that arrived, under whatever name, is the right one."""


class NoAnswer(OSError):
    """Raised inside this room when an address gives nothing, and will not give more if asked."""


class CutShort(OSError):
    """Raised inside this room when a connection ended early; the next attempt goes on."""


class Busy(OSError):
    """Raised inside this room when a server cannot answer just now."""


class Part:
    """What has arrived of a file so far, and the server's own mark of which file it is."""

    def __init__(self, target: Path, *, judged_by_sum: bool) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._mark_path = target.with_name(f"{target.name}.mark")
        self._judged_by_sum = judged_by_sum
        self.name = target.name

    def request_headers(self) -> dict[str, str]:
        """Ask for the rest, where it is sure to be the rest of the same file."""
        if not self.path.exists():
            return {}
        rest = {"Range": f"bytes={self.path.stat().st_size}-"}
        if self._mark_path.exists():
            return rest | {"If-Range": self._mark_path.read_text(encoding="utf-8")}
        # A sum finds out a file that is two halves of different ones; nothing else does.
        return rest if self._judged_by_sum else {}

    def begin(self, answer: http.client.HTTPResponse) -> None:
        """Start anew, with the mark of the file that now comes; weak marks do not tell bytes."""
        self.remove()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        mark = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if mark and not mark.startswith("W/"):
            write_text(self._mark_path, mark)

    def remove(self) -> None:
        """Forget what has arrived."""
        self.path.unlink(missing_ok=True)
        self._mark_path.unlink(missing_ok=True)

    def become(self, target: Path) -> None:
        """Give the whole file its name."""
        self.path.replace(target)
        self._mark_path.unlink(missing_ok=True)


def fetch(
    url: str,
    target: Path,
    judge: Judge,
    on_bytes: OnBytes | None = None,
    *,
    judged_by_sum: bool = True,
) -> None:
    """Fetch `url` to `target`; `judge` looks at the whole file before it gets its name.

    Bytes arrive in `<target>.part`, which a later call goes on from. Raise WeightsMissing where
    nothing is to be had, what `judge` raises where it is another file, OSError where nothing can
    be written.
    """
    part = Part(target, judged_by_sum=judged_by_sum)
    trouble: WeightsError = _failed(url, "nothing came")
    for attempt in range(N_ATTEMPTS):
        was_begun = part.path.exists()
        try:
            _fetch_rest(url, part, on_bytes)
            _check(url, part, judge)
            part.become(target)
            return
        except CutShort as error:
            trouble = _failed(url, str(error))
        except Busy as error:
            trouble = _failed(url, str(error))
            time.sleep(PAUSE_SECONDS * (attempt + 1))
        except NoAnswer as error:
            raise _failed(url, str(error)) from None
        except WeightsError as error:
            part.remove()
            trouble = error
            # What an earlier call left may have been of another file. Wrong from the first byte
            # on: asking again would bring the same.
            if not was_begun:
                break
    raise trouble


def _failed(url: str, reason: str) -> WeightsMissing:
    return WeightsMissing(reason, source=url, fix="Fetch it by hand where there is a network")


def _check(url: str, part: Part, judge: Judge) -> None:
    with part.path.open("rb") as stream:
        if is_markup(stream.read(512)):
            raise _failed(url, "an HTML page came instead of the file")
    judge(part.path)


def _fetch_rest(url: str, part: Part, on_bytes: OnBytes | None) -> None:
    headers = {"User-Agent": "facebench", "Accept-Encoding": "identity", **part.request_headers()}
    with _opened(url, headers, part) as answer:
        resumed = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        if not resumed:
            part.begin(answer)
        n_here = part.path.stat().st_size if resumed else 0
        length = answer.headers.get("Content-Length")
        n_total = n_here + int(length) if length else None
        with part.path.open("ab") as stream:
            while piece := _read(answer):
                n_here += stream.write(piece)
                if on_bytes is not None:
                    on_bytes(part.name, n_here, n_total)
    if n_total is not None and n_here < n_total:
        raise CutShort(f"the connection ended after {n_here:,} of {n_total:,} bytes")


def _opened(url: str, headers: dict[str, str], part: Part) -> http.client.HTTPResponse:
    try:
        request = urllib.request.Request(url, headers=headers)
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.remove()
            raise CutShort("what was here is longer than the file") from None
        message = f"the server answered {error.code} {error.reason}"
        raise (Busy if error.code in BUSY else NoAnswer)(message) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise NoAnswer(str(reason) or repr(error)) from None
    return cast(http.client.HTTPResponse, answer)


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read(PIECE_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise CutShort(f"the connection broke ({error})") from None
