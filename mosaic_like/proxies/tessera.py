"""A tessera as its users hold it: methods to call and attributes to await.

On a proxy the names of the user's class win: everything of ours has a name that begins
with an underscore, or is a function of the package. Nothing here asks the network but
calls and awaits.
"""

from __future__ import annotations

import marshal
import sys
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..comms.frames import PASSED_ON, UNSEEN
from ..comms.messages import GET_ATTRIBUTE, SET_ATTRIBUTE, STREAM, TESSERA, Extra
from ..comms.serialization import PLAIN, Payload, Referent
from ..core.caller import COUNTED_BYTES, rare
from ..core.task import DONE
from ..ids import maker, short
from .limits import OPTIONS, check_limits, put_limits
from .outputs import After, TaskDone
from .retries import ALL as RETRIES
from .retries import dump_retries, max_retries_of
from .runtime import check_open
from .schema import Method, Schema, schema_of
from .stream import RemoteStream
from .task import TaskProxy, _ended

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..core.caller import Call, Stream
    from .runtime import Runtime

T_co = TypeVar("T_co", covariant=True)

NOTHING = marshal.dumps((), 2)  # no arguments, as the serializer has them
_SCALARS = PLAIN - {bytes}
_RETRY = "__retry__"  # beside the options of a method: those that say when, as they go
READY = "__ready__"  # asked of a tessera that somebody else made: answered when built


class TesseraHandle:
    """The count that a process has of a tessera: its end is what the owner is told."""

    __slots__ = ("call", "grant", "runtime", "stream", "uid")
    kind = TESSERA

    def __init__(
        self,
        runtime: Runtime,
        uid: int,
        stream: Stream,
        call: Call | None,
        grant: Any,
    ) -> None:
        self.runtime = runtime
        self.uid = uid
        self.stream = stream
        self.call = call  # the construction, if it was made here
        self.grant = grant  # None: made here

    @property
    def owner(self) -> int:
        return self.stream.owner

    def __del__(self) -> None:
        if self.grant is None:
            runtime = self.runtime
            runtime.dropped.append(self)
            if not runtime.peers.ticking:
                runtime._wake_tick()


class SupervisedHandle(TesseraHandle):
    """Of a tessera that is built again: its maker counts it, wherever it is.

    Args:
        followed: what this runtime knows of it; it has the stream, which changes.
        construction: if it was made here.
        grant: the right to it.
    """

    __slots__ = ("__weakref__", "followed")

    def __init__(
        self, runtime: Runtime, followed: Any, construction: Call | None, grant: Any
    ) -> None:
        super().__init__(runtime, followed.uid, followed.stream, construction, grant)
        self.followed = followed

    @property
    def owner(self) -> int:
        return maker(self.uid)

    @property
    def restarting(self) -> bool:
        """A life was lost, and the next one has no place that is known here."""
        stream = self.stream
        return stream.outbox is None and self.followed.follower.life >= 0


class RemoteMethod:
    """``proxy.method``: calling it gives a task at once."""

    __slots__ = ("_extra", "_handle", "_high", "_low", "_method", "_name", "_schema")

    def __init__(
        self,
        handle: TesseraHandle,
        schema: Schema,
        method: Method,
        extra: dict[str, Any] | None = None,
    ) -> None:
        self._handle = handle
        self._schema = schema
        self._method = method
        self._name = method.name
        self._low = method.low
        self._high = method.high
        if extra is None:
            extra = handle.stream.options  # what its maker wants of all calls
        self._extra = extra
        if method.is_stream or extra is not None:
            self._low, self._high = 1, 0  # never the short way

    def __call__(self, *args: Any, **kwargs: Any) -> TaskProxy[Any]:
        if kwargs or not self._low <= len(args) <= self._high:
            with UNSEEN:
                return self._call_checked(args, kwargs)
        handle = self._handle
        runtime = handle.runtime
        for arg in args:
            if type(arg) not in _SCALARS:
                with UNSEEN:
                    payload = runtime.dump_call(self, args, kwargs)
                break
        else:
            # As the serializer does it, without the calls on the way there.
            data = marshal.dumps(args, 2)
            payload = data if len(data) <= COUNTED_BYTES else Payload(data)
        return TaskProxy(runtime, runtime.submit(handle, self._name, payload))

    def _call_checked(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> TaskProxy[Any]:
        method = self._method
        options = dict(self._extra or {})
        for name in ("max_retries", "eager"):
            # Options of the original are taken from the call only where they cannot
            # be the user's.
            if name in kwargs and not method.takes(name):
                options[name] = kwargs.pop(name)
        check_eager(options.pop("eager", True))
        method.check(self._schema.name, args, kwargs)
        handle = self._handle
        runtime = handle.runtime
        extra = None
        if options.get("ordered") is False:
            extra = Extra(ordered=False)
        if options.get("max_retries") is not None:
            extra = extra or Extra()
            extra.max_retries = max_retries_of(options["max_retries"])
        if _RETRY in options:
            extra = extra or Extra()
            extra.retry = options[_RETRY]
        if method.is_stream:
            extra = extra or Extra()
            extra.kind = STREAM
        has_limits = "timeout" in options or "interrupt" in options
        if has_limits:
            extra = put_limits(options, extra)
        payload = runtime.dump_call(self, args, kwargs)
        call = runtime.submit(handle, self._name, payload, extra, 3)
        if has_limits and extra is not None:
            runtime.limiting.limit(call, extra)
        if options.get("idempotent"):
            rare(call).idempotent = True
        if method.is_stream:
            return RemoteStream(runtime, call, handle)  # type: ignore[return-value]  # what a generator method gives
        return TaskProxy(runtime, call)

    def options(self, **options: Any) -> RemoteMethod:
        """The same method, called with these options.

        Args:
            ordered: False lets it go ahead of earlier calls that wait for arguments.
            max_retries: how often it runs again when it raises, or when its time is
                over. Calls behind it wait meanwhile, unless the tessera is
                ``is_async``.
            retry_on: only after these: an exception class or a tuple of them;
                ``Exception`` by default. What is none, such as CancelledError, is never
                retried; an attempt that is out of time counts as TaskTimeoutError.
            retry_if: only if this says so: a function, or coroutine function, of the
                exception and the ``FailedAttempt``; it runs where the method ran. None:
                no condition. If it raises, the call is not retried, and a note of its
                error says why.
            retry_delay: seconds before each retry; or a sequence of them, of which the
                last one repeats; or a function that gives them for the number of the
                retry, from 1. 0 by default. A call that waits holds no thread; its
                ``timeout`` begins anew with the attempt.
            retry_jitter: 0 to 1: the delay d is drawn anew each time from
                ``d*(1-jitter)`` to ``d*(1+jitter)``.
            timeout: seconds that each attempt has, the first from now on: waiting in
                queues counts. Calls made inside it have no more than what is left.
                Then it raises TaskTimeoutError, within about a second more, whatever
                the method does.
            idempotent: it may run again when the worker of a tessera with
                ``max_restarts`` was lost while it ran.
            interrupt: how a plain method that runs is stopped, when it is cancelled or
                out of time. ``"raise"``, the default: by an exception inside it;
                ``"flag"``: it looks at ``current_task().cancelled`` itself; ``"kill"``:
                as ``"raise"``, and if that does not help within a second, with its
                worker and all that lives there. Otherwise its tessera is busy until it
                returns, but the task ends in any case.

        Raises:
            TypeError: an unknown option, or one of the wrong type.
            ValueError: one that is out of range.
            SerializationError: a class or function of ``retry_*`` that cannot travel.
        """
        known = ("ordered", "idempotent", *RETRIES, *OPTIONS)
        for name in options:
            if name not in known:
                raise TypeError(
                    f"unknown option {name!r} of a call; known: {', '.join(known)}"
                )
        if options.get("max_retries") is not None:
            max_retries_of(options["max_retries"])
        check_limits(options)
        options = {**(self._extra or {}), **options}
        retry = dump_retries(options, f"{self._schema.name}.{self._name}")
        if retry:
            options[_RETRY] = retry
        return RemoteMethod(self._handle, self._schema, self._method, options)

    def __get__(self, instance: Any, owner: Any = None) -> RemoteMethod:
        return self

    @property
    def __name__(self) -> str:
        return self._name

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]  # of each instance
        return getattr(self._method.function, "__doc__", None)

    @property
    def __signature__(self) -> Any:
        if self._method.signature is None:
            raise AttributeError("__signature__")
        return self._method.signature

    def describe(self) -> tuple[str, list[str]]:
        """What is called and the names of its positional arguments, for errors."""
        signature = self._method.signature
        names = [] if signature is None else list(signature.parameters)
        return f"{self._schema.name}.{self._name}", names

    def __repr__(self) -> str:
        return f"<method {self._name} of {self._handle.stream.label}>"


def check_eager(eager: Any) -> None:
    """Refuse the laziness of the original, where calls waited until they were awaited.

    Raises:
        TypeError: ``eager`` is false.
    """
    if not eager:
        raise TypeError(
            "eager=False is not possible: a call is sent at once; "
            "make it where it is to be made"
        )


class RemoteAttribute:
    """``proxy.attribute``: awaiting it reads it, in order with the calls."""

    __slots__ = ("_awaited", "_name", "_proxy")

    def __init__(self, proxy: TesseraProxy[Any], name: str) -> None:
        self._proxy = proxy
        self._name = name
        self._awaited = False

    def __await__(self) -> Generator[Any, None, Any]:
        self._awaited = True
        handle = self._proxy._mosaic_handle
        runtime = handle.runtime
        call = runtime.submit(handle, self._name, NOTHING, Extra(kind=GET_ATTRIBUTE))
        with PASSED_ON:
            return (yield from TaskProxy(runtime, call).result().__await__())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._awaited = True
        schema = self._proxy._mosaic_schema
        if schema.has_getattr:
            method = Method(self._name, _anything, bound=False)
            return RemoteMethod(self._proxy._mosaic_handle, schema, method)(
                *args, **kwargs
            )
        raise AttributeError(
            f"{schema.name} has no method {self._name!r}"
            + (
                f": it is an attribute, whose value is read by await proxy.{self._name}"
                if self._name in schema.attributes
                else schema.nearest(self._name)
            )
        )

    def __del__(self) -> None:
        # Not at a prompt: completion reads attributes, and repr says it to people.
        if not self._awaited and not hasattr(sys, "ps1"):
            import warnings

            warnings.warn(
                f"the remote attribute {self._name!r} of "
                f"{self._proxy._mosaic_handle.stream.label} was never awaited; "
                f"write 'await proxy.{self._name}'",
                RuntimeWarning,
                stacklevel=2,
            )

    def _forgot(self, *_: Any, **__: Any) -> Any:
        self._awaited = True
        raise TypeError(
            f"this is a remote attribute ({self._name}), not its value; write "
            f"'await proxy.{self._name}'"
        )

    __bool__ = __len__ = __iter__ = __getitem__ = __add__ = __radd__ = _forgot
    __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _forgot
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = _forgot
    __matmul__ = __rmatmul__ = __neg__ = __abs__ = __int__ = __float__ = _forgot
    __index__ = __contains__ = __array__ = _forgot
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = _forgot
    __hash__ = object.__hash__

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            self._forgot()
        raise AttributeError(f"a remote attribute has no {name!r}")

    def __format__(self, spec: str) -> str:
        return self._forgot() if spec else repr(self)

    @property
    def __signature__(self) -> Any:
        # Without one inspect.signature compares the object, and completers fail.
        return Method(self._name, _anything, bound=False).signature

    def __repr__(self) -> str:
        self._awaited = True  # a REPL has shown it: that is no mistake
        label = self._proxy._mosaic_handle.stream.label
        return f"<attribute {self._name} of {label} · await it for the value>"


def _anything(*args: Any, **kwargs: Any) -> None:
    """The signature of what nobody knows."""


class TesseraProxy(Referent, Generic[T_co]):
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
            if name.startswith("_") and name not in schema.exposed:
                raise AttributeError(
                    f"{name!r} is private: names that begin with _ are never remote"
                )
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

    def __call__(self, *args: Any, **kwargs: Any) -> TaskProxy[Any]:
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
                yield from _ended(runtime, call).__await__()
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

    def _forgot(self, *_: Any, **__: Any) -> Any:
        raise TypeError(
            f"this is a proxy of a {self._mosaic_schema.name}, which lives elsewhere: "
            "call one of its methods and await the result"
        )

    __bool__ = __len__ = __iter__ = __int__ = __float__ = __index__ = _forgot
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _forgot
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = _forgot
    __mod__ = __rmod__ = __pow__ = __rpow__ = __matmul__ = __rmatmul__ = _forgot
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = _forgot
    __neg__ = __pos__ = __abs__ = __invert__ = __array__ = _forgot
    __lt__ = __le__ = __gt__ = __ge__ = _forgot


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


def get_attr(proxy: TesseraProxy[Any], name: str) -> TaskProxy[Any]:
    """Read an attribute of a tessera: a task, in order with the calls.

    The same as ``await proxy.name``, for names that are those of methods, or are known
    only when the program runs.

    Args:
        proxy: of a tessera.
        name: of the attribute, or of a property.

    Raises:
        AttributeError: the name begins with an underscore; by awaiting: the object has
            no such attribute.

    >>> import mosaic_like as mosaic
    >>> @mosaic.tessera
    ... class Model:
    ...     def __init__(self): self.speed = 3
    >>> async def main():
    ...     return await mosaic.get_attr(Model.remote(), "speed").result()
    >>> mosaic.run(main, num_workers=1)
    3
    """
    _public(name)
    handle = proxy._mosaic_handle
    runtime = handle.runtime
    call = runtime.submit(handle, name, NOTHING, Extra(kind=GET_ATTRIBUTE))
    return TaskProxy(runtime, call)


def set_attr(proxy: TesseraProxy[Any], name: str, value: Any) -> TaskProxy[None]:
    """Set an attribute of a tessera: a task, in order with the calls.

    Args:
        proxy: of a tessera.
        name: of the attribute.
        value: what it becomes; a task stands for its value.

    Raises:
        AttributeError: the name begins with an underscore; by awaiting: it cannot be
            set.
        SerializationError: the value cannot travel.

    >>> import mosaic_like as mosaic
    >>> @mosaic.tessera
    ... class Model:
    ...     def __init__(self): self.speed = 3
    >>> async def main():
    ...     model = Model.remote()
    ...     mosaic.set_attr(model, "speed", 4)  # need not be awaited
    ...     return await model.speed
    >>> mosaic.run(main, num_workers=1)
    4
    """
    _public(name)
    handle = proxy._mosaic_handle
    runtime = handle.runtime
    setter = RemoteMethod(
        handle, proxy._mosaic_schema, Method(name, _anything, bound=False)
    )
    payload = runtime.dump_call(setter, (value,), {})
    call = runtime.submit(handle, name, payload, Extra(kind=SET_ATTRIBUTE))
    return TaskProxy(runtime, call)


def _public(name: str) -> None:
    if name.startswith("_"):
        raise AttributeError(
            f"{name!r} is private: names that begin with _ are never remote"
        )


def ordered_only(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments with their tokens marked: these order and are left out of the call."""
    if any(type(arg) is TaskDone for arg in args):
        return tuple(After(arg) if type(arg) is TaskDone else arg for arg in args)
    return args
