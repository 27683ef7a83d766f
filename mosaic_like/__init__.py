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
    from .launch.hosting import connect, init, interactive, stop
    from .launch.running import run
    from .proxies.array import ArrayProxy, TaskArrayProxy
    from .proxies.base import Tessera
    from .proxies.decorator import remote, tessera
    from .proxies.functions import barrier, call, close, info, kill, logger, ready
    from .proxies.parameter import Parameter
    from .proxies.task import TaskProxy
    from .proxies.tessera import TesseraProxy, get_attr, set_attr
    from .proxies.waiting import as_completed, gather, wait
    from .proxies.warehouse import WarehouseObject, drop, exec, get, put
    from .runtimes.context import current_task, current_tessera
    from .session import current as runtime

__all__ = [
    "AddressInUse",
    "ArrayProxy",
    "BlockedError",
    "ConcurrencyError",
    "ConflictError",
    "ConnectError",
    "CycleError",
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
    "TaskAbortedError",
    "TaskArrayProxy",
    "TaskCancelledError",
    "TaskError",
    "TaskProxy",
    "TaskState",
    "TaskTimeoutError",
    "Tessera",
    "TesseraProxy",
    "UpstreamError",
    "Verdict",
    "WarehouseObject",
    "WorkerDied",
    "WorkerOutOfMemory",
    "as_completed",
    "barrier",
    "call",
    "close",
    "connect",
    "current_task",
    "current_tessera",
    "drop",
    "exec",
    "gather",
    "get",
    "get_attr",
    "info",
    "init",
    "interactive",
    "kill",
    "logger",
    "put",
    "ready",
    "remote",
    "run",
    "runtime",
    "set_attr",
    "stop",
    "tessera",
    "wait",
]

# Where each public name is: module, then the names in it. Those of errors are all that
# are in no other line. The imports above are the same for type checkers.
_MODULES = {
    "core.task": "TaskState",
    "launch.hosting": "connect init interactive stop",
    "launch.running": "run",
    "proxies.array": "ArrayProxy TaskArrayProxy",
    "proxies.base": "Tessera",
    "proxies.decorator": "remote tessera",
    "proxies.functions": "barrier call close info kill logger ready",
    "proxies.parameter": "Parameter",
    "proxies.task": "TaskProxy",
    "proxies.tessera": "TesseraProxy get_attr set_attr",
    "proxies.waiting": "as_completed gather wait",
    "proxies.warehouse": "WarehouseObject drop exec get put",
    "runtimes.context": "current_task current_tessera",
    "session": "runtime",
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
