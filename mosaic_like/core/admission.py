"""Which calls may have their arguments copied to this runtime: those that fit.

An argument in shared memory is mapped, not copied, and costs nothing more. One that has
to be brought here takes memory, for as long as its call has not ended; until there is
some the call waits, and others that fit go on. The limit is one of the whole host
(``budget.py``), and it is soft, so that nothing waits for ever:

* where no other call here has such memory, the first of those that wait goes anyhow;
* so it does where nothing has changed for a while: those that have some may themselves
  wait for it, in a queue or inside their code.

What a tessera reserves for its life is asked for here too, but nobody waits for its
end: it counts as somebody else's.

Nothing is fetched or sent here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from .task import RUNNING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .task import Task

LEAST_BYTES = 256 * 1024  # smaller arguments are not counted
# Without a change for so long the first goes anyhow.
PATIENCE_S = 1.0
RUNNING_PATIENCE_S = 10.0  # while a call runs that has such memory


class Memory(Protocol):
    """That of the host."""

    def take_memory(self, nbytes: int, *, anyhow: bool = False) -> bool: ...


class Waiting(NamedTuple):
    """A call that waits for memory."""

    task: Task
    nbytes: int
    go: Callable[[], None]
    lasting: bool = False


class Admission:
    """See the module; one for each runtime.

    Attributes:
        waiting: in the order in which they have asked.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.waiting: list[Waiting] = []
        self._having: dict[int, tuple[Task, int]] = {}  # by uid: bytes
        self._changed_s = 0.0

    @property
    def nbytes(self) -> int:
        """That calls of this runtime have."""
        return sum(nbytes for _, nbytes in self._having.values())

    def ask(
        self, task: Task, nbytes: int, go: Callable[[], None], now_s: float
    ) -> bool:
        """A call needs more memory.

        Args:
            task: the call.
            nbytes: of an argument.
            go: what is to be called when there is room, if there is none now.
            now_s: seconds.

        Returns:
            Whether there is room now; else it is found among those of ``again``.
        """
        anyhow = not self.waiting and self._having.keys() <= {task.uid}
        if self._take(task, nbytes, anyhow, now_s):
            return True
        self.waiting.append(Waiting(task, nbytes, go))
        return False

    def reserve(
        self, task: Task, nbytes: int, go: Callable[[], None], now_s: float
    ) -> bool:
        """As ``ask``, for as long as the tessera lives that the task constructs."""
        if not self.waiting and self._memory.take_memory(nbytes):
            return True
        if not self._having:
            self._changed_s = now_s  # from when on it has patience
        self.waiting.append(Waiting(task, nbytes, go, lasting=True))
        return False

    def again(self, now_s: float) -> list[Waiting]:
        """Time has passed, or something was given back: those that go on now."""
        going: list[Waiting] = []
        left: list[Waiting] = []
        refused: int | None = None  # bytes; there is no room for more either
        for waiting in self.waiting:
            task, nbytes, _, lasting = waiting
            if task.settled:
                continue
            anyhow = not left and not going and self._is_stuck(task, now_s, lasting)
            may_fit = anyhow or refused is None or nbytes < refused
            if may_fit and self._take(task, nbytes, anyhow, now_s, lasting):
                going.append(waiting)
            else:
                left.append(waiting)
                if may_fit:
                    refused = nbytes
        self.waiting = left
        return going

    def give_back(self, uid: int, nbytes: int, now_s: float) -> None:
        """A call does not need so much any more."""
        task, had = self._having.pop(uid)
        if had > nbytes:
            self._having[uid] = task, had - nbytes
        self._changed_s = now_s

    def _is_stuck(self, first: Task, now_s: float, lasting: bool) -> bool:
        if not lasting and self._having.keys() <= {first.uid}:
            return True
        running = any(task.state == RUNNING for task, _ in self._having.values())
        patience_s = RUNNING_PATIENCE_S if running else PATIENCE_S
        return now_s - self._changed_s >= patience_s

    def _take(
        self,
        task: Task,
        nbytes: int,
        anyhow: bool,
        now_s: float,
        lasting: bool = False,
    ) -> bool:
        if not self._memory.take_memory(nbytes, anyhow=anyhow):
            return False
        if lasting:
            return True
        _, had = self._having.get(task.uid, (task, 0))
        self._having[task.uid] = task, had + nbytes
        self._changed_s = now_s
        return True
