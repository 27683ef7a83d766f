"""Python objects as remote actors.

``@tessera`` marks a class, ``Klass.remote(...)`` makes one in a worker process, each
method call gives a task at once.
"""

from .errors import (
    AddressInUse,
    BlockedError,
    ConcurrencyError,
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
    TaskAbortedError,
    TaskCancelledError,
    TaskError,
    TaskTimeoutError,
    UpstreamError,
    Verdict,
    WorkerDied,
    WorkerOutOfMemory,
)

__version__ = "0.1.0"

from .launch.local import run
from .proxies.decorator import remote, tessera
from .proxies.waiting import as_completed, gather, wait
