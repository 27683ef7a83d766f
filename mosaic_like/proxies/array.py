"""Many tesserae of one class, dealt over the workers, called together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from .methods import RemoteMethod
from .refusing import check_remote
from .waiting import gather

if TYPE_CHECKING:
    from .outputs import TaskDone, TaskOutput
    from .task import TaskProxy
    from .tessera import TesseraProxy

T = TypeVar("T")
R = TypeVar("R")


class TaskArrayProxy(Sequence["TaskProxy[R]"], Generic[R]):
    """The tasks of one call on many tesserae, in their order.

    ``await tasks`` waits for all and gives itself; ``await tasks.result()`` gives the
    values; ``async for value in tasks`` gives them one by one, in order. It is a
    sequence of tasks.

    >>> import mosaic_like as mosaic
    >>> @mosaic.tessera
    ... class Place:
    ...     def __init__(self, start): self.start = start
    ...     def add(self, x): return self.start + x
    >>> async def main():
    ...     tasks = Place.remote(10, len=3).add(2)
    ...     await tasks[0]
    ...     return len(tasks), [value async for value in tasks]
    >>> mosaic.run(main, num_workers=2)
    (3, [12, 12, 12])
    """

    __slots__ = ("_tasks",)

    def __init__(self, tasks: Sequence[TaskProxy[R]]) -> None:
        self._tasks = list(tasks)

    @overload
    def __getitem__(self, index: int) -> TaskProxy[R]: ...
    @overload
    def __getitem__(self, index: slice) -> TaskArrayProxy[R]: ...
    def __getitem__(self, index: int | slice) -> TaskProxy[R] | TaskArrayProxy[R]:
        if isinstance(index, slice):
            return TaskArrayProxy(self._tasks[index])
        return self._tasks[index]

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[TaskProxy[R]]:
        return iter(self._tasks)

    def __await__(self) -> Generator[Any, None, TaskArrayProxy[R]]:
        for task in self._tasks:
            yield from task.__await__()
        return self

    async def result(self) -> list[R]:
        """The values in order; the first failure is raised, the others go on."""
        return await gather(*self._tasks)

    async def __aiter__(self) -> AsyncIterator[R]:
        for task in self._tasks:
            yield await task.result()

    def cancel(self, reason: str | None = None) -> int:
        """Cancel all; how many had not ended."""
        return sum(task.cancel(reason) for task in self._tasks)

    @property
    def outputs(self) -> list[TaskOutput]:
        """``outputs[0]`` of each."""
        return [task.outputs[0] for task in self._tasks]

    @property
    def done(self) -> list[TaskDone]:
        """The token of each."""
        return [task.done for task in self._tasks]

    def __repr__(self) -> str:
        ended = sum(task.done() for task in self._tasks)
        return f"<{len(self)} tasks · {ended} ended>"


class ArrayMethod:
    """``array.method``: calls it on all, or with ``runtime=`` on one."""

    __slots__ = ("_array", "_name", "_options")

    def __init__(self, array: ArrayProxy[Any], name: str) -> None:
        self._array = array
        self._name = name
        self._options: dict[str, Any] = {}

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        members = list(self._array)
        first = self._first()
        if not isinstance(first, RemoteMethod):
            return first(*args, **kwargs)  # says that there is no such method
        if "runtime" in kwargs and not first._method.takes("runtime"):
            where = kwargs.pop("runtime")
            return self._of(self._array.on(where))(*args, **kwargs)
        return TaskArrayProxy([self._of(m)(*args, **kwargs) for m in members])

    def options(self, **options: Any) -> ArrayMethod:
        """The same method, called with these options; see ``RemoteMethod.options``."""
        self._array[0]._mosaic_method(self._name).options(
            **options
        )  # refuses wrong ones
        method = ArrayMethod(self._array, self._name)
        method._options = {**self._options, **options}
        return method

    def _first(self) -> Any:
        return self._find(self._array[0])

    def _find(self, member: TesseraProxy[Any]) -> Any:
        if self._name == "__call__":  # a name of the proxy's own class too
            return member._mosaic_method(self._name)
        return getattr(member, self._name)

    def _of(self, member: TesseraProxy[Any]) -> Any:
        method = self._find(member)
        return method.options(**self._options) if self._options else method

    @property
    def __name__(self) -> str:
        return self._name

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]  # of each instance
        method = self._array[0]._mosaic_schema.methods.get(self._name)
        return None if method is None else getattr(method.function, "__doc__", None)

    @property
    def __signature__(self) -> Any:
        method = self._array[0]._mosaic_schema.methods.get(self._name)
        if method is None or method.signature is None:
            raise AttributeError("__signature__")
        return method.signature

    def __await__(self) -> Generator[Any, None, list[Any]]:
        return self._read().__await__()

    async def _read(self) -> list[Any]:
        return [await getattr(member, self._name) for member in self._array]

    def __repr__(self) -> str:
        return f"<{self._name} of {self._array!r}>"


class ArrayProxy(Generic[T]):
    """Many tesserae of one class.

    Calling a method, or the array itself, calls it on all and gives a
    ``TaskArrayProxy``; with ``runtime=w`` only on the one at that worker.
    ``await array`` waits until all are built.

    >>> import mosaic_like as mosaic
    >>> @mosaic.tessera
    ... class Square:
    ...     def of(self, x): return x * x
    >>> async def main(runtime):
    ...     squares = Square.remote(len=2)
    ...     of_all = await squares.of(4).result()
    ...     of_one = await squares.of(5, runtime=runtime.workers[1]).result()
    ...     return of_all, of_one, await squares[0].of(6).result()
    >>> mosaic.run(main, num_workers=2)
    ([16, 16], 25, 36)
    """

    __slots__ = ("__weakref__", "_mosaic_members", "_mosaic_places")

    def __init__(
        self, members: Sequence[TesseraProxy[T]], places: Sequence[int] = ()
    ) -> None:
        """See the class.

        Args:
            members: the tesserae.
            places: incarnations of where they were put, while only that is known.
        """
        self._mosaic_members = tuple(members)
        self._mosaic_places = tuple(places)

    def __reduce__(self) -> tuple[Any, ...]:
        return ArrayProxy, (self._mosaic_members,)

    def __getattr__(self, name: str) -> Any:
        check_remote(name)
        return ArrayMethod(self, name)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return ArrayMethod(self, "__call__")(*args, **kwargs)

    def on(self, where: Any) -> TesseraProxy[T]:
        """The one at a worker.

        Args:
            where: a worker, its uid, or the proxy of a tessera that is there.

        Raises:
            LookupError: none of these is at that worker; make them with ``len`` of at
                least the number of workers.
            RuntimeDisconnectedError: that worker is lost.
        """
        runtime = self._mosaic_members[0]._mosaic_handle.runtime
        place = runtime.resolve_worker(where)
        incarnation = getattr(place, "incarnation", 0)  # a stream has none yet
        known = self._mosaic_places
        for index, proxy in enumerate(self._mosaic_members):
            owner = proxy._mosaic_handle.stream.owner
            if incarnation and incarnation == (owner or known[index]):
                return proxy
        name = getattr(place, "uid", where)
        raise LookupError(f"none of {self!r} is at {name}")

    def __getitem__(self, index: int) -> TesseraProxy[T]:
        try:
            return self._mosaic_members[index]
        except IndexError:
            raise IndexError(f"{self!r} has no member {index}") from None

    def __len__(self) -> int:
        return len(self._mosaic_members)

    def __iter__(self) -> Iterator[TesseraProxy[T]]:
        return iter(self._mosaic_members)

    def __dir__(self) -> list[str]:
        return dir(self._mosaic_members[0])

    def __await__(self) -> Generator[Any, None, ArrayProxy[T]]:
        for proxy in self._mosaic_members:
            yield from proxy.__await__()
        return self

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ArrayProxy):
            return self._mosaic_members == other._mosaic_members
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._mosaic_members)

    def __repr__(self) -> str:
        name = self._mosaic_members[0]._mosaic_schema.name
        return f"<{len(self)} of {name}>"
