"""``visualize``: what a function would submit, without running any of it.

While it runs, tasks are not sent but written down, and give stand-ins: objects that can
be passed on, awaited and taken apart, and that nothing can be computed from.
"""

from __future__ import annotations

import contextvars
import inspect
from typing import TYPE_CHECKING, Any

from ..core.task import DONE
from ..proxies.array import TaskArrayProxy
from .annotations import Marked, Unmapped
from .graph import Edge, Graph, Node
from .options import UNSET

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from .function import Task

_DEPTH = 20  # that stand-ins are looked for inside arguments


class Drawing:
    """What has been written down so far."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.edges: list[Edge] = []

    def call(
        self,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str = "",
    ) -> Any:
        """A call of a task: its ``viz_value``, or a stand-in.

        Raises:
            TypeError: the arguments do not fit the signature.
        """
        task._method.check("", args, kwargs)
        key = str(len(self.nodes) + 1)
        self.nodes.append(Node(key, name or task.name))
        options = task._options
        mentioned = dict.fromkeys(_stand_ins((args, kwargs), _DEPTH), False)
        for other in _stand_ins(options.after, _DEPTH):
            mentioned.setdefault(other, True)
        self.edges += [
            Edge(k, key, orders_only) for k, orders_only in mentioned.items()
        ]
        value = options.viz_value
        return StandIn(self, key, task.name) if value is UNSET else value

    def mapped(
        self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A ``map`` over what is not known: one call; UNSET: all is known."""
        if any(type(value) is StandIn for value in (*args, *kwargs.values())):
            return self.call(task, args, kwargs, f"{task.name}.map")
        return UNSET


# Of the function that is drawn in this context.
DRAWING: contextvars.ContextVar[Drawing | None]
DRAWING = contextvars.ContextVar("DRAWING", default=None)


class _Done:
    """The call of a stand-in, for those who wait: it has ended."""

    state = DONE
    settled = True


class StandIn:
    """In place of a task and of its value, while a function is drawn."""

    __mosaic_drawn__ = True
    _call = _Done()

    def __init__(self, drawing: Drawing, key: str, name: str) -> None:
        self._drawing = drawing
        self._key = key
        self._name = name

    def __await__(self) -> Generator[Any, None, StandIn]:
        yield from ()  # it is a generator, which has nothing to wait for
        return self

    async def result(self) -> StandIn:
        return self

    async def exception(self) -> None:
        return None

    def wait(self, timeout: float | None = None) -> StandIn:
        return self

    get = wait

    def submit(self, *, wait: bool = True) -> StandIn:
        return self

    def require(self, *others: Any) -> StandIn:
        edges = [Edge(k, self._key, True) for k in _stand_ins(others, _DEPTH)]
        self._drawing.edges += edges
        return self

    def block(self, *others: Any) -> StandIn:
        for other in others:
            other.require(self)
        return self

    def then(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        from .function import Task
        from .marking import task as as_task

        if isinstance(fn, StandIn):
            return fn.require(self)
        made = fn if isinstance(fn, Task) else as_task(fn)
        return self._drawing.call(made, (self, *args), kwargs)

    @property
    def outputs(self) -> StandIn:
        return self

    @property
    def done(self) -> StandIn:
        return self

    @property
    def remote(self) -> StandIn:
        return self

    def __getitem__(self, key: Any) -> StandIn:
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> StandIn:
        return self

    def __iter__(self) -> Iterator[Any]:
        raise self._unknown("how many items it has")

    def __len__(self) -> int:
        raise self._unknown("its length")

    def __bool__(self) -> bool:
        raise self._unknown("whether it is true")

    def _unknown(self, what: str) -> TypeError:
        return TypeError(
            f"while it is drawn, {self._name} is not run: {what} is not known; give "
            f"the task a value for this: @task(viz_value=...)"
        )

    def __repr__(self) -> str:
        return f"<stands for {self._name}>"


def _stand_ins(value: Any, depth: int) -> Iterator[str]:
    """The nodes that arguments mention."""
    if type(value) is StandIn:
        yield value._key
    elif depth:
        if isinstance(value, dict):
            value = (*value, *value.values())
        if isinstance(value, tuple | list | set | frozenset):
            for item in value:
                yield from _stand_ins(item, depth - 1)
        elif isinstance(value, Unmapped):
            yield from _stand_ins(value.value, depth - 1)
        elif isinstance(value, Marked | TaskArrayProxy):
            inner = value._task if isinstance(value, Marked) else list(value)
            yield from _stand_ins(inner, depth - 1)


def visualize(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Graph:
    """What a function would submit, as a graph; no task is run, none is sent.

    Plain code of it runs. ``submit``, ``task`` and the like are written down and give
    the task's ``viz_value``, or a stand-in if it has none; ``map`` over a stand-in is
    one node. There need be no runtime.

    Args:
        fn: a function or coroutine function, which may only await tasks.
        args, kwargs: of it.

    Raises:
        TypeError: ``fn`` cannot be called; or the code wants to know more of a stand-in
            than there is: whether it is true, its length, its items. Give the task that
            it is of a ``viz_value``.
        RuntimeError: it awaits something that is no task.

    >>> import mosaic_like as mosaic
    >>> @mosaic.task
    ... def load(name): ...
    >>> @mosaic.task
    ... def join(parts): ...
    >>> def pipeline():
    ...     return join.submit([load.submit("a"), load.submit("b")])
    >>> mosaic.visualize(pipeline)
    <Graph of 3 tasks, 2 edges>
    """
    _check_function(fn)
    drawing = Drawing()
    token = DRAWING.set(drawing)
    try:
        made = fn(*args, **kwargs)
        if inspect.iscoroutine(made):
            _finish(made)
    finally:
        DRAWING.reset(token)
    return Graph(drawing.nodes, drawing.edges)


def _check_function(fn: Any) -> None:
    if not callable(fn):
        hint = "the tasks that there are are drawn by mosaic.Graph.of(*tasks)"
        raise TypeError(f"visualize() takes a function to draw, not {fn!r}; {hint}")


def _finish(coroutine: Any) -> None:
    """Run a coroutine that awaits nothing but stand-ins."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError(
        f"{coroutine.__qualname__} awaits something that is no task: what is drawn can "
        "wait for tasks alone; leave that out, or pass what it would give"
    )
