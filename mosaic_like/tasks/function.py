"""``Task``: a function with options, whose calls can run in other processes.

Calling it calls the function; everything remote has a verb. How a call is made, from
its arguments to what is sent, stands in ``calls``; what options such as ``cache_key``
do in ``policy``, which is asked only by tasks that have some. Functions become tasks in
``marking``.
"""

from __future__ import annotations

import functools
import inspect
import marshal
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, TypeVar, overload

from .. import session
from ..comms.frames import UNSEEN
from ..comms.serialization import PLAIN, Payload
from ..core.sending import COUNTED_BYTES
from ..proxies.schema import Method
from ..proxies.task import TaskProxy
from .calls import extra_of, held_back, submitted
from .code import Code, found_at, located
from .concurrency import current_tags
from .here import Here, ValuesHere
from .mapping import mapped_arguments, starmap_arguments
from .options import UNSET, TaskOptions, merged
from .policy import check_against, code_of, is_needed, planner_of
from .submission import functions_of
from .tracing import DRAWING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping
    from typing import Unpack

    from ..proxies.array import TaskArrayProxy
    from .caching import Cache, CacheInfo
    from .keywords import CallKeywords, StandsFor

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

_SCALARS = PLAIN - {bytes}


class Task(Generic[P, R_co]):
    """A function with options, made by ``mosaic.task``; see there.

    >>> import mosaic_like as mosaic
    >>> @mosaic.task
    ... def square(x): return x * x
    >>> square(3)  # the function itself, here
    9
    >>> async def main():
    ...     return await square.submit(square.submit(2)).result()
    >>> mosaic.run(main, num_workers=1)
    16
    """

    __mosaic_task__: ClassVar[bool] = True

    def __init__(self, fn: Callable[P, R_co], options: TaskOptions, code: Code) -> None:
        self._fn = fn
        self._options = options
        self._code = code
        self._method = Method(self.name, fn, False)
        self._low, self._high = self._method.low, self._method.high
        self._extra = extra_of(options, code.name)
        self._planner = planner_of(options)
        self._values_here = ValuesHere()  # of ``run``
        # By options(): its code, which need not be sent again, has another name.
        self.is_renamed = self.name != code.name
        self.is_plain = not (
            self._extra is not None or self.is_renamed or is_needed(options)
        )
        if not self.is_plain:
            self._low, self._high = 1, 0  # never the short way
        functools.update_wrapper(self, fn, updated=())

    # -- what it is --------------------------------------------------------------------

    @property
    def fn(self) -> Callable[P, R_co]:
        """The function itself."""
        return self._fn

    @property
    def name(self) -> str:
        """The option, or the name of the function."""
        return self._options.name or self._code.name

    @property
    def description(self) -> str | None:
        """The option, or the first paragraph of the function's docstring."""
        if self._options.description is not None:
            return self._options.description
        text = inspect.getdoc(self._fn)
        return None if not text else text.partition("\n\n")[0].replace("\n", " ")

    @property
    def tags(self) -> frozenset[str]:
        return self._options.tags

    @property
    def version(self) -> str | None:
        return self._options.version

    @property
    def key(self) -> str:
        """``module:qualname``: the same in all processes, for what is kept by it."""
        fn = self._fn
        module = getattr(fn, "__module__", None) or "builtins"
        return f"{module}:{getattr(fn, '__qualname__', self._code.name)}"

    @property
    def is_async(self) -> bool:
        """Its function is a coroutine function."""
        return self._code.is_async

    # -- calling -----------------------------------------------------------------------

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        return self._fn(*args, **kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        raise TypeError(
            f"{self.name} is a method: @task is for functions; mark the class with "
            "@tessera and call the method on its proxy, or make it a staticmethod"
        )

    @overload
    def submit(
        self: Task[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> TaskProxy[T]: ...
    @overload
    def submit(self, *args: P.args, **kwargs: P.kwargs) -> TaskProxy[R_co]: ...
    # A task, or its future, stands for its value, which ParamSpec cannot say: in the
    # first three places.
    @overload
    def submit(
        self, first: StandsFor, /, *args: Any, **kwargs: Any
    ) -> TaskProxy[Any]: ...
    @overload
    def submit(
        self, first: Any, second: StandsFor, /, *args: Any, **kwargs: Any
    ) -> TaskProxy[Any]: ...
    @overload
    def submit(
        self, first: Any, second: Any, third: StandsFor, /, *args: Any, **kwargs: Any
    ) -> TaskProxy[Any]: ...
    def submit(self, *args: Any, **kwargs: Any) -> TaskProxy[Any]:
        """Run it in some worker; returns at once.

        The arguments are taken as they are now. Tasks among them, at any depth, stand
        for their values: the call starts when they have ended. There is no order
        between function tasks.

        Raises:
            TypeError: the arguments do not fit the signature.
            SerializationError: an argument, or the function, cannot travel.
            RuntimeError: there is no runtime.
        """
        if (
            kwargs
            or not self._low <= len(args) <= self._high
            or current_tags()
            or DRAWING.get() is not None
        ):
            with UNSEEN:
                return submitted(self, args, kwargs, 2)
        runtime = session.current()
        functions = runtime.functions or functions_of(runtime)
        code = self._code
        target = functions.target(code)
        for arg in args:
            if type(arg) not in _SCALARS:
                with UNSEEN:
                    return submitted(self, args, kwargs, 2)
        data = marshal.dumps(args, 2)
        payload = data if len(data) <= COUNTED_BYTES else Payload(data)
        return TaskProxy(runtime, runtime.submit(target, code.method, payload))

    def run(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run it in this process, now, with the retries, caching and hooks of the task.

        As a plain call, but for the options: ``max_retries`` and the rest of them,
        ``timeout``, ``delay``, ``cache_key``, ``persist``, ``cancel_if``, ``on_done``,
        ``on_failed``, ``on_state``. What the cluster decides does not count: places,
        limits and ``concurrency``. There need be no runtime. Values are cached for
        ``run`` alone, but those in a ``store`` are everybody's.

        Returns:
            The value; of a coroutine function a coroutine, which is to be awaited.

        Raises:
            Exception: what the last attempt has raised.
            TaskTimeoutError: its time is over. A plain function with a ``timeout`` runs
                in a thread of its own, which ends when it next comes to the
                interpreter.
            TypeError: the arguments do not fit the signature, or ``after=`` was given.

        >>> import mosaic_like as mosaic
        >>> tries = []
        >>> @mosaic.task(max_retries=2)
        ... def flaky(x):
        ...     tries.append(x)
        ...     return x / (len(tries) - 1)
        >>> flaky.run(3), len(tries)
        (3.0, 2)
        """
        self._method.check("", args, kwargs)
        here = Here(self, args, kwargs)
        return here.coroutine() if self.is_async else here.plain()  # type: ignore[return-value]  # the coroutine is its R

    @overload
    def task(
        self: Task[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> TaskProxy[T]: ...
    @overload
    def task(self, *args: P.args, **kwargs: P.kwargs) -> TaskProxy[R_co]: ...
    @overload
    def task(
        self, first: StandsFor, /, *args: Any, **kwargs: Any
    ) -> TaskProxy[Any]: ...
    @overload
    def task(
        self, first: Any, second: StandsFor, /, *args: Any, **kwargs: Any
    ) -> TaskProxy[Any]: ...
    @overload
    def task(
        self, first: Any, second: Any, third: StandsFor, /, *args: Any, **kwargs: Any
    ) -> TaskProxy[Any]: ...
    def task(self, *args: Any, **kwargs: Any) -> TaskProxy[Any]:
        """A call that is made and not sent: state prepare.

        It is sent by ``submit()``, by awaiting it, or when a call that is sent takes
        it as an argument. Until then ``require``, ``block`` and ``then`` say what it
        waits for; tasks among its arguments it waits for by itself.

        Raises:
            TypeError: the arguments do not fit the signature.
            SerializationError: an argument, or the function, cannot travel.

        >>> import mosaic_like as mosaic
        >>> @mosaic.task
        ... def double(x): return 2 * x
        >>> async def main():
        ...     task = double.task(2)
        ...     return task.state, await task.result()
        >>> mosaic.run(main, num_workers=1)
        (<TaskState.PREPARE: 'prepare'>, 4)
        """
        with UNSEEN:
            return held_back(self, args, kwargs, 2)

    def map(self, *args: Any, **kwargs: Any) -> TaskArrayProxy[Any]:
        """Submit a call for each item of the arguments that are iterable.

        Strings, bytes, mappings and what stands in ``unmapped(...)`` go to each call as
        they are, and so does a single task; of an array of tasks call i takes task i,
        and waits for no other.

        Raises:
            ValueError: their lengths differ; the text has all of them.
            TypeError: nothing is iterable, or a call does not fit the signature.

        >>> import mosaic_like as mosaic
        >>> @mosaic.task
        ... def add(x, y): return x + y
        >>> async def main():
        ...     return await add.map(add.map([1, 2, 3], 10), y=[1, 2, 3]).result()
        >>> mosaic.run(main, num_workers=1)
        [12, 14, 16]
        """
        from ..proxies.array import TaskArrayProxy

        with UNSEEN:
            drawing = DRAWING.get()
            if drawing is not None:
                drawn = drawing.mapped(self, args, kwargs)
                if drawn is not UNSET:
                    return drawn  # type: ignore[no-any-return]  # in place of the tasks
            calls = mapped_arguments(self._method, args, kwargs)
            tasks = []
            for a, k in calls:  # no comprehension: that is a frame of its own
                tasks.append(submitted(self, a, k, 2))
            return TaskArrayProxy(tasks)

    def starmap(
        self,
        params: Iterable[tuple[Any, ...] | dict[str, Any]],
        /,
        common: Mapping[str, Any] | None = None,
    ) -> TaskArrayProxy[Any]:
        """Submit a call for each tuple of positional, or dict of keyword, arguments.

        Args:
            params: of each call.
            common: keyword arguments of all calls; each must then be a dict.

        Raises:
            TypeError: something else is among them; the text has its index.
        """
        from ..proxies.array import TaskArrayProxy

        with UNSEEN:
            tasks = []
            for a, k in starmap_arguments(self.name, params, common):
                tasks.append(submitted(self, a, k, 2))
            return TaskArrayProxy(tasks)

    # -- what is cached ----------------------------------------------------------------

    def cache_info(self) -> CacheInfo:
        """How often values were there already; of this process.

        ``hits``: they were there; ``reused``: they were being made; ``misses``: they
        were made; ``size``: how many are there now.
        """
        with self._values_here.lock:
            counts = [cache.info for cache in self._caches()]
        return type(counts[0])(*map(sum, zip(*counts, strict=True)))

    def cache_clear(self) -> None:
        """Forget the values that this process knows; those in a ``store`` stay."""
        with self._values_here.lock:
            for cache in self._caches():
                cache.clear()

    def _caches(self) -> list[Cache]:
        """Of its calls here, and of those that the runtime, if there is one, sends."""
        from .guarding import guards_of
        from .planning import namespace

        found = [self._values_here.of(self)]
        runtime = session.peek()
        if runtime is not None:
            found.append(guards_of(runtime).cache(namespace(self)))
        return found

    # -- options -----------------------------------------------------------------------

    def options(self, **options: Unpack[CallKeywords]) -> Task[P, R_co]:
        """The same function with other options; this one stays as it is.

        Args:
            options: those of ``mosaic.task``; UNSET keeps one, None unsets it. And of
                the calls: ``after``: tasks that must have ended well before; ``delay``:
                seconds before a call may start; ``batch_size``: calls that go
                together.

        Raises:
            TypeError: unknown options, or values of the wrong type.
            ValueError: a value out of range.
        """
        new = merged(self._options, options)
        check_against(new, self._fn)
        made = Task(self._fn, new, code_of(self._code, self._options, new))
        made._values_here = self._values_here
        return made

    # -- by name -----------------------------------------------------------------------

    async def serve(self) -> None:
        """Let other programs of the cluster call it; see ``runtime.serve``."""
        await session.current().serve(self)

    def to_json(self) -> str:
        """Its name and options, for ``from_json`` in another program.

        Raises:
            ValueError: its function, or what an option has, is in no module.
        """
        from .jsonable import to_json

        return to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Task[..., Any]:
        """The task that ``to_json`` has written. It imports the module that is named.

        Raises:
            LookupError: there is no such module or function here.
            ValueError: the text is no task.

        >>> import shutil, mosaic_like as mosaic
        >>> text = mosaic.task(shutil.copy, max_retries=2).to_json()
        >>> text
        '{"task": "shutil:copy", "options": {"max_retries": 2}}'
        >>> mosaic.Task.from_json(text)
        <task copy>
        """
        from .jsonable import from_json

        return from_json(text)

    def describe(self) -> tuple[str, list[str]]:
        """What is called and the names of its positional arguments, for errors."""
        signature = self._method.signature
        names = [] if signature is None else list(signature.parameters)
        return self.name, names

    def __reduce__(self) -> tuple[Any, ...]:
        found = located(self._fn)
        if found is not None and found_at(*found) is self:
            return found_at, found
        return _rebuilt, (self._fn, self._options.given(), self._code.name)

    def __repr__(self) -> str:
        return f"<task {self.name}>"


# A call that runs in them, inside another, can be stopped: see runtimes.interrupts.
PASSING = (Task.__call__.__code__, Task.run.__code__)


def _rebuilt(fn: Any, options: dict[str, Any], name: str) -> Task[..., Any]:
    made = TaskOptions(**options)
    return Task(fn, made, code_of(Code(fn, name), None, made))
