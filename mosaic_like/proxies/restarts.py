"""Tesserae that are built again when their worker is lost: options and checkpoints.

Here they are checked and made into what travels; what they do is in
``core/restarts.py``.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ..comms.messages import Supervised
from ..core.retries import seconds_of
from .handles import SupervisedHandle, TesseraHandle
from .methods import NOTHING
from .task import TaskProxy
from .tessera import TesseraProxy

if TYPE_CHECKING:
    from collections.abc import Mapping

CHECKPOINT, RESTORE = "__checkpoint__", "__restore__"
_OF_RESTARTS = ("restart_within", "checkpoint_calls", "checkpoint_s")


def check_restarts(options: Mapping[str, Any]) -> None:
    """Raise for those that are out of range, or that would do nothing.

    Raises:
        TypeError: one of the wrong type.
        ValueError: out of range; or it needs ``max_restarts``, or does not go with it.
    """
    most = options.get("max_restarts", 0)
    if most < 0:
        raise ValueError(f"option 'max_restarts': found {most}, expected at least 0")
    for name in ("restart_within", "checkpoint_s"):
        value = options.get(name)
        if value is not None and not seconds_of(value, f"option {name!r}"):
            raise ValueError(
                f"option {name!r}: found {value!r}, expected more than 0 seconds, or "
                "None"
            )
    calls = options.get("checkpoint_calls")
    if calls is not None and calls < 1:
        raise ValueError(
            f"option 'checkpoint_calls': found {calls}, expected at least 1, or None"
        )
    if most and options.get("detached"):
        raise ValueError(
            "options 'detached' and 'max_restarts' do not go together: the program "
            "that makes a tessera builds it again, and this one is to outlive it; make "
            "it in the program that lives longest, without 'detached'"
        )
    for name in _OF_RESTARTS:
        if options.get(name) is not None and not most:
            raise ValueError(
                f"option {name!r} is for tesserae that are built again; say how often "
                "by max_restarts=n"
            )


def supervised_of(options: Mapping[str, Any], cls: type) -> Supervised | None:
    """What travels with the construction; None: it is not built again.

    Raises:
        TypeError: the class cannot be checkpointed as the options want it.
    """
    most = options.get("max_restarts", 0)
    if not most:
        return None
    calls, seconds = options.get("checkpoint_calls"), options.get("checkpoint_s")
    if calls is not None or seconds is not None:
        check_hooks(cls)
    return Supervised(
        uid=0,
        most=most,
        within_s=options.get("restart_within"),
        idempotent=options.get("idempotent", False),
        checkpoint_calls=calls or 0,
        checkpoint_s=seconds or 0.0,
    )


def check_hooks(cls: type) -> None:
    """Raise if the state of its objects cannot be written down and read.

    Raises:
        TypeError: it lacks one of the two methods, or one is a coroutine function.
    """
    for name, what in ((CHECKPOINT, "gives its state"), (RESTORE, "takes it")):
        method = getattr(cls, name, None)
        if method is None:
            raise TypeError(
                f"{cls.__name__} has no {name}: for checkpoints it needs the method, "
                f"which {what}"
            )
        if inspect.iscoroutinefunction(method):
            raise TypeError(
                f"{cls.__name__}.{name} is a coroutine function, expected a plain "
                "method: no other call may run in between"
            )


def checkpoint(proxy: TesseraProxy[Any]) -> TaskProxy[None]:
    """Write down the state of a tessera now: a task, in order with the calls.

    What its ``__checkpoint__()`` gives is pickled into a file, forced to the disk; when
    the tessera is built again, ``__restore__(state)`` is called with it after the
    constructor. Only plain values and arrays: no proxies. The files are in the
    directory that the option ``checkpoint_directory`` names, closed to others, and
    removed when the tessera is closed or killed, or the cluster is stopped. The last
    one stays there when it ends in another way, such as without restarts left: see
    ``read_checkpoint``. See ``checkpoint_calls`` and ``checkpoint_s`` of
    ``tessera`` for those that are taken by themselves.

    Args:
        proxy: of a tessera with ``max_restarts``.

    Raises:
        TypeError: it is no proxy, or its class lacks one of the two methods.
        ValueError: the tessera is not built again.
        OSError: by awaiting: the disk is full, or the like; the checkpoint before is as
            it was.
        SerializationError: by awaiting: the state cannot be pickled.

    >>> import mosaic_like as mosaic
    >>> @mosaic.tessera(max_restarts=3)
    ... class Counter:
    ...     def __init__(self): self.n = 0
    ...     def add(self, k): self.n += k; return self.n
    ...     def __checkpoint__(self): return self.n
    ...     def __restore__(self, n): self.n = n
    >>> async def main():
    ...     counter = Counter.remote()
    ...     counter.add(5)
    ...     await mosaic.checkpoint(counter)
    ...     return await counter.add(1).result()
    >>> mosaic.run(main, num_workers=1)
    6
    """
    handle = supervised_handle(proxy, "checkpoint")
    check_hooks(proxy._mosaic_schema.cls)
    runtime = handle.runtime
    return TaskProxy(runtime, runtime.submit(handle, CHECKPOINT, NOTHING))


def handle_of(proxy: Any, what: str) -> TesseraHandle:
    """Of a proxy of one tessera.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(proxy, TesseraProxy):
        raise TypeError(f"{what}() takes a proxy of one tessera, found {proxy!r}")
    return proxy._mosaic_handle


def supervised_handle(proxy: Any, what: str) -> SupervisedHandle:
    """Of a proxy of a tessera that is built again.

    Raises:
        TypeError: it is no proxy.
        ValueError: it is not built again.
    """
    handle = handle_of(proxy, what)
    if not isinstance(handle, SupervisedHandle):
        raise ValueError(
            f"{what}(): {handle.stream.label} is not built again when its worker is "
            "lost; make it with max_restarts=n"
        )
    return handle
