"""The copies of parameters: their classes, how one is made, and how it travels.

A copy is an instance of a class made here, below the user's: what must win over that
stands before it, ``Parameter`` behind it. What a copy does for its user stands in
``parameter``, and what goes between it and the root in ``replica``.
"""

from __future__ import annotations

import copyreg
import functools
import inspect
import types
from typing import TYPE_CHECKING, Any

from .. import session
from ..comms.messages import Options
from .parameter import Parameter
from .presence import READY, USERS, fill_now, find_replica
from .replica import Replica
from .root import OWN_SLOT, ParameterRoot, attributes_of, marks_of
from .schema import schema_of
from .task import TaskProxy
from .tessera import proxy_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .tessera import TesseraProxy


class _Shell:
    """What must win over the user's class."""

    __slots__ = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Not the user's: it need not know of classes that are made here."""

    _mosaic_link = staticmethod(find_replica)

    def __reduce_ex__(self, protocol: Any) -> Any:
        replica = find_replica(self)
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
            fill_now(self)
            return getattr(self, name)
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        fill_now(self)
        setattr(self, name, value)

    def __delattr__(self, name: str) -> None:
        fill_now(self)
        delattr(self, name)


@functools.lru_cache(maxsize=1024)
def _classes(cls: type) -> tuple[type, type]:
    """The class of copies of this one, and that of those without their values."""

    def body(namespace: dict[str, Any]) -> None:
        namespace["__module__"] = cls.__module__
        namespace["__qualname__"] = cls.__qualname__
        namespace["__doc__"] = cls.__doc__
        namespace[USERS] = cls

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
        namespace[READY] = ready
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


def _reduced_plain(thing: Any, reduced: Any) -> Any:
    """How to pickle an instance without a root: as one of the user's class."""
    if not isinstance(reduced, tuple):
        return reduced
    made, cls = type(thing), getattr(type(thing), USERS)
    function, args, *rest = reduced
    args = tuple(cls if arg is made else arg for arg in args)
    # Under its own name the pickler would compare the class with the instance's.
    if function is copyreg.__newobj__:  # type: ignore[attr-defined]  # not in typeshed
        function = _new
    return (cls if function is made else function, args, *rest)


def _new(cls: type, *args: Any) -> Any:
    return cls.__new__(cls, *args)
