"""Python objects as remote actors.

``@tessera`` marks a class, ``Klass.remote(...)`` makes one in a worker process, each
method call gives a task at once.

Importing the package imports nothing else: each public name brings its module when it
is first used, by the table at the end of this file.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .core.task import TaskState
    from .errors import (
        AddressInUse,
        BlockedError,
        ConcurrencyError,
        ConflictError,
        ConnectError,
        CycleError,
        InvalidTransitionError,
        MemoryOverflowError,
        MonitorLost,
        MosaicError,
        NodeLost,
        PoisonedCall,
        ProtocolError,
        RemoteError,
        RuntimeDisconnectedError,
        SerializationError,
        StaleError,
        TaskAbortedError,
        TaskCancelledError,
        TaskError,
        TaskTimeoutError,
        UpstreamError,
        Verdict,
        WorkerDied,
        WorkerOutOfMemory,
    )
    from .launch.alone import local
    from .launch.deadlines import on_deadline
    from .launch.executor import Executor
    from .launch.hosting import connect, init, interactive, stop
    from .launch.run import run
    from .proxies.array import ArrayProxy, TaskArrayProxy
    from .proxies.attributes import get_attr, set_attr
    from .proxies.base import Tessera
    from .proxies.decorator import remote
    from .proxies.functions import barrier, call, close, info, kill, logger, ready
    from .proxies.linking import link
    from .proxies.marking import tessera
    from .proxies.monitoring import TesseraChange, TesseraEvent, monitor
    from .proxies.parameter import Parameter
    from .proxies.records import ExceptionInfo, ExecutionInfo, TaskInfo
    from .proxies.restarts import checkpoint
    from .proxies.supervising import supervise
    from .proxies.task import TaskProxy
    from .proxies.tessera import TesseraProxy
    from .proxies.waiting import as_completed, gather, wait
    from .proxies.warehouse import WarehouseObject, drop, exec, get, put
    from .runtimes.checkpoint_files import read_checkpoint
    from .runtimes.context import current_task, current_tessera
    from .session import current as runtime
    from .tasks.annotations import allow_failure, quote, unmapped
    from .tasks.backoff import exponential_backoff
    from .tasks.caching import input_hash
    from .tasks.concurrency import Concurrency, limits, tags
    from .tasks.function import Task
    from .tasks.graph import Graph
    from .tasks.group import TaskGroup
    from .tasks.making import make
    from .tasks.marking import task
    from .tasks.options import UNSET
    from .tasks.queue import TaskQueue
    from .tasks.recording import record
    from .tasks.tracing import visualize

__all__ = [
    "UNSET",
    "AddressInUse",
    "ArrayProxy",
    "BlockedError",
    "Concurrency",
    "ConcurrencyError",
    "ConflictError",
    "ConnectError",
    "CycleError",
    "ExceptionInfo",
    "ExecutionInfo",
    "Executor",
    "Graph",
    "InvalidTransitionError",
    "MemoryOverflowError",
    "MonitorLost",
    "MosaicError",
    "NodeLost",
    "Parameter",
    "PoisonedCall",
    "ProtocolError",
    "RemoteError",
    "RuntimeDisconnectedError",
    "SerializationError",
    "StaleError",
    "Task",
    "TaskAbortedError",
    "TaskArrayProxy",
    "TaskCancelledError",
    "TaskError",
    "TaskGroup",
    "TaskInfo",
    "TaskProxy",
    "TaskQueue",
    "TaskState",
    "TaskTimeoutError",
    "Tessera",
    "TesseraChange",
    "TesseraEvent",
    "TesseraProxy",
    "UpstreamError",
    "Verdict",
    "WarehouseObject",
    "WorkerDied",
    "WorkerOutOfMemory",
    "allow_failure",
    "as_completed",
    "barrier",
    "call",
    "checkpoint",
    "close",
    "connect",
    "current_task",
    "current_tessera",
    "drop",
    "exec",
    "exponential_backoff",
    "gather",
    "get",
    "get_attr",
    "info",
    "init",
    "input_hash",
    "interactive",
    "kill",
    "limits",
    "link",
    "local",
    "logger",
    "make",
    "monitor",
    "on_deadline",
    "put",
    "quote",
    "read_checkpoint",
    "ready",
    "record",
    "remote",
    "run",
    "runtime",
    "set_attr",
    "stop",
    "supervise",
    "tags",
    "task",
    "tessera",
    "unmapped",
    "visualize",
    "wait",
]

# Where each public name is: module, then the names in it. Those of errors are all that
# are in no other line. The imports above are the same for type checkers.
_MODULES = {
    "core.task": "TaskState",
    "launch.alone": "local",
    "launch.deadlines": "on_deadline",
    "launch.executor": "Executor",
    "launch.hosting": "connect init interactive stop",
    "launch.run": "run",
    "proxies.array": "ArrayProxy TaskArrayProxy",
    "proxies.attributes": "get_attr set_attr",
    "proxies.base": "Tessera",
    "proxies.decorator": "remote",
    "proxies.functions": "barrier call close info kill logger ready",
    "proxies.marking": "tessera",
    "proxies.linking": "link",
    "proxies.monitoring": "TesseraChange TesseraEvent monitor",
    "proxies.parameter": "Parameter",
    "proxies.records": "ExceptionInfo ExecutionInfo TaskInfo",
    "proxies.restarts": "checkpoint",
    "proxies.supervising": "supervise",
    "proxies.task": "TaskProxy",
    "proxies.tessera": "TesseraProxy",
    "proxies.waiting": "as_completed gather wait",
    "proxies.warehouse": "WarehouseObject drop exec get put",
    "runtimes.checkpoint_files": "read_checkpoint",
    "runtimes.context": "current_task current_tessera",
    "session": "runtime",
    "tasks.annotations": "allow_failure quote unmapped",
    "tasks.backoff": "exponential_backoff",
    "tasks.caching": "input_hash",
    "tasks.concurrency": "Concurrency limits tags",
    "tasks.function": "Task",
    "tasks.graph": "Graph",
    "tasks.group": "TaskGroup",
    "tasks.making": "make",
    "tasks.marking": "task",
    "tasks.options": "UNSET",
    "tasks.queue": "TaskQueue",
    "tasks.recording": "record",
    "tasks.tracing": "visualize",
}
_RENAMED = {"runtime": "current"}  # public name, and that in its module


if not TYPE_CHECKING:  # or every name would be one, and none misspelt

    def __getattr__(name: str) -> Any:
        """Reached once for each name; from then on it is an ordinary global."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        found = [m for m, names in _MODULES.items() if name in names.split()]
        module = import_module(f".{found[0] if found else 'errors'}", __name__)
        value = globals()[name] = getattr(module, _RENAMED.get(name, name))
        return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
