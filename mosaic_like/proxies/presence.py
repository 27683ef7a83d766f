"""What a copy of a parameter has beside its attributes, and these where they are late.

A copy that came in a result has no values yet: its class lets each use wait for them,
and goes when they have arrived. The classes are made in ``copies``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from .root import OWN_SLOT

if TYPE_CHECKING:
    from .replica import Replica
    from .root import Reply

# What the class of a copy has: that of the user, and, while its values are not here,
# the one that it gets with them.
USERS = "_mosaic_class"
READY = "_mosaic_ready"


def find_replica(thing: Any) -> Replica | None:
    """The same as ``replica_of``; None: it is no parameter."""
    try:
        return cast("Replica", object.__getattribute__(thing, OWN_SLOT))
    except AttributeError:
        return None


def replica_of(thing: Any) -> Replica:
    """What a copy has beside the attributes.

    Raises:
        TypeError: it is no parameter.
    """
    found = find_replica(thing)
    if found is None:
        name = type(thing).__name__
        raise TypeError(
            f"this {name} is not a parameter: it was made by a method of one, or by "
            f"{name}(...); make one by {name}.parameter(...)"
        )
    return found


def present(thing: Any) -> Replica:
    """The same of one that has its values, which are waited for if need be."""
    replica = replica_of(thing)
    if replica.waiting is not None:
        fill_now(thing)
    return replica


def arrived(thing: Any, reply: Reply) -> None:
    """Its values are here."""
    replica = replica_of(thing)
    if replica.waiting is not None:
        cls = type(thing)
        object.__setattr__(thing, "__class__", getattr(cls, READY, cls))
        replica.fill(thing, reply)


def fill_now(thing: Any) -> None:
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
    arrived(thing, reply)
