"""Plain calls that came together and run on the loop: the shortest way there is.

What is the same for all calls of a run is looked up once, and the ends of those that
give a small plain value are told together. Whatever is not like that (keywords, other
values, errors, printed lines) goes the way that every call can go.
"""

from __future__ import annotations

import marshal
from typing import TYPE_CHECKING, Any, Protocol

from ..comms.messages import PICKLED, Done
from ..core.task import DONE, RUNNING, Task
from ..core.telling import TRAVELLING_BYTES
from ..core.tessera import INLINE
from .port import SCALARS

if TYPE_CHECKING:
    from contextvars import ContextVar

    from .journal import Journal

_loads = marshal.loads
_dumps = marshal.dumps


class Inline(Protocol):
    """What runs and ends the calls that are not of the common kind."""

    journal: Journal

    def one(self, task: Task, /) -> None:
        """Run a call from its start to the news of its end."""

    def returned(self, task: Task, value: Any, /) -> None:
        """A call that was started here has returned this."""

    def raised(self, task: Task, error: BaseException, /) -> None:
        """A call that was started here has raised."""

    def ended(self, run: list[Task], /) -> None:
        """These have ended: their states and outcomes are set."""

    def put_back(self, run: list[Task], /) -> None:
        """These have to wait: the one before them goes on as a coroutine."""


def run_inline(
    run: list[Task],
    current: ContextVar[Task | None],
    talk: tuple[Any, Any, Any],
    port: Inline,
) -> None:
    """Run calls of one caller on one tessera, in order.

    Args:
        run: at least one; started as far as the tessera is concerned.
        current: told which call runs.
        talk: containers that are empty as long as nothing was printed.
        port: for all that is not common.
    """
    tessera = run[0].tessera
    instance = tessera.instance
    set_current = current.set
    lines, out, err = talk
    ended: list[Task] = []
    journal = port.journal
    first = run[0]
    mark = tessera.mark if tessera.marked == first.caller else journal.mark(first)
    for index, task in enumerate(run):
        data = task.data
        name = task.method
        value: Any = None
        error: BaseException | None = None
        is_common = data[0] != PICKLED and name[0] != "_"
        if is_common:
            task.state = RUNNING
            view = journal.view
            if task.uid > view[mark]:
                view[mark] = task.uid
            else:
                journal.behind(task, mark)
            set_current(task)
            try:
                # Looked up for each: a call may put another method in its place.
                value = getattr(instance, name)(*_loads(data))
            except BaseException as raised:
                error = raised
            else:
                if type(value) in SCALARS:
                    result = _dumps(value, 2)
                    if len(result) <= TRAVELLING_BYTES and not (lines or out or err):
                        journal.view[mark + 1] = task.uid
                        task.state = DONE
                        task.outcome = Done(task.uid, result)
                        ended.append(task)
                        continue
        # The common calls end here, and the others are told in their order.
        if ended:
            port.ended(ended)
            ended = []
        if not is_common:
            port.one(task)
        elif error is not None:
            port.raised(task, error)
        else:
            port.returned(task, value)
        error = value = None  # what they lead to must not live until the next
        if tessera.lane != INLINE:
            port.put_back(run[index + 1 :])
            break
    if ended:
        port.ended(ended)
    set_current(None)
