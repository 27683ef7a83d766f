"""The original's names over ``mosaic_like``, thinly: programs written for it run.

What differs between the two is done here, and told in ``docs/porting.md``: options
stand among the keywords of a call and are always taken from them; proxies can be asked
for a call whatever keywords the method has; ``gather`` gives tasks. What is the same is
not repeated: runtime, tasks and parameters are those of ``mosaic_like``.

A call is sent at once, also without ``eager=True``: what the original sends when it is
awaited has then been on its way for longer, and a call that is never awaited runs too.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import mosaic_like
from mosaic_like import (
    ArrayProxy,
    TaskProxy,
    TesseraProxy,
    init,
    interactive,
    logger,
    run,
    runtime,
    set_attr,
    stop,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

__all__ = [
    "Proxy",
    "gather",
    "init",
    "interactive",
    "logger",
    "run",
    "runtime",
    "stop",
    "tessera",
]

# What the original takes from the keywords of a call. Those without a meaning here are
# taken too, and forgotten.
_OF_CLASS = {"runtime", "len", "max_retries", "is_async", "silence", "cached"}
_OF_CALL = {"max_retries"}
_FORGOTTEN = {"eager", "uid", "safe", "timeout", "is_async", "silence"}


def _split(
    kwargs: dict[str, Any], known: set[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options among the keywords of a call, and the user's own."""
    options = {name: _bare(kwargs[name]) for name in known & kwargs.keys()}
    users = {n: v for n, v in kwargs.items() if n not in known | _FORGOTTEN}
    return options, users


def _bare(value: Any) -> Any:
    return value._bare if isinstance(value, Proxy) else value


def tessera(cls: type | None = None, /, **options: Any) -> Any:
    """Mark a class: ``@tessera``, or ``@tessera(max_retries=...)`` with options."""
    if cls is None:
        if not options:
            raise ValueError("write @tessera, without brackets")
        return lambda cls: tessera(cls, **options)
    known, _ = _split(options, _OF_CLASS)
    mosaic_like.tessera(**known)(cls)
    for name in ("remote", "local", "parameter", "local_parameter"):
        setattr(cls, name, _maker(name))
    return cls


def _maker(name: str) -> Any:
    def make(cls: type, *args: Any, **kwargs: Any) -> Any:
        options, kwargs = _split(kwargs, _OF_CLASS)
        made = getattr(mosaic_like.remote(cls, **options), name)(*args, **kwargs)
        return made if name.endswith("parameter") else Proxy(made)

    make.__name__ = name
    return classmethod(make)


class Proxy:
    """A tessera, or an array of them, as the original's programs call it."""

    __slots__ = ("_bare",)

    def __init__(self, bare: Any) -> None:
        self._bare = bare  # ours: a TesseraProxy or an ArrayProxy

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name == "set_attr":
            return lambda name, value: set_attr(self._bare, name, value)
        return _Member(self._bare, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _Member(self._bare, "__call__")(*args, **kwargs)

    def __await__(self) -> Generator[Any, None, Proxy]:
        yield from self._bare.__await__()
        return self

    def __getitem__(self, index: int) -> Proxy:
        return Proxy(self._bare[index])

    def __len__(self) -> int:
        return len(self._bare)

    def __iter__(self) -> Iterator[Proxy]:
        return map(Proxy, self._bare)

    def __reduce__(self) -> tuple[Any, ...]:
        return Proxy, (self._bare,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Proxy) and self._bare == other._bare

    def __hash__(self) -> int:
        return hash(self._bare)

    def __repr__(self) -> str:
        return repr(self._bare)


class _Member:
    """``proxy.name``: a method to be called or an attribute to be awaited."""

    def __init__(self, bare: TesseraProxy[Any] | ArrayProxy[Any], name: str) -> None:
        self._bare = bare
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        options, kwargs = _split(kwargs, _OF_CALL | {"runtime"})
        where = options.pop("runtime", None)
        bare = self._bare
        if where is not None and isinstance(bare, ArrayProxy):
            bare = bare.on(where)
        if self._name == "__call__":
            return bare(*args, **kwargs)
        method = getattr(bare, self._name)
        return (method.options(**options) if options else method)(*args, **kwargs)

    def __await__(self) -> Generator[Any, None, Any]:
        return (yield from getattr(self._bare, self._name).__await__())


async def gather(tasks: Iterable[TaskProxy[Any]]) -> list[TaskProxy[Any]]:
    """Wait for tasks; their values stay where they are."""
    return list(await asyncio.gather(*tasks))


def __getattr__(name: str) -> Any:
    """Everything else is asked of the runtime, as ``mosaic.num_workers``."""
    try:
        current = runtime()
    except RuntimeError as error:
        raise AttributeError(f"module {__name__!r} has no {name!r}: {error}") from None
    return getattr(current, name)
