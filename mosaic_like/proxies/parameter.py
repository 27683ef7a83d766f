"""Parameters: an object at a root, with copies where it is used that say when they lag.

``Klass.parameter(...)`` gives an instance of a class made here, below the user's class:
its own attributes and methods work as ever, and ``Parameter`` adds what goes between
the copy and the root, where the user's class has no such name. The user's class itself
is not touched. What is asked of the root is in ``replica.py``; the root in ``root.py``.
"""

from __future__ import annotations

import copy
import copyreg
import functools
import inspect
import types
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from .. import session
from ..comms.messages import Options
from .exchange import Exchange
from .replica import Replica
from .root import OWN_SLOT, ParameterRoot, attributes_of, fill, marks_of
from .schema import schema_of
from .task import TaskProxy
from .tessera import TesseraProxy, proxy_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..core.versions import CopyState
    from .root import Reply

T_co = TypeVar("T_co", covariant=True)

_get = object.__getattribute__

if TYPE_CHECKING:
    _reading = property
else:

    class _reading:
        """A property that an attribute of the same name wins over."""

        def __init__(self, function: Callable[[Any], Any]) -> None:
            self._function = function
            self.__doc__ = function.__doc__

        def __get__(self, instance: Any, owner: Any = None) -> Any:
            return self if instance is None else self._function(instance)


class Parameter(Generic[T_co]):
    """An object that lives at a root, as a copy in this runtime.

    ``Klass.parameter(...)`` makes one whose root is in a worker,
    ``Klass.local_parameter(...)`` one whose root is in this runtime. It is an instance
    of ``Klass``: attributes and methods are those of the copy, at no cost. As an
    argument or a result it arrives as a copy with what the root has when it is sent.
    Copies change only by ``pull``; the root only by ``push``, ``set`` and
    ``propagate``. With ``cached=True`` (an option as ``runtime`` is) what was sent once
    is sent again, until this runtime knows of something newer; else the root is asked
    at each sending, for everything. Each attribute has a version, and an operation that
    would lose a change, or spread an old value, raises ``StaleError`` or
    ``ConflictError``.

    What the user's class has of these names wins; ``mosaic.Parameter.push(copy)`` and
    the like always work. Each of them is sent at once and gives an ``Exchange``, to be
    awaited, or in a plain method asked by ``get()``. A change that is made in place is
    noticed too: for that all memory of the copy that can be written is looked over when
    it is sent, pushed or pulled (1.5 GB/s); read-only arrays, as they arrive, cost
    nothing.

    >>> import mosaic_like as mosaic
    >>> @mosaic.tessera
    ... class Model:
    ...     def __init__(self, speed): self.speed = speed
    ...     def faster(self, by): self.speed += by; return self.speed
    >>> @mosaic.tessera
    ... class Solver:
    ...     def run(self, model): return model.speed * 2
    >>> async def main(runtime):
    ...     model, solver = Model.parameter(3), Solver.remote()
    ...     first = await solver.run(model).result()
    ...     model.speed = 4
    ...     await model.push()
    ...     await model.faster(1, propagate=True)
    ...     return first, model.speed, await solver.run(model).result()
    >>> mosaic.run(main, num_workers=1)
    (6, 5, 10)
    """

    __slots__ = ()

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

        def __setattr__(self, name: str, value: Any) -> None: ...

    def pull(
        self, attr: str | Iterable[str] | None = None, *, discard: bool = False
    ) -> Exchange[None]:
        """Take what has changed at the root.

        Args:
            attr: an attribute or several; None: all.
            discard: also take back what was changed here.

        Raises:
            ConflictError: by awaiting: an attribute was changed on both sides, and
                nothing was taken; ``pull(discard=True)`` or ``push(force=True)``.
            AttributeError: by awaiting: the root has no such attribute.
        """
        replica = replica_of(self)
        if replica.waiting is None:
            return replica.pull(self, _names(attr), discard)
        task: TaskProxy[Reply] = replica.root.read(None, {})
        return Exchange(replica, [task], lambda values: _arrived(self, values[0]))

    def push(
        self,
        attr: str | Iterable[str] | None = None,
        publish: bool = False,
        *,
        force: bool = False,
    ) -> Exchange[None]:
        """Send what was changed here to the root: all of it, or nothing.

        Args:
            attr: an attribute or several; None: all that were changed.
            publish: then also what ``publish()`` does.
            force: overwrite what others have changed at the root.

        Raises:
            ConflictError: an attribute was changed on both sides; by awaiting, if
                that was not known here. Nothing was written.
            StaleError: one that was named is older than the root's.
            AttributeError: one that was named is not there.
        """
        replica = _present(self)
        if publish:
            return replica.publish(self, _names(attr), force)
        return replica.push(self, _names(attr), force)

    def set(self, attr: str, value: Any, *, force: bool = False) -> Exchange[None]:
        """Set an attribute here and at the root.

        Args:
            attr: its name; a property, too.
            value: what it becomes.
            force: also if this copy is behind.

        Raises:
            StaleError: this copy is behind, and nothing was set; ``pull`` first. By
                awaiting: ConflictError, if that was known only at the root.
        """
        return _present(self).put(self, attr, value, force)

    def get(self, attr: str) -> Exchange[Any]:
        """The root's value of an attribute or property; the copy stays as it is.

        With ``cached=True`` it is the copy's, without asking, unless it was changed or
        something newer is known of.

        Raises:
            AttributeError: by awaiting: the root has no such attribute.
        """
        return replica_of(self).get(self, attr)

    def propagate(self, method: str, /, *args: Any, **kwargs: Any) -> Exchange[Any]:
        """Run a method at the root, and take here what it has changed.

        ``copy.method(..., propagate=True)`` is the same, where the method has no
        argument of that name and no ``**kwargs``. Arrays that came to the root in a
        message are read-only there: give the attribute a new one.

        Args:
            method: its name.
            args, kwargs: its arguments.

        Returns:
            By awaiting: what the method returned; this copy, if that was ``self``.

        Raises:
            StaleError: this copy was changed and not pushed: the method would not see
                it.
            AttributeError: there is no such public method.
            Exception: by awaiting: what the method raised.
        """
        return _present(self).propagate(self, method, args, kwargs)

    def publish(self) -> Exchange[None]:
        """Push, and bring what the root has to all runtimes that have copies.

        From then on a copy there knows that it is behind, and its ``pull`` moves
        nothing large.

        Raises:
            ConflictError: as for ``push``.
        """
        return _present(self).publish(self)

    def copy_states(self) -> dict[str, CopyState]:
        """Of each attribute how this copy stands to its root, as far as known here."""
        return _present(self).states(self)

    @_reading
    def version(self) -> int:
        """The root's count of changes, up to the latest that this copy has taken."""
        replica = replica_of(self)
        replica.collect()
        return max(replica.versions.base.values(), default=0)

    @_reading
    def ref(self) -> TesseraProxy[Any]:
        """The root, as a tessera; two copies of one parameter have equal ones."""
        return cast("TesseraProxy[Any]", replica_of(self).root)

    @_reading
    def cached(self) -> bool:
        """What this runtime has is passed on, until something newer is known of."""
        return replica_of(self).cached

    @_reading
    def has_tessera(self) -> bool:
        """It has a root: it is not just an instance that a method has made."""
        return _replica(self) is not None

    @_reading
    def is_tessera(self) -> bool:
        """The root is in this runtime."""
        replica = replica_of(self)
        owner = replica.root._mosaic_handle.stream.owner
        return bool(owner == replica.runtime.incarnation)

    @_reading
    def is_proxy(self) -> bool:
        """The root is in another runtime."""
        return not Parameter.is_tessera.__get__(self)

    def __copy__(self) -> Any:
        """A plain object, that has nothing to do with the root."""
        return _plain(self, dict)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return _plain(self, lambda values: copy.deepcopy(values, memo), memo)

    def __repr__(self) -> str:
        replica = _replica(self)
        name = type(self).__name__
        if replica is None:
            return f"<{name} object>"
        root = replica.root._mosaic_handle.stream.label
        return (
            f"<parameter {name} of {root}, version {Parameter.version.__get__(self)}>"
        )


class _Shell:
    """What must win over the user's class."""

    __slots__ = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Not the user's: it need not know of classes that are made here."""

    @staticmethod
    def _mosaic_link(thing: Any) -> Replica | None:
        return _replica(thing)

    def __reduce_ex__(self, protocol: Any) -> Any:
        replica = _replica(self)
        if replica is None:
            return _reduced_plain(self, super().__reduce_ex__(protocol))
        state = replica.send(self)
        return _rebuild, (replica.cls, replica.root, replica.cached, state)


# What may be asked of a copy while its values are not here.
_ASKING = frozenset(
    ("copy_states", "get", "propagate", "publish", "pull", "push", "set")
)


class _Awaited:
    """What a copy has while its values are not here: each use asks for them first."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        if name == "__dict__" or not (
            name.startswith("__") or name == OWN_SLOT or name in _ASKING
        ):
            _fill_now(self)
            return getattr(self, name)
        return _get(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        _fill_now(self)
        setattr(self, name, value)

    def __delattr__(self, name: str) -> None:
        _fill_now(self)
        delattr(self, name)


@functools.lru_cache(maxsize=1024)
def _classes(cls: type) -> tuple[type, type]:
    """The class of copies of this one, and that of those without their values."""

    def body(namespace: dict[str, Any]) -> None:
        namespace["__module__"] = cls.__module__
        namespace["__qualname__"] = cls.__qualname__
        namespace["__doc__"] = cls.__doc__

    def with_methods(namespace: dict[str, Any]) -> None:
        body(namespace)
        namespace["__slots__"] = (OWN_SLOT,)
        for name, method in schema_of(cls).methods.items():
            function = inspect.getattr_static(cls, name)
            own = isinstance(function, types.FunctionType)
            if own and name[0] != "_" and not method.takes("propagate"):
                namespace[name] = _propagating(name, function)

    def with_waiting(namespace: dict[str, Any]) -> None:
        body(namespace)
        namespace["__slots__"] = ()
        for name in ("__getattribute__", "__setattr__", "__delattr__"):
            namespace[name] = vars(_Awaited)[name]

    ready = types.new_class(cls.__name__, (_Shell, cls, Parameter), {}, with_methods)
    # Nothing is added to its layout: an object may go from one class to the other.
    return ready, types.new_class(cls.__name__, (ready,), {}, with_waiting)


def _propagating(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def method(self: Any, *args: Any, propagate: bool = False, **kwargs: Any) -> Any:
        if propagate:
            return Parameter.propagate(self, name, *args, **kwargs)
        return function(self, *args, **kwargs)

    return method


def make(
    cls: type,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: dict[str, Any],
    *,
    here: bool,
) -> Any:
    """A parameter, with its root in this runtime or where the options say.

    Raises:
        TypeError: the class does not consist of attributes, or an option means nothing
            for parameters.
        SerializationError: an attribute cannot travel.
    """
    runtime = session.current()
    if options.get("len") is not None:
        raise TypeError(
            f"len={options['len']}: there are no arrays of parameters; write "
            f"[{cls.__name__}.parameter(...) for _ in range({options['len']})]"
        )
    for name in ("name", "detached"):
        if options.get(name):
            raise TypeError(
                f"option {name!r} is for tesserae, not for parameters: a method of a "
                "named tessera can give a parameter to who comes later"
            )
    if options.get("max_restarts"):
        raise TypeError(
            "option 'max_restarts' is for tesserae, not for parameters, whose copies "
            "outlive the root: make it again of one of them"
        )
    where = options.get("runtime")
    if here and where is not None:
        raise TypeError(
            f"runtime={where!r}: local_parameter lives in this runtime; write "
            f"{cls.__name__}.parameter(...) for another"
        )
    where = runtime if here else runtime.resolve_worker(where)
    ready, _ = _made_for(cls)
    thing = ready(*args, **kwargs)
    values = attributes_of(thing)
    handle = runtime.create(
        ParameterRoot, (cls, values), {}, Options(name="", thread=True), where, 4
    )
    replica = Replica(
        proxy_of(ParameterRoot, handle), cls, options.get("cached", False)
    )
    replica.versions.taken(dict.fromkeys(values, 1))
    replica.marks = marks_of(values)
    object.__setattr__(thing, OWN_SLOT, replica)
    return thing


def _made_for(cls: type) -> tuple[type, type]:
    try:
        ready, awaited = _classes(cls)
        object.__new__(ready)
    except TypeError as error:
        raise TypeError(
            f"{cls.__name__} cannot be a parameter, which has to consist of attributes "
            f"and to have subclasses: {error}"
        ) from error
    return ready, awaited


def _replica(thing: Any) -> Replica | None:
    try:
        return cast("Replica", _get(thing, OWN_SLOT))
    except AttributeError:
        return None


def replica_of(thing: Any) -> Replica:
    """What a copy has beside the attributes.

    Raises:
        TypeError: it is no parameter.
    """
    found = _replica(thing)
    if found is None:
        name = type(thing).__name__
        raise TypeError(
            f"this {name} is not a parameter: it was made by a method of one, or by "
            f"{name}(...); make one by {name}.parameter(...)"
        )
    return found


def _present(thing: Any) -> Replica:
    """The same of one that has its values, which are waited for if need be."""
    replica = replica_of(thing)
    if replica.waiting is not None:
        _fill_now(thing)
    return replica


def _names(attr: str | Iterable[str] | None) -> list[str] | None:
    if attr is None or isinstance(attr, str):
        return None if attr is None else [attr]
    names = list(attr)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"attr={attr!r}: expected a name, several, or None")
    return names


# -- from one runtime to another -------------------------------------------------------


def _rebuild(cls: type, root: TesseraProxy[Any], cached: bool, state: Any) -> Any:
    """A copy, from what went with a mention of the parameter.

    As an argument of a call the state is here before the call starts; in a result it is
    a task, and the values come when they are asked for.
    """
    ready, awaited = _made_for(cls)
    replica = Replica(root, cls, cached)
    is_here = not isinstance(state, TaskProxy)
    thing: Any = object.__new__(ready if is_here else awaited)
    object.__setattr__(thing, OWN_SLOT, replica)
    if is_here:
        replica.fill(thing, state)
    else:
        replica.waiting = state
    return thing


def _arrived(thing: Any, reply: Reply) -> None:
    replica = replica_of(thing)
    if replica.waiting is not None:
        object.__setattr__(thing, "__class__", _made_for(replica.cls)[0])
        replica.fill(thing, reply)


def _fill_now(thing: Any) -> None:
    """Wait for the values, where that is possible."""
    replica = replica_of(thing)
    task = replica.waiting
    if task is None:
        return
    try:
        reply = task.get()
    except RuntimeError as error:
        raise RuntimeError(
            f"{replica.label} came as a result, and its values are not here yet: "
            "write 'await parameter.pull()' first"
        ) from error
    _arrived(thing, reply)


def _reduced_plain(thing: Any, reduced: Any) -> Any:
    """How to pickle an instance without a root: as one of the user's class."""
    if not isinstance(reduced, tuple):
        return reduced
    made, cls = type(thing), _users(type(thing))
    function, args, *rest = reduced
    args = tuple(cls if arg is made else arg for arg in args)
    # Under its own name the pickler would compare the class with the instance's.
    if function is copyreg.__newobj__:  # type: ignore[attr-defined]  # not in typeshed
        function = _new
    return (cls if function is made else function, args, *rest)


def _new(cls: type, *args: Any) -> Any:
    return cls.__new__(cls, *args)


def _users(made: type) -> type:
    order = made.__mro__
    return order[order.index(_Shell) + 1]


def _plain(
    thing: Any,
    copied: Callable[[dict[str, Any]], dict[str, Any]],
    memo: dict[int, Any] | None = None,
) -> Any:
    if _replica(thing) is not None:
        _present(thing)
    new: Any = object.__new__(_users(type(thing)))
    if memo is not None:
        memo[id(thing)] = new
    fill(new, copied(attributes_of(thing)))
    return new
