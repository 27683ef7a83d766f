"""How a task is shown, and what is said to who takes it for its value: texts alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..core.payloads import Arrived
from ..core.task import DONE, PREPARE, STATES
from ..ids import short
from .history import NO_WORKER

if TYPE_CHECKING:
    from .task import TaskProxy


def line_of(task: TaskProxy[Any]) -> str:
    """What ``repr`` gives: the state, where it is, and what to do next."""
    call = task._call
    where = short(task.runtime_id)
    at = f" on {where}" if where else ""
    if call.state == DONE:
        held = call.result.size if type(call.result) is Arrived else 0
        what = f"done · {held:,} bytes{at}" if held else f"done{at}"
        return f"<Task {task.name} · {what} · await t.result()>"
    if call.state > DONE:
        return f"<Task {task.name} · {STATES[call.state]}>"
    if call.state == PREPARE:
        return f"<Task {task.name} · prepared · t.submit(), or await it>"
    rare = call.rare
    if rare is not None and rare.running_s:
        return f"<Task {task.name} · running {time.time() - rare.running_s:.1f} s{at}>"
    if rare is not None and rare.reason is not None:
        which = f" {rare.attempt - 1}" if rare.attempt > 1 else ""
        return f"<Task {task.name} · pending, {rare.reason}{which}{at}>"
    if task.reason == NO_WORKER:
        return f"<Task {task.name} · pending, {NO_WORKER}>"
    return f"<Task {task.name} · pending{at}>"


def forgotten(task: TaskProxy[Any], hint: str = "") -> str:
    """What to say where ``await task.result()`` was forgotten; ``hint`` is added."""
    return (
        f"this is a Task ({task.name}), not its value; write 'await ….result()' to get "
        f"the value{hint}"
    )
