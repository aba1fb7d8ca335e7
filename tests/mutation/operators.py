"""Small faults put into a module's source, one at a time: what a careless edit would do to it."""

import ast
import copy
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

Node = TypeVar("Node", bound=ast.AST)

COMPARED_AS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
COMPUTED_AS: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Mod: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Pow: ast.Mult,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One fault: where it is, what it is called, and the whole module with it."""

    file: str
    line: int
    column: int
    operator: str
    source: str
    before: str
    after: str
    within: str
    """The class and function that it is in, as `Pair.steps`; empty for a module's own lines."""

    @property
    def key(self) -> str:
        """What the list of explained survivors knows it by; line numbers come and go."""
        place = f"{self.within} at {self.column}" if self.within else f"at {self.column}"
        return f"{self.file}: {place}: {self.before} -> {self.after}"

    @property
    def sha256(self) -> str:
        """Of the module with the fault in it: equal for equal faults of equal modules alone."""
        return hashlib.sha256(f"{self.file}\n{self.source}".encode()).hexdigest()


Change = Callable[[ast.AST], None]
Site = tuple[int, str, Change]
"""Place of the node in the walk, the operator's name, and what it does to that node."""


def mutants_of(file: str, source: str) -> Iterator[Mutant]:
    """Yield every fault that the operators know how to make in a module."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    spared = {id(inner) for node in nodes for inner in _spared(node)}
    for place, node in enumerate(nodes):
        if id(node) in spared:
            continue
        for name, change in _changes(node):
            yield _mutant(file, tree, place, name, change)


def _mutant(file: str, tree: ast.Module, place: int, name: str, change: Change) -> Mutant:
    changed = copy.deepcopy(tree)
    node = list(ast.walk(changed))[place]
    before = _in_words(node)
    change(node)
    after = _in_words(node)
    ast.fix_missing_locations(changed)
    # A comprehension's part has no place of its own; that of its first variable is it.
    at = node.target if isinstance(node, ast.comprehension) else node
    line, column = getattr(at, "lineno", 0), getattr(at, "col_offset", 0)
    within = ".".join(_around(tree, line))
    return Mutant(file, line, column, name, ast.unparse(changed), before, after, within)


def _around(tree: ast.Module, line: int) -> Iterator[str]:
    """Name the classes and functions that a line is in, the outermost first."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = min([node.lineno, *(item.lineno for item in node.decorator_list)])
            if first <= line <= (node.end_lineno or node.lineno):
                yield node.name


def _in_words(node: ast.AST) -> str:
    return " ".join(ast.unparse(node).split())[:160]


def _spared(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what no test could or should notice: annotations, messages, assertions, imports."""
    parts: list[ast.AST | None] = []
    if isinstance(node, ast.FunctionDef):
        parts = [node.returns, *(item.annotation for item in _arguments(node.args))]
        parts += node.decorator_list
    elif isinstance(node, ast.AnnAssign):
        parts = [node.annotation]
    elif isinstance(node, ast.JoinedStr | ast.Assert | ast.Import | ast.ImportFrom):
        parts = [node]
    elif isinstance(node, ast.Call):
        name = _name_of(node.func)
        parts = [node] if name in ("cast", "TypeVar") else []
        parts += [*node.args, *node.keywords] if _is_error(name) else []
    for part in parts:
        if part is not None:
            yield from ast.walk(part)


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]


def _name_of(function: ast.expr) -> str:
    return getattr(function, "id", getattr(function, "attr", ""))


def _is_error(name: str) -> bool:
    return name.endswith("Error") or name in ("_refuse", "require")


def _changes(node: ast.AST) -> Iterator[tuple[str, Change]]:
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARED_AS:
        yield "comparison", _compare_otherwise
    elif isinstance(node, ast.BinOp) and type(node.op) in COMPUTED_AS:
        yield "arithmetic", _compute_otherwise
    elif isinstance(node, ast.BoolOp):
        yield "and/or", _join_otherwise
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
        yield "negation", _negate_twice
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        yield "constant", _count_otherwise
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        yield "condition", _turn_condition
    elif isinstance(node, ast.Return) and node.value is not None:
        yield "return", _return_nothing
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Yield):
        yield "statement", _leave_out
    elif isinstance(node, ast.comprehension) and node.ifs:
        yield "filter", _filter_nothing


def _compare_otherwise(node: ast.AST) -> None:
    assert isinstance(node, ast.Compare)
    node.ops[0] = COMPARED_AS[type(node.ops[0])]()


def _compute_otherwise(node: ast.AST) -> None:
    assert isinstance(node, ast.BinOp)
    node.op = COMPUTED_AS[type(node.op)]()


def _join_otherwise(node: ast.AST) -> None:
    assert isinstance(node, ast.BoolOp)
    node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()


def _negate_twice(node: ast.AST) -> None:
    assert isinstance(node, ast.UnaryOp)
    double: dict[type[ast.unaryop], ast.unaryop] = {ast.Not: ast.Not(), ast.Invert: ast.Invert()}
    node.operand = ast.UnaryOp(double[type(node.op)], node.operand)


def _count_otherwise(node: ast.AST) -> None:
    assert isinstance(node, ast.Constant)
    value = node.value
    assert isinstance(value, bool | int | float)
    node.value = not value if isinstance(value, bool) else value + 1


def _turn_condition(node: ast.AST) -> None:
    assert isinstance(node, ast.If | ast.IfExp | ast.While)
    node.test = ast.UnaryOp(ast.Not(), node.test)


def _return_nothing(node: ast.AST) -> None:
    assert isinstance(node, ast.Return)
    node.value = ast.Constant(None)


def _leave_out(node: ast.AST) -> None:
    assert isinstance(node, ast.Expr)
    node.value = ast.Constant(None)


def _filter_nothing(node: ast.AST) -> None:
    assert isinstance(node, ast.comprehension)
    node.ifs = []
