"""The part of Ray's interface that benchmark.cluster uses, in this process, for fast tests.

A task runs when somebody waits for it, one after another, or ends in a trouble that a test names.
tests/cluster/test_cluster.py runs the same code on Ray itself.
"""

import contextlib
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class RayError(Exception):
    pass


class RayTaskError(RayError):
    """A task's own error, as its cause."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"ray::train() (pid=1, ip=127.0.0.0)\n{cause}")
        self.cause = cause


class ObjectStoreFullError(RayError):
    pass


class OutOfDiskError(RayError):
    pass


class Reference:
    """A value, or a task that gives it once somebody waits."""

    def __init__(self, make: Callable[[], Any], options: dict[str, Any] | None = None) -> None:
        self._make, self.options = make, options or {}
        self.is_done = self.is_cancelled = False
        self._value: Any = None

    def value(self) -> Any:
        if not self.is_done:
            self.is_done = True
            try:
                self._value = self._make()
            except RayError as error:
                self._value = error
            except Exception as error:  # noqa: BLE001
                self._value = RayTaskError(error)
        if isinstance(self._value, RayError):
            raise self._value
        return self._value


class Remote:
    """A function or class that `ray.remote` made remote."""

    def __init__(self, ray: "StandIn", what: Any, options: dict[str, Any]) -> None:
        self._ray, self._what, self._options = ray, what, options

    def options(self, **more: Any) -> "Remote":
        return Remote(self._ray, self._what, self._options | more)

    def remote(self, *arguments: Any) -> Any:
        if isinstance(self._what, type):
            return Actor(self._what(*arguments))
        resolved = [a.value() if isinstance(a, Reference) else a for a in arguments]
        task = Reference(lambda: self._ray.task(self._what, resolved), self._options)
        self._ray.sent.append(task)
        return task


class Actor:
    def __init__(self, instance: Any) -> None:
        self._instance = instance

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._instance, name)
        return SimpleNamespace(remote=lambda *arguments: stored(method(*arguments)))


def stored(value: Any) -> Reference:
    return Reference(lambda: value)


class StandIn:
    """`ray`, with as many nodes as its resources say."""

    exceptions = SimpleNamespace(
        RayError=RayError, RayTaskError=RayTaskError, ObjectStoreFullError=ObjectStoreFullError,
        OutOfDiskError=OutOfDiskError,
    )  # fmt: skip
    util = SimpleNamespace(
        scheduling_strategies=SimpleNamespace(
            NodeAffinitySchedulingStrategy=lambda node, soft: SimpleNamespace(node=node, soft=soft)
        )
    )

    def __init__(self) -> None:
        self.resources: tuple[dict[str, float], ...] = ({"CPU": 1.0},)
        self.sent: list[Reference] = []
        """Every task, in the order of being sent."""
        self.troubles: deque[Exception] = deque()
        """What the next runs end in, instead of being trained."""
        self.is_up = False
        self.init_error: Exception | None = None
        self.put_error: Exception | None = None
        self.on_train: Callable[[], None] = lambda: None

    def trained(self) -> list[Reference]:
        """The tasks that are runs; the others ask for versions."""
        return [task for task in self.sent if "name" in task.options]

    def init(self, **_options: Any) -> None:
        if self.init_error is not None:
            raise self.init_error
        self.is_up = True

    def shutdown(self) -> None:
        self.is_up = False

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {"NodeID": f"node{n}", "Alive": True, "Resources": own,
             "NodeManagerHostname": f"host{n}", "NodeManagerAddress": f"127.0.0.{n}"}
            for n, own in enumerate(self.resources)
        ]  # fmt: skip

    def cluster_resources(self) -> dict[str, float]:
        return {name: n for own in self.resources for name, n in own.items()}

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "node0")

    def remote(self, **options: Any) -> Callable[[Any], Remote]:
        return lambda what: Remote(self, what, options)

    def put(self, value: Any) -> Reference:
        if self.put_error is not None:
            raise self.put_error
        return stored(value)

    def get(self, what: Any, timeout: float | None = None) -> Any:
        return [one.value() for one in what] if isinstance(what, list) else what.value()

    def wait(self, references: list[Reference], timeout: float) -> tuple[list[Any], list[Any]]:
        if references and not any(one.is_done for one in references):
            with contextlib.suppress(RayError):
                references[0].value()
        ended = [one for one in references if one.is_done]
        return ended, [one for one in references if one not in ended]

    def cancel(self, task: Reference) -> None:
        task.is_cancelled = True

    def task(self, function: Callable[..., Any], arguments: list[Any]) -> Any:
        if function.__name__ == "train":
            self.on_train()
            if self.troubles:
                raise self.troubles.popleft()
        return function(*arguments)
