"""Classes that the system tests make tesserae of; imported by the workers."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import mosaic_like as mosaic

RunIn = Callable[[Callable[[Any], Awaitable[Any]]], Any]


def catch_all(begun: Path, over: Callable[[int], bool]) -> int:
    """Run on until then, whatever is raised here; how often something was.

    Args:
        begun: is touched while it runs.
        over: whether it is, by how often something was.
    """
    caught = 0
    while True:
        try:
            while not over(caught):
                begun.touch()
                time.sleep(0.02)
            return caught
        except BaseException:
            caught += 1


@mosaic.tessera
class Warm:
    """Opens the connections that every test would open otherwise.

    Not in conftest: there are two modules of that name, and a worker imports one.
    """

    def touch(self, data: bytes) -> bytes:
        return data


@mosaic.tessera
class Counter:
    """Counts."""

    unit: ClassVar[str] = "pieces"

    def __init__(self, start: int = 0) -> None:
        self.n = start
        self.seen: list[Any] = []

    def add(self, k: int, *, times: int = 1) -> int:
        """Add k so many times."""
        self.n += k * times
        return self.n

    def note(self, item: Any) -> None:
        self.seen.append(item)

    def notes(self) -> list[Any]:
        return self.seen

    def value(self) -> int:
        return self.n

    @property
    def double(self) -> int:
        return 2 * self.n

    @staticmethod
    def twice(x: int) -> int:
        return 2 * x

    @classmethod
    def named(cls, what: str) -> str:
        return f"{cls.__name__} of {what}"

    def _secret(self) -> int:
        return self.n

    def pid(self) -> int:
        return os.getpid()

    def fail(self, text: str = "as asked") -> None:
        raise ValueError(text)

    def identity(self, value: Any = None) -> Any:
        return value


class Plain:
    """Nobody marked it."""

    def __init__(self, word: str) -> None:
        self.word = word

    def shout(self) -> str:
        return self.word.upper()


class BigCounter(Counter):
    """A subclass of a marked class."""

    def add_many(self, *ks: int) -> int:
        for k in ks:
            self.add(k)
        return self.n


class Greedy:
    """Its names are those that a library would like to have."""

    def __init__(self, runtime: int = 0, len: int = 0, timeout: int = 0) -> None:
        self.given = (runtime, len, timeout)

    def remote(self, x: int) -> int:
        return x + 1

    def options(self, **kwargs: Any) -> dict[str, Any]:
        return kwargs

    def local(self) -> str:
        return "local"

    def get_attr(self, a: str) -> str:
        return f"mine {a}"

    def set_attr(self, a: str, b: int) -> str:
        return f"mine {a} {b}"

    def result(self) -> str:
        return "result"

    def done(self) -> str:
        return "done"

    def what(self) -> tuple[int, int, int]:
        return self.given

    def keywords(self, runtime: int = 0, len: int = 0, timeout: int = 0) -> Any:
        return runtime, len, timeout

    def anything(self, **kwargs: Any) -> dict[str, Any]:
        return kwargs


@mosaic.tessera(expose=("__adjoint__", "_half"))
class Container:
    """The object protocol that proxies forward."""

    def __init__(self) -> None:
        self.items: dict[Any, Any] = {}

    def __call__(self, x: int, plus: int = 0) -> int:
        return 10 * x + plus

    def __getitem__(self, key: Any) -> Any:
        return self.items[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def __delitem__(self, key: Any) -> None:
        del self.items[key]

    def __contains__(self, key: Any) -> bool:
        return key in self.items

    def size(self) -> int:
        return len(self.items)

    def __adjoint__(self) -> str:
        return "adjoint"

    def _half(self) -> float:
        return 0.5

    def _hidden(self) -> None: ...


@mosaic.tessera
class Open:
    """Answers to any name."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args: (name, args)


@mosaic.tessera
class Caller:
    """Calls others from inside its methods."""

    def __init__(self, other: Any = None) -> None:
        self.other = other
        self.kept: Any = None

    def set(self, other: Any) -> None:
        self.other = other

    def get_there(self, name: str, *args: Any) -> Any:
        """Block in a plain method."""
        return getattr(self.other, name)(*args).get(20)

    async def ask(self, name: str, *args: Any) -> Any:
        return await getattr(self.other, name)(*args).result()

    def fire(self, name: str, *args: Any) -> None:
        """Call and forget."""
        getattr(self.other, name)(*args)

    def many(self, name: str, count: int, mark: Any) -> None:
        for i in range(count):
            getattr(self.other, name)((mark, i))

    def pass_on(self, name: str, *args: Any) -> Any:
        """Give the task itself."""
        return getattr(self.other, name)(*args)

    def keep(self, box: Any) -> str:
        self.kept = box[0]
        return type(self.kept).__name__

    def use_kept(self, *args: Any) -> Any:
        return self.kept.add(*args).get(20)

    def chain(self, depth: int, others: list[Any]) -> int:
        """Nested blocking, through many tesserae."""
        if not others:
            return depth
        return int(others[0].chain(depth + 1, others[1:]).get(20))

    def leaf(self, count: int) -> int:
        return count

    def pid(self) -> int:
        return os.getpid()


@mosaic.tessera
class Slow:
    """Takes as long as it is told: the file, when it is there, ends it."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.done = 0

    def hold(self, path: str, limit_s: float = 20.0) -> str:
        """Hold the thread until a file is there."""
        self.order.append("hold")
        deadline_s = time.monotonic() + limit_s
        while not Path(path).exists():
            if time.monotonic() > deadline_s:
                raise TimeoutError(path)
            time.sleep(0.005)
        return "held"

    async def ahold(self, path: str, limit_s: float = 20.0) -> str:
        self.order.append("ahold")
        async with asyncio.timeout(limit_s):
            while not Path(path).exists():  # noqa: ASYNC110, ASYNC240 - made by a test
                await asyncio.sleep(0.005)
        return "held"

    def mark(self, what: str, *_: Any) -> list[str]:
        self.order.append(what)
        return self.order

    def touch(self, path: str) -> None:
        Path(path).touch()

    async def forever(self, started: str) -> None:
        Path(started).touch()  # noqa: ASYNC240 - one call
        await asyncio.Event().wait()

    def sleep(self, started: str, seconds: float = 20.0) -> None:
        Path(started).touch()
        time.sleep(seconds)


class Overlap:
    """For is_async, inline and thread."""

    def __init__(self) -> None:
        self.waiting: dict[int, asyncio.Event] = {}
        self.running = 0
        self.most = 0

    async def meet(self, me: int, other: int) -> int:
        """Ends only if the other runs at the same time."""
        self.running += 1
        self.most = max(self.most, self.running)
        mine = self.waiting.setdefault(me, asyncio.Event())
        self.waiting.setdefault(other, asyncio.Event()).set()
        async with asyncio.timeout(20):
            await mine.wait()
        self.running -= 1
        return self.most

    async def turn(self) -> int:
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.001)
        self.running -= 1
        return self.most

    def where(self) -> tuple[str, bool]:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            on_loop = False
        else:
            on_loop = True
        return threading.current_thread().name, on_loop

    async def awhere(self) -> str:
        return threading.current_thread().name
