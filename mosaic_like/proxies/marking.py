"""``@tessera``: gives a class ``remote``, ``options``, ``parameter`` and the like.

The class stays as it is: an ordinary class, importable, picklable, with its own
instances. What is added are descriptors, and only where the class has no such name of
its own. Nothing is imported here until one of them is used: programs mark classes long
before they run anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from .of_class import NAMES, OPTIONS_ATTRIBUTE, OfClass

if TYPE_CHECKING:
    from collections.abc import Callable

    from .base import Tessera
    from .marked import Marker, TesseraClass

P = ParamSpec("P")
T = TypeVar("T")
TypedT = TypeVar("TypedT", bound="Tessera")


@overload
def tessera(cls: type[TypedT], /) -> type[TypedT]: ...  # type: ignore[overload-overlap]  # the first one that fits counts
@overload
def tessera(cls: Callable[P, T], /) -> type[TesseraClass[P, T]]: ...
@overload
def tessera(**options: Any) -> Marker: ...
def tessera(cls: Any = None, /, **options: Any) -> Any:
    """Mark a class whose objects can live in other processes.

    Args:
        runtime: a worker, its uid, a proxy (the same worker) or the name of a strategy.
        len: make so many, dealt over the workers, as one ``ArrayProxy``.
        is_async: coroutine methods really overlap, up to ``max_concurrency``.
        max_concurrency: of an asynchronous tessera; 1,000 by default.
        inline: plain methods run on the worker's loop: the shortest way for short ones.
        thread: the tessera has a thread of its own.
        expose: names beginning with an underscore that may be called.
        max_retries: how often a method that raises runs again.
        retry_on, retry_if, retry_delay, retry_jitter: after which errors, and when; see
            ``proxy.method.options``, whose values count more, each by itself.
        timeout: seconds that each call has; see ``proxy.method.options``. Not the
            constructor.
        interrupt: ``"raise"``, ``"flag"`` or ``"kill"``: how plain methods are stopped;
            see ``proxy.method.options``.
        silence: exceptions of which nothing is logged when nobody asks for them: a
            class, a tuple of classes, or True for all; in the program that makes it.
        name: get the tessera of this name if there is one in the cluster, whoever made
            it, else make it: the arguments and the other options count only for who
            makes it. The name is free again when the tessera is closed, collected or
            lost; with ``max_restarts`` it stays its own until it is not built again. If
            a tessera of another class has it, the proxy fails with TypeError.
        detached: with a name: it lives until it is closed, also when nobody holds it
            and the program that made it has ended, as long as the cluster does. Not
            with ``max_restarts``.
        memory: bytes, or such as ``"2 GiB"``, of what values may take on its host (the
            option ``memory=`` of the cluster) that are its own for its life. Until they
            are free the construction waits, pending with the reason ``memory``; where
            nothing changes for a second it goes ahead, since others may wait for it.
        max_restarts: how often it is built again, by its constructor with the arguments
            it had, when its worker was lost: on another one, at once, and after a while
            where that happens again and again. Calls that had not started go there in
            their order; one that may have run fails, at most once being the rule,
            unless it is ``idempotent``, or ``max_retries`` are left, ``retry_on`` names
            ``RuntimeDisconnectedError`` and ``retry_if``, if any, agrees. One that ran
            on two workers when they ended raises PoisonedCall, also if others ran
            beside it. It ends with the runtime that made it.
        restart_within: only restarts in the last so many seconds count; None: all do.
        idempotent: all its methods may run again after the loss of a worker; also an
            option of a call.
        checkpoint_calls, checkpoint_s: after so many calls or seconds, in which there
            were any, what its ``__checkpoint__()`` gives is written down; when it is
            built again, ``__restore__(state)`` gets the latest. What it did since is
            lost. See ``mosaic.checkpoint``.
        cached: of parameters: what a runtime has of one is passed on and read again,
            until something newer is known of there.

    Raises:
        TypeError: an unknown option, or not a class.
        ValueError: an option out of range.

    >>> import mosaic_like as mosaic
    >>> @mosaic.tessera
    ... class Counter:
    ...     def __init__(self, start=0): self.n = start
    ...     def add(self, k): self.n += k; return self.n
    >>> Counter(3).add(1)  # still an ordinary class
    4
    """
    if options:
        from .decorator import check_options

        check_options(options)

    depth = 2 if cls is None else 3  # of the line that marks, as seen from mark

    def mark(cls: type[T]) -> type[T]:
        if not isinstance(cls, type):
            raise TypeError(f"@tessera marks a class, not {cls!r}")
        taken = [n for n in NAMES if n in vars(cls) and not _ours(vars(cls)[n])]
        marks = {**getattr(cls, OPTIONS_ATTRIBUTE, {}), **options}
        try:
            setattr(cls, OPTIONS_ATTRIBUTE, marks)
        except TypeError:
            name = cls.__qualname__
            raise TypeError(
                f"@tessera cannot mark {name}, a class that is not written in Python; "
                f"make tesserae by mosaic.remote({name}, **options)(...)"
            ) from None
        for name in NAMES:
            if name not in taken and not _taken_by_base(cls, name):
                setattr(cls, name, OfClass(name))
        if "remote" in taken or "options" in taken:
            import warnings

            warnings.warn(
                f"{cls.__name__} has its own {' and '.join(taken)}; make tesserae by "
                f"mosaic.remote({cls.__name__})(...)",
                stacklevel=depth,
            )
        return cls

    return mark if cls is None else mark(cls)


def _ours(value: Any) -> bool:
    return isinstance(value, OfClass)


def _taken_by_base(cls: type, name: str) -> bool:
    for base in cls.__mro__[1:]:
        if name in vars(base):
            return not _ours(vars(base)[name])
    return False
