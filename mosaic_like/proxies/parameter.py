"""Parameters: an object at a root, with copies where it is used that say when they lag.

``Klass.parameter(...)`` gives an instance of a class below the user's: its own
attributes and methods work as ever, and ``Parameter`` adds what goes between the copy
and the root, where the user's class has no such name. The user's class itself is not
touched. How copies are made is in ``copies.py``, what is asked of the root in
``replica.py``; the root is in ``root.py``.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from .exchange import Exchange
from .presence import USERS, arrived, find_replica, present, replica_of
from .root import attributes_of, fill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..core.versions import CopyState
    from .root import Reply
    from .task import TaskProxy
    from .tessera import TesseraProxy

T_co = TypeVar("T_co", covariant=True)

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
        return Exchange(replica, [task], lambda values: arrived(self, values[0]))

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
        replica = present(self)
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
        return present(self).put(self, attr, value, force)

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
        return present(self).propagate(self, method, args, kwargs)

    def publish(self) -> Exchange[None]:
        """Push, and bring what the root has to all runtimes that have copies.

        From then on a copy there knows that it is behind, and its ``pull`` moves
        nothing large.

        Raises:
            ConflictError: as for ``push``.
        """
        return present(self).publish(self)

    def copy_states(self) -> dict[str, CopyState]:
        """Of each attribute how this copy stands to its root, as far as known here."""
        return present(self).states(self)

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
        return find_replica(self) is not None

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
        replica = find_replica(self)
        name = type(self).__name__
        if replica is None:
            return f"<{name} object>"
        root = replica.root._mosaic_handle.stream.label
        return (
            f"<parameter {name} of {root}, version {Parameter.version.__get__(self)}>"
        )


def _names(attr: str | Iterable[str] | None) -> list[str] | None:
    if attr is None or isinstance(attr, str):
        return None if attr is None else [attr]
    names = list(attr)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"attr={attr!r}: expected a name, several, or None")
    return names


def _plain(
    thing: Any,
    copied: Callable[[dict[str, Any]], dict[str, Any]],
    memo: dict[int, Any] | None = None,
) -> Any:
    if find_replica(thing) is not None:
        present(thing)
    new: Any = object.__new__(getattr(type(thing), USERS))
    if memo is not None:
        memo[id(thing)] = new
    fill(new, copied(attributes_of(thing)))
    return new
