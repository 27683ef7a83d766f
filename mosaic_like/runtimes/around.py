"""What is done around a function where it runs: the questions of ``tasks.attempt``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..core.task import function_name
from ..ids import task_name
from .port import CURRENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.task import Task
    from .actor import ActorRuntime


class Around:
    """Of one runtime; from the thread that runs the call."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        # Calls whose prints are log lines of the head, or are not shown, by uid.
        self.prints: dict[int, bool] = {}

    @property
    def uid(self) -> str:
        """Of the call that runs here."""
        return task_name(self._task().first_uid)

    @property
    def name(self) -> str:
        """Of its function."""
        return function_name(self._task().method)

    def end_as(self, state: int, reason: str) -> None:
        """The call is about to end so: its caller shows the reason."""
        task = self._task()
        self._runtime.tell(task, wire.Ending(task.uid, state, reason))

    def printing(self, is_logged: bool) -> Callable[[], Any]:
        """From now on what the call prints is logged, or is not shown at all.

        Returns:
            Ends that; to be called when the function has returned.
        """
        task = self._task()
        self.prints[task.uid] = is_logged

        def undo() -> None:
            self._runtime.finish_prints(task)
            self.prints.pop(task.uid, None)

        return undo

    def _task(self) -> Task:
        task = CURRENT.get()
        assert task is not None, "asked in a call"
        return task
