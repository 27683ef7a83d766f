"""What type checkers see of a class that is marked by ``@tessera``.

No type checker lets a decorator add a name to a class and leave it as it is. One that
derives from ``mosaic.Tessera`` needs none of this. For others mypy is told by the
plugin ``mosaic_like.mypy``; for pyright, which looks at what the decorator returns, the
class becomes a ``TesseraClass``: constructor and ``remote`` are checked, other names of
the class are ``Any``. None of this is there at run time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, ParamSpec, Protocol, Self, TypeVar, overload

from .array import ArrayProxy
from .base import Tessera
from .decorator import RemoteClass
from .parameter import Parameter
from .tessera import TesseraProxy

P = ParamSpec("P")
T = TypeVar("T")
TypedT = TypeVar("TypedT", bound=Tessera)

class RemoteArray(Protocol[P, T]):
    """A class with ``len=n``: what it makes is an array."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> ArrayProxy[T]: ...
    def remote(self, *args: P.args, **kwargs: P.kwargs) -> ArrayProxy[T]: ...
    def options(self, **options: Any) -> RemoteArray[P, T]: ...

class OptionsOf(Protocol[P, T]):
    """``Klass.options``."""

    @overload
    def __call__(self, *, len: int, **options: Any) -> RemoteArray[P, T]: ...
    @overload
    def __call__(self, **options: Any) -> RemoteClass[P, T]: ...

class SelectWorker(Protocol):
    """``Klass.select_worker``."""

    def __call__(self, runtime: Any = None) -> Awaitable[str]: ...

class TesseraClass(Any, Generic[P, T]):  # type: ignore[misc]  # it has any other name
    """The class, as pyright sees it."""

    def __init__(self, *args: P.args, **kwargs: P.kwargs) -> None: ...
    @classmethod
    def remote(cls, *args: P.args, **kwargs: P.kwargs) -> TesseraProxy[Self]: ...
    @classmethod
    def local(cls, *args: P.args, **kwargs: P.kwargs) -> TesseraProxy[Self]: ...
    @classmethod
    def parameter(cls, *args: P.args, **kwargs: P.kwargs) -> Parameter[Self]: ...
    @classmethod
    def local_parameter(cls, *args: P.args, **kwargs: P.kwargs) -> Parameter[Self]: ...
    @overload
    @classmethod
    def options(cls, *, len: int, **options: Any) -> RemoteArray[P, Self]: ...
    @overload
    @classmethod
    def options(cls, **options: Any) -> RemoteClass[P, Self]: ...
    @classmethod
    async def select_worker(cls, runtime: Any = None) -> str: ...

class Marker(Protocol):
    """``@tessera(option=...)``."""

    @overload
    def __call__(self, cls: type[TypedT], /) -> type[TypedT]: ...  # type: ignore[overload-overlap]  # the first one that fits counts
    @overload
    def __call__(self, cls: Callable[P, T], /) -> type[TesseraClass[P, T]]: ...
