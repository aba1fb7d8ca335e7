"""The commands that the documents quote, taken from their code: what readers will type."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[1]
PAGES = [page.relative_to(ROOT).as_posix() for page in ROOT.glob("docs/**/*.md")]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "deploy/README.md", *PAGES)
PROGRAMS = ("facebench", "make")
LEFT_OUT = re.compile(r"…|\.\.\.")
"""How a document says that there is more: a command with it is looked at as far as it goes."""

SHELL = frozenset({">", ">>", "<", "|", "&&", "||", ";"})
"""What a shell reads and a program never sees; with what follows it is left off."""


@dataclass(frozen=True)
class Quoted:
    """One command as a document quotes it."""

    document: str
    line: int
    words: tuple[str, ...]
    kind: Literal["block", "inline"]
    """A block is meant to be typed; a command within a sentence may leave out what it is given."""

    @property
    def text(self) -> str:
        return shlex.join(self.words)


def quoted_commands() -> list[Quoted]:
    """Give every command of every document."""
    return [
        command
        for name in sorted(DOCUMENTS)
        for command in commands_of(name, (ROOT / name).read_text(encoding="utf-8"))
    ]


def commands_of(name: str, text: str) -> Iterator[Quoted]:
    """Find the commands of one document, in code blocks and within sentences."""
    in_block, pending, begun = False, "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("```"):
            in_block, pending = not in_block, ""
            continue
        code = line.strip().removeprefix("$ ")
        if in_block or line.startswith("    "):
            begun = begun if pending else number
            if pending or code.split(" ")[0] in PROGRAMS:
                pending += code.removesuffix("\\") + " "
                if not code.endswith("\\"):
                    yield from _read(name, begun, pending, "block")
                    pending = ""
            continue
        for found in re.findall(r"(?<!`)`([^`]+)`(?!`)", line):
            yield from _read(name, number, found, "inline")


def _read(name: str, line: int, text: str, kind: Literal["block", "inline"]) -> Iterator[Quoted]:
    if text.split(" ")[0] not in PROGRAMS or "`" in text:
        return
    text = re.sub(r"[\[\]]", " ", text)  # [what may be left out]
    try:
        words = shlex.split(text, comments=True)
    except ValueError:  # a quotation that goes on in the next line of prose
        words = text.split()
    shell = next((at for at, word in enumerate(words) if word in SHELL), len(words))
    words = words[:shell]
    cut = next((at for at, word in enumerate(words) if LEFT_OUT.search(word)), None)
    if cut is not None:
        words, kind = words[:cut], "inline"
    words = [word.rstrip(",.;:") if kind == "inline" else word for word in words]
    if len(words) > 1:
        yield Quoted(name, line, tuple(words), kind)
