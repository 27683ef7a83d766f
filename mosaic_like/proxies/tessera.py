"""A tessera as its users hold it: methods to call and attributes to await.

On a proxy the names of the user's class win: everything of ours has a name that begins
with an underscore, or is a function of the package. Nothing here asks the network but
calls and awaits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..comms.frames import UNSEEN
from ..comms.serialization import Referent
from ..core.task import DONE
from ..ids import short
from .attributes import RemoteAttribute, get_attr, set_attr
from .handles import SupervisedHandle, TesseraHandle
from .methods import NOTHING, RemoteMethod
from .outputs import After, TaskDone
from .refusing import NotAValue, check_remote
from .runtime import check_open
from .schema import Schema, schema_of
from .settling import ended
from .task import TaskProxy

if TYPE_CHECKING:
    from collections.abc import Generator

    from .stream import RemoteStream

T_co = TypeVar("T_co", covariant=True)

READY = "__ready__"  # asked of a tessera that somebody else made: answered when built


class TesseraProxy(NotAValue, Referent, Generic[T_co]):
    """An object that lives in another process.

    Calling a method gives a task at once; calls of one caller run in the order in which
    they were made. ``await proxy`` waits until the object is built and gives the proxy;
    ``await proxy.attribute`` reads an attribute. When the last proxy anywhere is gone,
    the object's ``__close__`` runs and it is freed.

    >>> import mosaic_like as mosaic
    >>> @mosaic.tessera
    ... class Counter:
    ...     def __init__(self, start): self.n = start
    ...     def add(self, k): self.n += k
    >>> async def main():
    ...     counter = await Counter.remote(5)
    ...     counter.add(1)
    ...     return await counter.n
    >>> mosaic.run(main, num_workers=1)
    6
    """

    __slots__ = ("__dict__", "__weakref__", "_mosaic_handle", "_mosaic_schema")
    _mosaic_handle: TesseraHandle
    _mosaic_schema: Schema

    def __init__(self) -> None:
        raise TypeError("a proxy is made by Klass.remote(...)")

    def __reference__(self) -> tuple[TesseraHandle, tuple[Any, ...]]:
        handle = self._mosaic_handle
        stream = handle.stream
        check_open(handle.runtime, stream.label)
        what = "tessera", self._mosaic_schema.cls, stream.label
        if type(handle) is SupervisedHandle:
            return handle, (*what, stream.options, handle.followed.policy)
        return handle, what if stream.options is None else (*what, stream.options)

    # -- the user's names --------------------------------------------------------------

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> RemoteMember: ...

    else:

        def __getattr__(self, name: str) -> Any:
            """Reached once for each method; the second time it is in the instance."""
            schema = self._mosaic_schema
            if name not in schema.exposed:
                check_remote(name)
            method = schema.methods.get(name)
            if method is not None:
                found = RemoteMethod(self._mosaic_handle, schema, method)
                self.__dict__[name] = found
                return found
            if name not in schema.attributes:
                if name == "get_attr":
                    return lambda name: get_attr(self, name)
                if name == "set_attr":
                    return lambda name, value: set_attr(self, name, value)
                if name == "monitor" and type(self._mosaic_handle) is SupervisedHandle:
                    from .monitoring import monitor

                    return lambda: monitor(self)
            return RemoteAttribute(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(
            f"to set an attribute of the object, write await "
            f"mosaic.set_attr(proxy, {name!r}, value)"
        )

    def __dir__(self) -> list[str]:
        return self._mosaic_schema.public

    def _mosaic_method(self, name: str) -> RemoteMethod:
        schema = self._mosaic_schema
        method = schema.methods.get(name)
        if method is None:
            raise TypeError(f"{schema.name} has no {name}")
        return RemoteMethod(self._mosaic_handle, schema, method)

    def __call__(self, /, *args: Any, **kwargs: Any) -> TaskProxy[Any]:
        return self._mosaic_method("__call__")(*args, **kwargs)

    def __getitem__(self, key: Any) -> TaskProxy[Any]:
        return self._mosaic_method("__getitem__")(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._mosaic_method("__setitem__")(key, value)

    def __delitem__(self, key: Any) -> None:
        self._mosaic_method("__delitem__")(key)

    def __contains__(self, key: Any) -> bool:
        raise TypeError(
            f"'in' cannot wait; write await mosaic.call(proxy, "
            f"{self._mosaic_schema.name}.__contains__, key).result()"
        )

    def __aiter__(self) -> RemoteStream[Any]:
        return self._mosaic_method("__aiter__")()  # type: ignore[return-value]  # it is a generator method

    async def __aenter__(self) -> Any:
        await self
        if "__aenter__" in self._mosaic_schema.methods:
            await self._mosaic_method("__aenter__")()
        return self

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> Any:
        if "__aexit__" in self._mosaic_schema.methods:
            exit_ = self._mosaic_method("__aexit__")
            return await exit_(kind, error, None).result()
        return None

    # -- the proxy itself --------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, TesseraProxy[T_co]]:
        try:
            handle = self._mosaic_handle
            runtime = handle.runtime
            call = handle.call
            if call is None:
                call = runtime.submit(handle, READY, NOTHING)
                yield from TaskProxy(runtime, call).__await__()
                return self
            if call.state < DONE:
                yield from ended(runtime, call).__await__()
            if call.state != DONE:
                with UNSEEN:
                    raise runtime.error_of(call)
            return self
        finally:
            del self

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TesseraProxy):
            return self._mosaic_handle.uid == other._mosaic_handle.uid
        return NotImplemented

    def __hash__(self) -> int:
        # Not the uid, which one with a name learns only when it is found.
        return hash(self._mosaic_handle.stream.label)

    def __repr__(self) -> str:
        handle = self._mosaic_handle
        at = handle.stream.owner
        owner = short(handle.runtime.uid_of(at)) if at else ""
        call = handle.call
        what = ""
        if handle.stream.error is not None:
            what = " · lost"
        elif type(handle) is SupervisedHandle and handle.restarting:
            what = " · restarting"
        elif call is not None and call.state < DONE:
            what = " · starting"
        elif call is not None and call.state > DONE:
            what = " · failed"
        return f"<{handle.stream.label}{' on ' if owner else ''}{owner}{what}>"

    def _forgot(self, hint: str = "") -> TypeError:
        return TypeError(
            f"this is a proxy of a {self._mosaic_schema.name}, which lives elsewhere: "
            f"call one of its methods and await the result{hint}"
        )


if TYPE_CHECKING:

    class RemoteMember(RemoteMethod):
        """What ``proxy.name`` may be: a method to call, or an attribute to await."""

        def __await__(self) -> Generator[Any, None, Any]: ...


def proxy_of(cls: type, handle: TesseraHandle) -> TesseraProxy[Any]:
    """A proxy of this class for a handle."""
    proxy: TesseraProxy[Any] = object.__new__(TesseraProxy)
    object.__setattr__(proxy, "_mosaic_handle", handle)
    object.__setattr__(proxy, "_mosaic_schema", schema_of(cls))
    return proxy


def ordered_only(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments with their tokens marked: these order and are left out of the call."""
    if any(type(arg) is TaskDone for arg in args):
        return tuple(After(arg) if type(arg) is TaskDone else arg for arg in args)
    return args
