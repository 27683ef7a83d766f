"""``proxy.method``: what becomes of a call before the runtime gets it.

Arguments and options are checked here, where the call is made.
"""

from __future__ import annotations

import marshal
from typing import TYPE_CHECKING, Any

from ..comms.frames import UNSEEN
from ..comms.messages import STREAM, Extra
from ..comms.serialization import PLAIN
from ..core.call import rare
from ..core.sending import COUNTED_BYTES
from .limits import OPTIONS, check_limits, put_limits
from .retries import ALL as RETRIES
from .retries import dump_retries, max_retries_of
from .stream import RemoteStream
from .task import TaskProxy

if TYPE_CHECKING:
    from .handles import TesseraHandle
    from .schema import Method, Schema

NOTHING = marshal.dumps((), 2)  # no arguments, as the serializer has them
_SCALARS = PLAIN - {bytes}
_RETRY = "__retry__"  # beside the options of a method: those that say when, as they go


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

    def __call__(self, /, *args: Any, **kwargs: Any) -> TaskProxy[Any]:
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
            payload = marshal.dumps(args, 2)
            if len(payload) > COUNTED_BYTES:
                with UNSEEN:
                    payload = runtime.dump_call(self, args, kwargs)
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
                exception and the ``FailedAttempt``; it runs where the method ran, and
                where that is lost at the caller, which can only ask a function. None:
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

    if not TYPE_CHECKING:

        def __await__(self) -> Any:
            raise TypeError(
                f"this is a method ({self._handle.stream.label}.{self._name}), which "
                f"was not called; write 'await proxy.{self._name}(...)'"
            )

    # -- as a value --------------------------------------------------------------------

    def __copy__(self) -> RemoteMethod:
        return self

    def __deepcopy__(self, memo: Any) -> RemoteMethod:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """As an argument, such as a callback: the tessera goes with it, and counts."""
        from .tessera import proxy_of

        handle = self._handle
        extra = None if self._extra is handle.stream.options else self._extra
        return bound, (proxy_of(self._schema.cls, handle), self._name, extra)

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


def bound(proxy: Any, name: str, extra: dict[str, Any] | None) -> RemoteMethod:
    """A method that came as a value, of the proxy that came with it."""
    schema = proxy._mosaic_schema
    return RemoteMethod(proxy._mosaic_handle, schema, schema.methods[name], extra)


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
