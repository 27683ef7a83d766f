"""Classes with options: what ``Klass.remote``, ``Klass.options`` and the like are.

``mosaic.remote(Klass, **options)`` makes them of any class. How ``@tessera`` marks a
class, which needs none of this, is in ``marking``.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from .. import session
from ..comms.frames import UNSEEN
from ..comms.messages import Options
from ..core.names import NAME_BYTES, is_name
from ..sizes import parse_size
from .array import ArrayProxy
from .limits import check_limits, interrupt_of, limits_among, timeout_of
from .methods import check_eager
from .of_class import OPTIONS_ATTRIBUTE
from .restarts import check_restarts, supervised_of
from .retries import check_retries, dump_retries
from .schema import schema_of
from .tessera import TesseraProxy, proxy_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .handles import TesseraHandle
    from .marked import RemoteArray
    from .parameter import Parameter

P = ParamSpec("P")
T = TypeVar("T")

# Of each option: the types that it takes, None meaning anything.
_KNOWN: dict[str, tuple[type, ...] | None] = {
    "runtime": None,
    "len": (int, type(None)),
    "is_async": (bool,),
    "max_concurrency": (int, type(None)),
    "inline": (bool,),
    "thread": (bool,),
    "expose": (tuple, list),
    "max_retries": (int,),
    "retry_on": None,
    "retry_if": None,
    "retry_delay": None,
    "retry_jitter": None,
    "timeout": None,
    "interrupt": None,
    "silence": None,
    "name": (str, type(None)),
    "detached": (bool,),
    "cached": (bool,),
    "memory": (int, str),
    "max_restarts": (int,),
    "restart_within": None,
    "idempotent": (bool,),
    "checkpoint_calls": (int, type(None)),
    "checkpoint_s": None,
}
# Those of the original that are taken from the constructor's keywords too.
_IN_CALL = ("runtime", "len", "is_async", "max_retries", "eager", "silence", "cached")
_DEPTH = 3  # of the program's frame, from who asks the runtime below


def check_options(options: dict[str, Any]) -> dict[str, Any]:
    """Raise for an option that is unknown or out of range; give the rest."""
    for name, value in options.items():
        if name not in _KNOWN:
            close = difflib.get_close_matches(name, _KNOWN, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"unknown option {name!r} of a tessera{hint}")
        kinds = _KNOWN[name]
        if kinds is not None and (
            not isinstance(value, kinds)
            or (isinstance(value, bool) and bool not in kinds)
        ):
            raise TypeError(
                f"option {name!r}: found {value!r}, expected "
                + " or ".join(k.__name__ for k in kinds)
            )
    length = options.get("len")
    if length is not None and length < 1:
        raise ValueError(f"option 'len': found {length}, expected at least 1")
    concurrency = options.get("max_concurrency")
    if concurrency is not None and concurrency < 1:
        raise ValueError(
            f"option 'max_concurrency': found {concurrency}, expected at least 1"
        )
    if options.get("max_retries", 0) < 0:
        raise ValueError(
            f"option 'max_retries': found {options['max_retries']}, expected at least 0"
        )
    check_retries(options)
    check_limits(options)
    check_restarts(options)
    _check_name(options)
    _nbytes(options.get("memory", 0))
    if "silence" in options:
        options["silence"] = _silence(options["silence"])
    ways = [n for n in ("is_async", "inline", "thread") if options.get(n)]
    if "thread" in ways and len(ways) > 1:
        raise ValueError(f"options {ways} exclude each other")
    return options


def _check_name(options: dict[str, Any]) -> None:
    name = options.get("name")
    if name is None:
        if options.get("detached"):
            raise ValueError(
                "option 'detached': who comes later finds it by its name; give it one "
                "by name='...'"
            )
        return
    if not is_name(name):
        raise ValueError(
            f"option 'name': found {name[:80]!r}, expected 1 to {NAME_BYTES} bytes "
            "that can be printed"
        )
    if options.get("len") is not None:
        raise ValueError("option 'name' is for one tessera, 'len' makes several")


def _silence(value: Any) -> tuple[type[BaseException], ...]:
    if isinstance(value, bool):
        return (Exception,) if value else ()
    kinds = tuple(value) if isinstance(value, tuple | list) else (value,)
    if not all(isinstance(k, type) and issubclass(k, BaseException) for k in kinds):
        raise TypeError(
            f"option 'silence': found {value!r}, expected exception classes or a bool"
        )
    return kinds


class RemoteClass(Generic[P, T]):
    """A class with options: ``Klass.options(...)``, ``mosaic.remote(Klass, ...)``."""

    __slots__ = ("_cls", "_options")

    def __init__(self, cls: Callable[P, T], options: dict[str, Any]) -> None:
        self._cls = cls
        self._options = options

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> TesseraProxy[T]:
        with UNSEEN:
            made: TesseraProxy[T]
            made = _remote(self._cls, self._options, args, kwargs)
            return made

    def remote(self, /, *args: P.args, **kwargs: P.kwargs) -> TesseraProxy[T]:
        """Make one in a worker; returns at once."""
        with UNSEEN:
            made: TesseraProxy[T]
            made = _remote(self._cls, self._options, args, kwargs)
            return made

    def local(self, /, *args: P.args, **kwargs: P.kwargs) -> TesseraProxy[T]:
        """Make one in this runtime, so that others can call back."""
        with UNSEEN:
            made: TesseraProxy[T]
            made = _local(self._cls, self._options, args, kwargs)
            return made

    def parameter(self, /, *args: P.args, **kwargs: P.kwargs) -> Parameter[T]:
        """Make one here, as a copy of a root in a worker; see ``Parameter``."""
        return _parameter(self._cls, self._options, args, kwargs, False)  # type: ignore[no-any-return]  # a Parameter, made elsewhere

    def local_parameter(self, /, *args: P.args, **kwargs: P.kwargs) -> Parameter[T]:
        """Make one here, as a copy of a root in this runtime; see ``Parameter``."""
        return _parameter(self._cls, self._options, args, kwargs, True)  # type: ignore[no-any-return]  # the same

    @overload
    def options(self, *, len: int, **options: Any) -> RemoteArray[P, T]: ...
    @overload
    def options(self, **options: Any) -> RemoteClass[P, T]: ...
    def options(self, **options: Any) -> Any:
        """The same with further options; see ``tessera``.

        Raises:
            TypeError: an unknown option.
            ValueError: an option out of range.
        """
        return RemoteClass(self._cls, check_options({**self._options, **options}))

    def __repr__(self) -> str:
        return f"<remote {getattr(self._cls, '__qualname__', self._cls)}>"


@overload
def remote(
    cls: Callable[P, T], /, *, len: int, **options: Any
) -> RemoteArray[P, T]: ...
@overload
def remote(cls: Callable[P, T], /, **options: Any) -> RemoteClass[P, T]: ...
def remote(cls: Any, /, **options: Any) -> Any:
    """Any class as a maker of tesserae: ``mosaic.remote(Klass, **options)(*args)``.

    Args:
        cls: a class, whether ``@tessera`` has marked it or not.
        options: those of ``tessera``; they count more than the decorator's.

    Raises:
        TypeError: an unknown option, or not a class.
        ValueError: an option out of range.

    >>> import collections, mosaic_like as mosaic
    >>> async def main():
    ...     counts = mosaic.remote(collections.Counter)("banana")
    ...     return await counts.most_common(1).result()
    >>> mosaic.run(main, num_workers=1)
    [('a', 3)]
    """
    if not isinstance(cls, type):
        raise TypeError(f"remote() takes a class, not {cls!r}")
    return RemoteClass(
        cls, check_options({**getattr(cls, OPTIONS_ATTRIBUTE, {}), **options})
    )


def _wire(options: dict[str, Any], cls: Any) -> Options:
    if not options:
        return Options(name="")  # as most have it
    return Options(
        name="",
        is_async=options.get("is_async", False),
        max_concurrency=options.get("max_concurrency"),
        inline=options.get("inline", False),
        thread=options.get("thread", False),
        expose=tuple(options.get("expose", ())),
        max_retries=options.get("max_retries", 0),
        timeout_s=timeout_of(options.get("timeout")),
        interrupt=interrupt_of(options.get("interrupt") or "raise"),
        unique=options.get("name") or "",
        detached=options.get("detached", False),
        retry=dump_retries(options, cls.__name__),
        memory=_nbytes(options.get("memory", 0)),
        supervised=supervised_of(options, cls),
    )


def _nbytes(memory: int | str) -> int:
    nbytes = parse_size(memory) if isinstance(memory, str) else memory
    if not 0 <= nbytes < 1 << 62:
        raise ValueError(
            f"option 'memory': found {memory!r}, expected bytes, or such as '2 GiB'"
        )
    return nbytes


def _checked(
    cls: Any, options: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    constructor = schema_of(cls).constructor
    for name in _IN_CALL if kwargs else ():
        if name in kwargs and not constructor.takes(name):
            value = kwargs.pop(name)
            if name == "eager":
                check_eager(value)
            elif name in _KNOWN:
                options = check_options({**options, name: value})
    if kwargs or not constructor.low <= len(args) <= constructor.high:
        constructor.check(cls.__name__, args, kwargs)
    return options, kwargs


def _remote(
    cls: Any,
    options: dict[str, Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    runtime = session.current()
    options, kwargs = _checked(cls, options, args, dict(kwargs))
    where = runtime.resolve_worker(options.get("runtime"))
    length = options.get("len")
    if length is None:
        handle = runtime.create(cls, args, kwargs, _wire(options, cls), where, _DEPTH)
        return _made(cls, handle, options)
    places = runtime.deal(length) if where is None else [where] * length
    members = []
    for place in places:  # no comprehension: that is a frame of its own before 3.12
        handle = runtime.create(cls, args, kwargs, _wire(options, cls), place, _DEPTH)
        members.append(_made(cls, handle, options))
    return ArrayProxy(members, [getattr(place, "incarnation", 0) for place in places])


def _local(
    cls: Any,
    options: dict[str, Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    runtime = session.current()
    options, kwargs = _checked(cls, options, args, dict(kwargs))
    if options.get("detached"):
        raise ValueError(
            "option 'detached': what is made by local() ends with this runtime; use "
            "remote()"
        )
    handle = runtime.create(cls, args, kwargs, _wire(options, cls), runtime, _DEPTH)
    return _made(cls, handle, options)


def _parameter(
    cls: Any,
    options: dict[str, Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    here: bool,
) -> Any:
    from .copies import make

    options, kwargs = _checked(cls, options, args, dict(kwargs))
    return make(cls, args, kwargs, options, here=here)


def _made(cls: Any, handle: TesseraHandle, options: dict[str, Any]) -> Any:
    if options:
        if options.get("silence"):
            handle.runtime.silence(handle.stream, options["silence"])
        handle.stream.options = limits_among(options)
    return proxy_of(cls, handle)


async def select_worker(runtime: Any = None) -> str:
    """The uid of the worker where the next tessera would be placed, or of this one."""
    current = session.current()
    if isinstance(runtime, TesseraProxy):
        await runtime  # then its place is known
    chosen = current.resolve_worker(runtime)
    if chosen is None:
        (chosen,) = current.deal(1)
    return str(chosen.uid)
