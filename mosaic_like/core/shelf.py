"""The values that a warehouse keeps for others, and the keys that some are under.

A value is kept as it came: this file passes it on and never looks inside. Each request
is a task of the shelf: a put is done at once, with its own argument for its value, and
from then on it is held, fetched and freed as the result of any call.

A key is *taken* by a task until what it computes has replaced the value:

    request       key free                       key taken
    PUT_KEY       kept; ValueError if it exists  waits in line
    GET_KEY       the value; LookupError         the same: the value that is there
    TAKE_KEY      takes it: the value, or None   waits in line
    REPLACE_KEY   cannot happen                  waits for its task; then the next one
    DROP_KEY      forgotten; LookupError         waits in line

A key is free again when the task that was to replace it has ended in any way, or when
nobody holds the taking any more and nothing came to replace it: its maker was lost, or
thought better of it. Since a REPLACE_KEY holds the taking until it is here, the count
of holders is enough to see that.
"""

from __future__ import annotations

import marshal
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from ..comms import messages as wire
from ..comms.messages import Done
from ..errors import CycleError, ProtocolError, RuntimeDisconnectedError
from .payloads import Arrived
from .task import PENDING, Task, received
from .tessera import Tessera

if TYPE_CHECKING:
    from collections.abc import Callable

    from .tessera import Runner
    from .worker import WorkerState

_NONE = b"N"  # None, as the serializer has it
NEAREST = 3  # keys that are named where one is missing


class Keeper(Protocol):
    """What the warehouse does for its shelf."""

    def stored(self, message: wire.Submit, buffers: Any, sender: int) -> Any:
        """The value that came with a request, to be kept and sent as it is.

        If it is still coming an Arrived, whose buffers will be that.
        """

    def locate(self, arrived: Arrived, then: Callable[[], None]) -> None:
        """Wait for the rest of it."""

    def passed_on(self, argument: Any) -> Any:
        """The same of a task that has ended well at another runtime."""

    def publish(self, task: Task) -> None:
        """Give all other warehouses a copy of the value of a task that is done."""

    def unpublish(self, uids: list[int]) -> None:
        """Have their copies forgotten, where they were published."""


class _Key:
    """What is under a key, who has taken it, and who waits to do something with it."""

    __slots__ = ("counted", "line", "replacing", "taken", "value")

    def __init__(self) -> None:
        self.value: Any = None  # bytes or a payload; None: nothing, the key is not used
        self.counted: Any = None  # the memory that it takes; see Task.counted
        self.taken = 0  # uid of the task that took it
        self.replacing: Task | None = None  # what is to replace its value
        self.line: deque[Task] = deque()

    def hold(self, task: Task) -> None:
        """The value of a task that is kept is what is under it from now on."""
        self.value = task.outcome.data if task.result is None else task.result
        self.counted = task.counted

    def clear(self) -> None:
        """Nothing is under it."""
        self.value = self.counted = None


class Shelf(Tessera):
    """What is kept here; the tessera of all requests for it."""

    __slots__ = ("_lines", "_port", "_taken", "_worker", "keys", "replacing")

    def __init__(self, port: Keeper, worker: WorkerState, runner: Runner) -> None:
        super().__init__(0, 0, wire.Options(name="warehouse"), runner)
        self._port = port
        self._worker = worker
        self.instance = self
        self.move("built")
        self.keys: dict[str, _Key] = {}
        self._taken: dict[int, str] = {}  # by uid of the task that took it
        # Requests of a runtime since one whose value is still coming, that one first.
        self._lines: dict[int, deque[tuple[Task, wire.Submit]]] = {}
        # By uid of the taking: what came to replace, perhaps before its turn.
        self.replacing: dict[int, Task] = {}

    # -- requests ----------------------------------------------------------------------

    def request(self, message: wire.Submit, buffers: Any, sender: int) -> None:
        """Something is to be kept, found, replaced or dropped."""
        worker = self._worker
        assert message.extra is not None, "its kind brought it here"
        task = received(message, sender, self, buffers)
        kind = message.extra.kind
        worker.tasks[task.uid] = task
        worker.holders.add(task.uid)
        if kind in (wire.PUT, wire.PUT_KEY):
            try:
                task.raw = self._port.stored(message, buffers, sender)
            except ProtocolError as error:
                self._refuse(task, error)
                return
            task.data = b""
            if type(task.raw) is Arrived:
                self._lines.setdefault(sender, deque())
                task.buffers = task.raw
                task.missing = 1
                self._port.locate(task.raw, lambda: self._landed(task, sender))
        if sender in self._lines:
            self._lines[sender].append((task, message))
        else:
            self._perform(task, message, sender)

    def _landed(self, task: Task, sender: int) -> None:
        """A value has come in full, or never will, or its task has ended before."""
        arrived = task.raw
        task.missing = 0
        if not task.settled and arrived.size:
            why = f"its value is lost: {arrived.shared.why}"
            self._refuse(task, RuntimeDisconnectedError(why))
        elif not task.settled:
            task.raw = arrived.buffers
        line = self._lines.get(sender, ())
        while line and not line[0][0].missing:
            waiting, message = line.popleft()
            if not waiting.settled:
                self._perform(waiting, message, sender)
        if not line:
            self._lines.pop(sender, None)

    def _perform(self, task: Task, message: wire.Submit, sender: int) -> None:
        """Its turn among the requests of a runtime has come."""
        worker = self._worker
        assert message.extra is not None, "its kind brought it here"
        kind = message.extra.kind
        if kind == wire.PUT:
            worker.given.keep(task, task.raw, send=False)
        elif kind == wire.GET_KEY:
            self._get(task)
        elif kind == wire.DROP:
            self._drop(task)
        elif kind == wire.PUBLISH:
            self._publish(task)
        elif kind == wire.REPLACE_KEY:
            self._replace_later(task, message, sender)
        else:
            key = self.keys.setdefault(task.method, _Key())
            if key.taken or key.line:
                key.line.append(task)
                self._break_cycle(task)
            else:
                self._act(task, key)
                self._tidy(task.method)

    def _act(self, task: Task, key: _Key) -> None:
        """Its turn with a free key has come."""
        assert task.extra is not None, "see request"
        kind = task.extra.kind
        if kind == wire.TAKE_KEY:
            key.taken = task.uid
            self._taken[task.uid] = task.method
            key.replacing = self.replacing.get(task.uid)
            self._worker.given.keep(task, _NONE if key.value is None else key.value)
        elif kind == wire.PUT_KEY and key.value is not None:
            self._refuse(
                task,
                ValueError(
                    f"there is a value under {task.method!r} already, and values are "
                    "written once: drop it first, or replace it by mosaic.exec()"
                ),
            )
        elif kind == wire.PUT_KEY:
            self._worker.given.keep(task, task.raw)
            key.hold(task)
        elif key.value is None:
            self._missing(task)
        else:
            key.clear()
            self._worker.given.keep(task, _NONE, send=True)

    def _get(self, task: Task) -> None:
        key = self.keys.get(task.method)
        if key is None or key.value is None:
            self._missing(task)
        else:
            self._worker.given.keep(task, key.value, send=True)

    def _missing(self, task: Task) -> None:
        from difflib import get_close_matches

        used = [name for name, key in self.keys.items() if key.value is not None]
        near = get_close_matches(task.method, used, NEAREST, 0.6)
        hint = f"; there is {', '.join(map(repr, near))}" if near else ""
        if not used:
            hint = "; no key is used"
        self._refuse(
            task, LookupError(f"there is no value under the key {task.method!r}{hint}")
        )

    def _refuse(self, task: Task, error: Exception) -> None:
        task.raw = None
        self._worker.refuse(task, error)

    def _drop(self, task: Task) -> None:
        dropped = self._meant(task)
        if dropped is not None:
            self._worker.given.discard(dropped, LookupError("its value was dropped"))
            self._port.unpublish([dropped.uid])
            self._worker.given.keep(task, _NONE, send=True)

    def _publish(self, task: Task) -> None:
        published = self._meant(task)
        if published is not None:
            self._port.publish(published)
            self._worker.given.keep(task, _NONE, send=True)

    def _meant(self, task: Task) -> Task | None:
        """The task of the shelf whose uid is in the request; refused if it is gone."""
        meant = self._worker.tasks.get(marshal.loads(task.data))
        if meant is not None and meant.tessera is self and type(meant.outcome) is Done:
            return meant
        self._refuse(task, LookupError("it was dropped, or nobody holds it any more"))
        return None

    # -- taking and replacing ----------------------------------------------------------

    def _replace_later(self, task: Task, message: wire.Submit, sender: int) -> None:
        taking: int = marshal.loads(task.data)
        self.replacing[taking] = task
        task.rare = taking
        name = self._taken.get(taking)
        if name is not None:
            self.keys[name].replacing = task
            for waiting in [t for k in self.keys.values() for t in k.line]:
                self._break_cycle(waiting)
        self._worker.arguments.gather(task, message, sender)

    def _break_cycle(self, task: Task) -> None:
        """Refuse what waits for the end of the very call inside which it was made.

        That is so if the key was taken for a call around it, or for one inside which
        something else waits for such a key.
        """
        inside = task.inside
        if inside is None:
            return
        found = {task.method}
        unseen = [task.method]
        while unseen:
            making = self._making(unseen.pop())
            if making in inside:
                self._waits_for_itself(task)
                return
            for name, key in self.keys.items():
                if name not in found and any(
                    making in (waiting.inside or ()) for waiting in key.line
                ):
                    found.add(name)
                    unseen.append(name)

    def before(self, task: Task) -> list[Task]:
        """What has to end before a request that waits in line for its key."""
        key = self.keys.get(task.method)
        if key is None or task not in key.line:
            return []
        place = key.line.index(task)
        ahead = [key.replacing] if place == 0 else [key.line[place - 1]]
        if place and (replacing := self.replacing.get(key.line[place - 1].uid)):
            ahead.append(replacing)
        return [other for other in ahead if other is not None]

    def _making(self, name: str) -> int:
        """The uid of the call that makes the next value; 0 if that is not known."""
        replacing = self.keys[name].replacing
        if replacing is None or replacing.extra is None:
            return 0
        return replacing.extra.references[0].uid

    def _waits_for_itself(self, task: Task) -> None:
        self.remove(task)
        self._refuse(
            task,
            CycleError(
                f"{task.method!r} is being replaced by an exec() whose function has "
                "asked for this, and so would wait for itself: ask when that has ended",
                str(task.uid),
            ),
        )

    def arguments_here(self, task: Task) -> None:
        """The task whose value is to be under the key has ended well."""
        name = self._taken.get(task.rare)
        if name is None:
            self.remove(task)
            self._refuse(task, LookupError("the key was not taken for it"))
            return
        self._worker.given.keep(task, self._port.passed_on(task.arguments[0]))
        self.keys[name].hold(task)
        self.remove(task)

    def remove(self, task: Task) -> None:
        """It has ended, or is cancelled: it does not hold up others any more."""
        name = task.method
        key = self.keys.get(name)
        if key is not None and task in key.line:
            key.line.remove(task)
            self._tidy(name)
            return
        taking = task.rare
        if self.replacing.get(taking) is task:
            del self.replacing[taking]
            if taking in self._taken:
                self._release(taking)

    def sweep(self) -> None:
        """Free the keys that were taken by tasks that nobody holds any more."""
        tasks = self._worker.tasks
        while self._taken:
            for taking, name in self._taken.items():
                if taking not in tasks and self.keys[name].replacing is None:
                    self._release(taking)  # the next of the line may be like it
                    break
            else:
                return

    def _release(self, taking: int) -> None:
        name = self._taken.pop(taking)
        key = self.keys[name]
        key.taken = 0
        key.replacing = None
        while key.line and not key.taken:
            task = key.line.popleft()
            if task.state == PENDING:
                self._act(task, key)
        self._tidy(name)

    def _tidy(self, name: str) -> None:
        key = self.keys[name]
        if key.value is None and not key.taken and not key.line:
            del self.keys[name]
