"""What a remote generator yields, as its caller takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar

from ..core.intake import Intake, IntakeState
from ..core.task import DONE, FAILED
from .settling import ended, future_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from ..core.call import Call
    from .runtime import Runtime

T_co = TypeVar("T_co", covariant=True)


class Intakes(Protocol):
    """What a stream needs of its runtime; see ``runtimes/intakes.py``."""

    def open(self, call: Call) -> Intake: ...
    def when_ready(self, intake: Intake, then: Callable[[], Any]) -> None: ...
    def take(self, call: Call, intake: Intake) -> Any: ...
    def leave(self, call: Call, intake: Intake) -> None: ...
    def block(self, call: Call, intake: Intake, timeout: float | None) -> None: ...


class RemoteStream(Generic[T_co]):
    """The items of a generator that runs elsewhere.

    ``async for item in proxy.method(...)``, and ``for`` in threads and plain methods.
    The generator runs at most 16 items ahead; when the stream is dropped, for example
    by ``break``, it is closed there. It starts in order with the other calls; while it
    waits for its consumer, its tessera runs others.

    An error that the generator raises comes after the items before it.

    >>> import mosaic_like as mosaic
    >>> @mosaic.tessera
    ... class Words:
    ...     def of(self, text): yield from text.split()
    >>> async def main():
    ...     return [word async for word in Words.remote().of("one two three")]
    >>> mosaic.run(main, num_workers=1)
    ['one', 'two', 'three']
    """

    __slots__ = ("__weakref__", "_call", "_handle", "_intake", "_over", "_runtime")

    def __init__(self, runtime: Runtime, call: Call, handle: Any = None) -> None:
        self._runtime = runtime
        self._call = call
        self._handle = handle  # the tessera lives as long as its stream is wanted
        self._intake = runtime.intakes.open(call)
        self._over = False

    def __del__(self) -> None:
        runtime = self._runtime
        if self._intake.state is not IntakeState.ENDED:
            runtime.intakes.leave(self._call, self._intake)
        runtime.dropped.append(self._call)
        if not runtime.peers.ticking:
            runtime._wake_tick()

    # -- items -------------------------------------------------------------------------

    def __aiter__(self) -> RemoteStream[T_co]:
        return self

    async def __anext__(self) -> T_co:
        intake = self._intake
        runtime = self._runtime
        while not (intake.ready or self._over):
            await _ready(runtime, intake)
        if intake.items and not self._over:
            return runtime.intakes.take(self._call, intake)  # type: ignore[no-any-return]  # an item: its type is the caller's to know
        self._end(StopAsyncIteration)

    def __iter__(self) -> Iterator[T_co]:
        return self

    def __next__(self) -> T_co:
        return self.next()

    def next(self, timeout: float | None = None) -> T_co:
        """The next item, blocking; for threads and plain methods.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            StopIteration: there are no more.
            TimeoutError: none has come in time; it goes on.
            RuntimeError: this is the loop's thread: write ``async for``.
        """
        intake = self._intake
        runtime = self._runtime
        while not (intake.ready or self._over):
            runtime.intakes.block(self._call, intake, timeout)
        if intake.items and not self._over:
            return runtime.intakes.take(self._call, intake)  # type: ignore[no-any-return]  # an item: its type is the caller's to know
        self._end(StopIteration)

    def _end(self, stop: type[Exception]) -> NoReturn:
        """The error of the generator, once; then what ends a loop."""
        call = self._call
        if self._over or call.state == DONE:
            self._over = True
            raise stop
        self._over = True
        raise self._runtime.error_of(call)

    # -- ending it ---------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close the generator, and wait until it is closed.

        Raises:
            Exception: what its clean-up raised.
        """
        self._leave()
        if self._call.state < DONE:
            await ended(self._runtime, self._call)
        self._closed(self._call)

    def close(self, timeout: float | None = None) -> None:
        """The same, blocking; for threads and plain methods."""
        self._leave()
        self._runtime.block(self._call, timeout)
        self._closed(self._call)

    def _leave(self) -> None:
        if not self._over and self._intake.state is not IntakeState.ENDED:
            self._runtime.intakes.leave(self._call, self._intake)

    def _closed(self, call: Call) -> None:
        if not self._over and call.state == FAILED:
            self._over = True
            raise self._runtime.error_of(call)
        self._over = True

    def cancel(self, reason: str | None = None) -> bool:
        """Stop the generator where it is: its consumer gets TaskCancelledError.

        Returns:
            False if it has ended already.
        """
        return self._runtime.cancel(self._call, reason or "")

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a stream ({self.name}) has one consumer and cannot travel; send its "
            "items, or let the other call the method itself"
        )

    if not TYPE_CHECKING:  # a type checker tells both mistakes by itself

        def __await__(self) -> NoReturn:
            raise TypeError(self._no_task())

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("_"):
                raise AttributeError(f"a stream has no {name!r}")
            raise AttributeError(f"{name!r}: {self._no_task()}")

    def _no_task(self) -> str:
        return (
            f"this is a stream ({self.name}), since the method is a generator; take "
            "its items by 'async for item in ...'"
        )

    @property
    def name(self) -> str:
        """Tessera and method."""
        return self._call.name

    def __repr__(self) -> str:
        what = "ended" if self._over or self._call.state >= DONE else "open"
        return f"<Stream {self.name} · {what} · async for item in it>"


def _ready(runtime: Runtime, intake: Intake) -> asyncio.Future[None]:
    """A future of the running loop, done when there is an item, or the end."""
    return future_of(runtime, lambda then: runtime.intakes.when_ready(intake, then))
