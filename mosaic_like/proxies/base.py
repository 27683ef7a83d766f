"""``mosaic.Tessera``: a base class that tells type checkers what ``@tessera`` adds.

No type checker lets a decorator add names to a class and leave it as it is. A base
class does: with it mypy and pyright know ``remote`` and the like, with the arguments of
the constructor, and still all of the class itself, without a plugin. At run time it
is what the decorator does, with no options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from .of_class import NAMES, OfClass

if TYPE_CHECKING:
    from collections.abc import Callable

    from .decorator import RemoteClass
    from .marked import RemoteArray
    from .parameter import Parameter
    from .tessera import TesseraProxy

P = ParamSpec("P")
T = TypeVar("T")


class Tessera:
    """Base of a class whose objects can live in other processes; it may be left out.

    ``@tessera`` does the same for any class, and gives it options; both go together.
    With the base, type checkers know all of it: ``Counter.remote(...)`` is checked as
    the constructor is, and ``mosaic.call(counter, Counter.add, 1)`` as the method is.

    >>> import mosaic_like as mosaic
    >>> class Counter(mosaic.Tessera):
    ...     def __init__(self, start: int = 0) -> None: self.n = start
    ...     def add(self, k: int) -> int: self.n += k; return self.n
    >>> async def main():
    ...     counter = Counter.remote(10)
    ...     return await mosaic.call(counter, Counter.add, 5).result()
    >>> mosaic.run(main, num_workers=1)
    15
    """

    __slots__ = ()

    if TYPE_CHECKING:

        @classmethod
        def remote(
            cls: Callable[P, T], *args: P.args, **kwargs: P.kwargs
        ) -> TesseraProxy[T]:
            """Make one in a worker; returns at once."""

        @classmethod
        def local(
            cls: Callable[P, T], *args: P.args, **kwargs: P.kwargs
        ) -> TesseraProxy[T]:
            """Make one in this runtime, so that others can call back."""

        @classmethod
        def parameter(
            cls: Callable[P, T], *args: P.args, **kwargs: P.kwargs
        ) -> Parameter[T]:
            """Make one here, as a copy of a root in a worker."""

        @classmethod
        def local_parameter(
            cls: Callable[P, T], *args: P.args, **kwargs: P.kwargs
        ) -> Parameter[T]:
            """Make one here, as a copy of a root in this runtime."""

        @overload
        @classmethod
        def options(
            cls: Callable[P, T], *, len: int, **options: Any
        ) -> RemoteArray[P, T]: ...
        @overload
        @classmethod
        def options(cls: Callable[P, T], **options: Any) -> RemoteClass[P, T]: ...
        @classmethod
        def options(cls, **options: Any) -> Any:
            """The class with options; see ``tessera``."""

        @classmethod
        async def select_worker(cls, runtime: Any = None) -> str:
            """The uid of the worker where the next one would be placed."""


for _name in NAMES:
    if not TYPE_CHECKING:
        setattr(Tessera, _name, OfClass(_name))
del _name
