"""Documents stay true: every command they quote is one that the program takes, Python runs."""

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import typer
from typer.testing import CliRunner

from benchmark import registry
from benchmark.cli.main import app
from benchmark.models.backbone import StageChain
from benchmark.models.weight_formats import layouts_of
from tests.cli.conftest import GENDER, MTL, one_run
from tests.conftest import ROOT
from tests.made_runs import RunBuilder

ROOT_COMMAND = typer.main.get_command(app)
USAGE_ERROR: Any = typer.BadParameter.__base__
"""Of click, which typer carries within itself."""
DOCUMENTS = sorted([
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "deploy/README.md")),
    *ROOT.glob("docs/**/*.md"),
])  # fmt: skip
LEFT_OUT = re.compile(r"…|\.\.\.")
"""How a document says that there is more: a command with it is looked at as far as it goes."""
SHELL = frozenset({">", ">>", "<", "|", "&&", "||", ";"})
"""What a shell reads and a program never sees; with what follows it is left off."""
EXPERIMENT_NAME = re.compile(r"(age_group|gender|race|mtl)-[a-z0-9_]+-((?!tuned)\S)+")
"""One whose name has `tuned` comes into being by a search."""


class Quoted(NamedTuple):
    """One command as a document quotes it."""

    place: str
    words: tuple[str, ...]
    is_block: bool
    """A block is meant to be typed; a command within a sentence may leave out what it is given."""

    @property
    def text(self) -> str:
        return shlex.join(self.words)


def commands_of(place: str, text: str) -> Iterator[Quoted]:
    """Find the commands of one document, in code blocks and within sentences."""
    in_block = False
    for line in text.replace("\\\n", " ").splitlines():
        if line.lstrip().startswith("```"):
            in_block = not in_block
        elif in_block or line.startswith("    "):
            yield from _read(place, line.strip().removeprefix("$ "), is_block=True)
        else:
            for found in re.findall(r"(?<!`)`([^`]+)`(?!`)", line):
                yield from _read(place, found, is_block=False)


def _read(place: str, text: str, *, is_block: bool) -> Iterator[Quoted]:
    if not text.startswith(("facebench ", "make ")) or "`" in text:
        return
    text = re.sub(r"[\[\]]", " ", text)  # [what may be left out]
    try:
        words = shlex.split(text, comments=True)
    except ValueError:  # a quotation that goes on in the next line of prose
        words = text.split()
    ends = (at for at, word in enumerate(words) if word in SHELL or LEFT_OUT.search(word))
    cut = next(ends, len(words))
    is_block = is_block and not any(map(LEFT_OUT.search, words[cut : cut + 1]))
    words = [word if is_block else word.rstrip(",.;:") for word in words[:cut]]
    if len(words) > 1:
        yield Quoted(place, tuple(words), is_block)


QUOTED = [it for page in DOCUMENTS for it in commands_of(page.name, page.read_text("utf-8"))]
OURS = [item for item in QUOTED if item.words[0] == "facebench"]


def check_that_the_program_takes(item: Quoted) -> None:
    command: Any = ROOT_COMMAND
    given = list(item.words[1:])
    while given and given[0] in getattr(command, "commands", {}):
        command = command.commands[given.pop(0)]
    is_group = hasattr(command, "commands")
    is_unknown = is_group and given and not given[0].startswith("-")
    assert not is_unknown, f"{item}: no command {given[0]}"
    if not item.is_block:
        known = {name for of in command.params for name in (*of.opts, *of.secondary_opts)}
        used = {word.split("=")[0] for word in given if word.startswith("--")}
        assert used <= known | {"--help"}, item
        return
    assert not is_group, item
    try:
        command.make_context("facebench", [word for word in given if word != "--help"])
    except USAGE_ERROR as error:
        pytest.fail(f"{item}: {error.format_message()}")


def test_quoted_commands_experiments_and_suites_are_ones_that_the_program_knows() -> None:
    for item in OURS:
        check_that_the_program_takes(item)
        names = {word for word in item.words if EXPERIMENT_NAME.fullmatch(word)}
        assert names <= set(registry.experiments()), item
        if "--suite" in item.words[:-1]:
            suite = item.words[item.words.index("--suite") + 1]
            assert suite.isupper() or suite in {*registry.suites(), registry.TUNED}, item


def test_quoted_make_targets_are_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    for item in QUOTED:
        for word in item.words[1:] if item.words[0] == "make" else ():
            name = word.split("=")[0]
            assert name in targets if "=" not in word else f"$({name}" in makefile, item


def test_test_files_that_documents_name_exist() -> None:
    text = "\n".join(page.read_text("utf-8") for page in DOCUMENTS)
    paths = set(re.findall(r"(?:tests/)?([a-z]+/test_\w+|test_\w+(?=\.py))", text))
    assert not {path for path in paths if not (ROOT / f"tests/{path}.py").is_file()}


def commands(command: Any, path: tuple[str, ...] = ("facebench",)) -> Iterator[tuple[str, Any]]:
    """Give every command with its name."""
    if not hasattr(command, "commands"):
        yield " ".join(path), command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


def test_every_command_has_examples_below_its_options_that_the_program_takes() -> None:
    for path, command in commands(ROOT_COMMAND):
        assert "Examples:" not in (command.help or ""), path
        # Typer keeps single line breaks of an epilog as a paragraph's own; a long example goes on.
        text = "```\n" + (command.epilog or "").replace("\n  --", " --") + "\n```"
        examples = list(commands_of(f"{path} --help", text))
        assert examples, path
        for item in examples:
            check_that_the_program_takes(item)


ALSO = ("list --suite study", "weights list", "show mtl-cnn-none-full-short")
CHEAP = re.compile(r"facebench (list|show|weights list|compare quick|leaderboard|card)\b")
OF_THE_READER = re.compile(
    r"\b[A-Z]{3,}\b|--acknowledge|--out|depth|controls|tuned|--json .*--json"
)


def test_cheap_commands_do_what_the_documents_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder with finished runs in mlruns/, as a reader has it after the commands before."""
    runs = RunBuilder(tmp_path / "mlruns")
    runs.dataset |= {"name": "drawn-v1", "drawn": True}
    for name in (MTL, GENDER):
        one_run(runs, name)
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir(tmp_path))
    texts = [*(item.text for item in OURS if item.is_block), *(f"facebench {it}" for it in ALSO)]
    for text in dict.fromkeys(texts):
        if CHEAP.match(text) and not OF_THE_READER.search(text):
            answer = CliRunner().invoke(app, shlex.split(text)[1:])
            assert answer.exit_code == 0, f"{text}: {answer.output}"
            assert answer.stdout.strip(), text
            assert sorted(os.listdir(tmp_path)) == before, text


def test_the_python_of_experiments_md_adds_what_it_says() -> None:
    text = (ROOT / "docs/EXPERIMENTS.md").read_text(encoding="utf-8")
    added: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "docs/EXPERIMENTS.md", "exec"), added)

    (experiment,) = added["EXPERIMENTS"]
    before = registry.experiment(experiment.compare_with)
    assert experiment.recipe.learning_rate == before.recipe.learning_rate / 10
    assert experiment.name not in registry.experiments()

    line = added["TINY"]
    backbone = StageChain(line, added["tiny"](), {})
    assert tuple(backbone.stages) == line.stages
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 5_088
    assert backbone(torch.zeros(2, 3, 32, 32)).shape == (2, 32, 7, 7)

    mine = added["MINE"]
    assert mine.layout in [layout.name for layout in layouts_of(mine.architecture)]
    assert len(mine.sha256) == 64
