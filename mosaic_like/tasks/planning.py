"""What is decided of a call when it is made, in the thread that makes it.

Its arguments may change as soon as that has returned, so all that is made of them is
made here: the key of its cache, its name, the slots that it takes, where its value is
kept. What goes wrong then is the error of the call. ``guarding`` does what is planned.
"""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import session
from ..proxies.outputs import TaskOutput
from ..proxies.task import TaskProxy
from .attempt import HIDDEN, KeptHere
from .caching import InputHash, checked_key, expiration_of, key_function, refreshes
from .code import located
from .concurrency import REUSE, current_tags, slots_of_tags
from .digest import digest_of
from .naming import run_name_of
from .storage import Kept, key_from, serializer_of, store_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..comms.messages import Slot
    from .function import Task
    from .options import TaskOptions
    from .prepared import Prepared

logger = logging.getLogger(__name__)


class TaskContext:
    """What a ``cache_key`` function is given first.

    ``task``: the Task; ``info``: its name, key and version; ``parameters``: the
    arguments by name, with defaults; ``attempt``: 1; ``runtime_id``: of the process
    that submits.
    """

    __slots__ = ("_identity", "attempt", "info", "parameters", "runtime_id", "task")

    def __init__(
        self,
        task: Task[..., Any],
        parameters: Mapping[str, Any],
        runtime_id: str,
        identity: Callable[[Any], Any],
    ) -> None:
        self._identity = identity
        self.task = task
        self.parameters = parameters
        self.info = {"name": task.name, "key": task.key, "version": task.version or ""}
        self.attempt = 1
        self.runtime_id = runtime_id

    def identity(self, value: Any) -> Any:
        """What stands for a task among the arguments, for ``digest_of``."""
        return self._identity(value)


class Stored(NamedTuple):
    """What the value of a call is in any run of any program: by task and key.

    Only of calls whose values a store keeps for good: others may have another value
    under the same key when they run again.
    """

    name: str
    is_refreshed: bool  # what was made of the value that it had before is out of date


class InStore:
    """What stands for the proxies among the arguments of a call that a store keeps.

    Uids come round again in the next program: there, only what a store keeps is known
    by what it is, and all else by this run of the cluster. In this process it still
    counts which run made a value.
    """

    __slots__ = ("is_refreshed", "runs")

    def __init__(self) -> None:
        self.runs: list[Any] = []
        self.is_refreshed = False

    def __call__(self, value: Any) -> Any:
        run = identity(value)
        self.runs.append(run)
        stored = _stored(value)
        if stored is None:
            return session.current().run_id, run
        self.is_refreshed |= stored.is_refreshed
        if isinstance(value, TaskOutput):
            return stored.name, value._key
        return stored.name

    def key_here(self, key: str) -> str:
        """The key among the values of this process."""
        return digest_of((key, self.runs)) if self.runs else key


class Plan:
    """Of one call; see the module."""

    __slots__ = (
        "error",
        "expiration_s",
        "here",
        "is_refreshed",
        "key",
        "options",
        "parameters",
        "run_name",
        "slot",
        "stored",
        "tags",
    )

    def __init__(self, options: TaskOptions) -> None:
        self.options = options
        self.error: Exception | None = None
        self.expiration_s: float | None = None  # of its value, for others
        self.here: KeptHere | None = None
        self.key: str | None = None  # of its value among those of its task
        self.is_refreshed = False
        self.parameters: Mapping[str, Any] = {}
        self.run_name: str | None = None
        self.slot: Slot | None = None
        self.stored: Stored | None = None
        self.tags: frozenset[str] = frozenset()

    def begin(self, prepared: Prepared, proxy: TaskProxy[Any] | None) -> None:
        """The call is submitted; see ``Prepared.submit``."""
        from .guarding import Guard, guards_of

        guards = guards_of(prepared.functions.runtime)
        Guard(guards, prepared, self).begin(proxy)

    def with_hidden(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The keywords of the call as they go to the worker."""
        return kwargs if self.here is None else {**kwargs, HIDDEN: self.here}

    @property
    def tag_slots(self) -> list[Slot]:
        return slots_of_tags(self.tags)


class Planner:
    """Plans the calls of tasks with some options."""

    def __init__(self, options: TaskOptions) -> None:
        self._options = options
        self._key = key_function(options.cache_key)
        self._expiration_s = expiration_of(options.cache_expiration)
        self._store = store_of(options.store) if keeps_values(options) else None
        self._serializer = serializer_of(options.serializer)
        self._needs_parameters = (
            self._key is not None
            or options.run_name is not None
            or options.concurrency is not None
            or options.store_key is not None
        )
        self._has_warned = False

    def plan(
        self,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        runtime_id: str,
    ) -> Plan:
        """What is to be done with a call; what its functions raise is in the plan."""
        options = self._options
        plan = Plan(options)
        plan.tags = options.tags | current_tags()
        plan.expiration_s = self._expiration_s
        try:
            if self._needs_parameters:
                plan.parameters = bound(task, args, kwargs)
            if options.run_name is not None:
                plan.run_name = run_name_of(
                    options.run_name, plan.parameters, task.name
                )
            elif task.is_renamed:
                plan.run_name = task.name
            in_store = None if self._store is None else InStore()
            key: str | None = None
            if self._key is not None:
                key = self._key_of(task, plan, runtime_id, in_store or identity)
                plan.is_refreshed = refreshes(options.refresh_cache)
            plan.key = key
            if in_store is not None and key is not None:
                plan.key = in_store.key_here(key)
            if options.concurrency is not None:
                plan.slot = options.concurrency.slot(
                    task.key, plan.parameters, identity
                )
            if in_store is not None:
                name = None if key is None else digest_of((namespace(task), key))
                is_refreshed = plan.is_refreshed or in_store.is_refreshed
                plan.here = self._kept(task, plan, name, not is_refreshed)
                if name is not None and self._lasts:
                    plan.stored = Stored(name, is_refreshed)
        except Exception as error:
            plan.error = error
        return plan

    @property
    def _lasts(self) -> bool:
        """Whether a key is of one value, also when its call runs again."""
        rule = self._options.concurrency
        is_others = rule is not None and rule.on_conflict == REUSE
        return self._expiration_s is None and not is_others

    def _key_of(
        self,
        task: Task[..., Any],
        plan: Plan,
        runtime_id: str,
        identity: Callable[[Any], Any],
    ) -> str | None:
        if type(self._key) is InputHash:
            return self._key.key(
                task.fn, plan.parameters, identity, lambda why: self._warn(task, why)
            )
        context = TaskContext(task, plan.parameters, runtime_id, identity)
        key = self._key(context, plan.parameters)
        if inspect.isawaitable(key):
            key.close()  # type: ignore[attr-defined]  # a coroutine
            raise TypeError(f"the cache_key of {task.name} is a coroutine function")
        return checked_key(key, task.name)

    def _warn(self, task: Task[..., Any], why: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "%s is not cached: %s; leave it out with "
                "cache_key=input_hash(ignore=(...)), or give a cache_key of your own",
                task.name,
                why,
            )

    def _kept(
        self, task: Task[..., Any], plan: Plan, name: str | None, may_read: bool
    ) -> KeptHere | None:
        """Where its value is kept.

        Args:
            name: by which it is known in any run; None: by none.
            may_read: one that is there under that name will do.
        """
        options = self._options
        assert self._store is not None, "asked by plan"
        key: str | None = None
        if options.store_key is not None:
            info = {"name": task.name, "key": task.key, "version": task.version or ""}
            info["run_name"] = plan.run_name or task.name
            key = key_from(options.store_key, _named(plan.parameters), info)
        elif name is not None:
            key = name
        elif self._key is not None:
            return None  # it is not cached this time, and nothing is asked for but that
        if key is not None and hasattr(self._store, "file"):
            self._store.file(key)  # raises for a key that leads out of the directory
        # Others may have the same store_key, but a name is of one call alone.
        owner = None if key == name else name
        kept = Kept(self._store, key, self._serializer, owner)
        return KeptHere(kept, self._expiration_s, may_read and name is not None)


def keeps_values(options: TaskOptions) -> bool:
    """Whether values are written to a store."""
    if options.store is None or options.persist is False:
        return False
    return bool(options.persist) or options.cache_key is not None


def bound(
    task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The arguments of a call by name, with defaults."""
    signature = task._method.signature
    if signature is None:
        return {**{str(i): value for i, value in enumerate(args)}, **kwargs}
    found = signature.bind(*args, **kwargs)
    found.apply_defaults()
    return dict(found.arguments)


def namespace(task: Task[..., Any]) -> str:
    """What keeps the values of a task apart from those of others.

    For functions that travel by value the code counts, since many have one name.
    """
    code = "" if located(task.fn) is not None else _code_of(task)
    return f"{task.key}:{task.version or ''}:{code}"


def _code_of(task: Task[..., Any]) -> str:
    try:
        return digest_of(task.fn)
    except TypeError:
        return task._values_here.unique  # no other process could know it


def identity(value: Any) -> Any:
    """What stands for a proxy where arguments are compared.

    Of a task it is the run that makes its value, so that one whose value was cached
    stands for the run that did make it. Parts and tokens of tasks, and tesserae, have
    their own.
    """
    handle, about = type(value).__reference__(value)
    if isinstance(value, TaskProxy):
        rare = value._call.rare
        if rare is not None and rare.origin:
            return "run", rare.origin
        return "run", value._call.uid
    return (
        handle.kind,
        handle.uid,
        [part for part in about if isinstance(part, int | str)],
    )


def _stored(value: Any) -> Stored | None:
    """Of a task, or a part of one; a mark such as ``quote`` is not its value."""
    task = value._task if isinstance(value, TaskOutput) else value
    if not isinstance(task, TaskProxy) or task._call.rare is None:
        return None
    found: Stored | None = task._call.rare.stored
    return found


def _named(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """For a format string: a task stands there by its uid."""
    return {
        name: value.uid if isinstance(value, TaskProxy) else value
        for name, value in parameters.items()
    }
