"""Where a parameter lives: a small tessera that has the object and counts its changes.

It has a thread of its own, so that copies are served while its worker computes. What
came to it in a message nobody can write, and goes on to others without being copied.
What a copy may do is decided in ``core.versions``; copies are in ``replica.py``.
"""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from .. import session
from ..core.versions import RootVersions
from ..errors import ConflictError
from .fingerprint import Fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The versions of what a copy lacks, the values of these, and those that are gone.
Reply = tuple[dict[str, int], dict[str, Any], list[str]]

OWN_SLOT = "_mosaic_parameter"  # of a copy: no attribute of the user's


def attributes_of(thing: Any) -> dict[str, Any]:
    """What an object consists of: as it would be pickled.

    Raises:
        TypeError: its ``__getstate__`` gives something else than a dict.
    """
    state = thing.__getstate__()
    if isinstance(state, tuple) and len(state) == 2:
        state = {**(state[0] or {}), **(state[1] or {})}
        state.pop(OWN_SLOT, None)
    if state is None:
        return {}
    if not isinstance(state, dict):
        raise TypeError(
            f"{type(thing).__name__}.__getstate__ gave {type(state).__name__}; of a "
            "parameter it has to give a dict of attributes"
        )
    return dict(state)


def fill(thing: Any, values: dict[str, Any]) -> None:
    """Give a new object all its attributes."""
    set_state = getattr(thing, "__setstate__", None)
    if set_state is not None:
        set_state(values)
        return
    for name, value in values.items():
        object.__setattr__(thing, name, value)


def replace(thing: Any, values: Mapping[str, Any], removed: Iterable[str]) -> None:
    """Change some attributes, without the user's ``__setattr__``: as unpickling."""
    for name, value in values.items():
        object.__setattr__(thing, name, value)
    for name in removed:
        if name in attributes_of(thing):
            object.__delattr__(thing, name)


def marks_of(values: Mapping[str, Any]) -> dict[str, Fingerprint | None]:
    """What is in each of them now."""
    return {name: Fingerprint(value) for name, value in values.items()}


def differing(
    before: Mapping[str, Fingerprint | None], after: Mapping[str, Fingerprint | None]
) -> set[str]:
    """The attributes that came, went or changed; one without a mark has changed."""
    return {
        name
        for name in {*before, *after}
        if before.get(name) is None or before.get(name) != after.get(name)
    }


class ParameterRoot:
    """The object itself.

    Args:
        cls: the user's class.
        values: the attributes of the first copy, as they were when it was made.
    """

    def __init__(self, cls: type, values: dict[str, Any]) -> None:
        self._name = cls.__name__
        self._thing: Any = object.__new__(cls)
        fill(self._thing, values)
        self._versions = RootVersions(values)

    def write(
        self,
        writer: int,
        values: dict[str, Any],
        removed: list[str],
        bases: dict[str, int],
        force: bool,
    ) -> dict[str, int]:
        """Take over what was changed in a copy: all of it, or nothing.

        Args:
            writer: the copy.
            values: the attributes that it has changed.
            removed: those that it has deleted.
            bases: of all these, the versions that it had taken.
            force: whatever others have written.

        Raises:
            ConflictError: others have changed some of them.
        """
        names = [*values, *removed]
        behind = [] if force else self._versions.behind(names, bases, writer)
        if behind:
            raise ConflictError(
                f"parameter {self._name}: {_list(behind)} of this copy is behind its "
                "root, where somebody else has changed it: nothing was written; pull("
                "discard=True) takes the root's, push(force=True) overwrites it",
                tuple(behind),
                {name: self._versions.versions[name] for name in behind},
            )
        replace(self._thing, values, removed)
        return self._versions.wrote(names, writer)

    def read(self, names: list[str] | None, have: dict[str, int]) -> Reply:
        """What a copy that has these versions lacks.

        Args:
            names: of which attributes; None: of all.
            have: versions by attribute; those that are not in it are 0.
        """
        versions = self._versions.newer(have)
        if names is not None:
            for name in names:
                if name not in self._versions.versions:
                    raise self._unknown(name)
            versions = {n: v for n, v in versions.items() if n in names}
        now = attributes_of(self._thing)
        values = {name: now[name] for name in versions if name in now}
        return versions, values, [name for name in versions if name not in now]

    def get(self, name: str) -> tuple[Any, dict[str, int]]:
        """One attribute, or what a property gives, with its version if it has one."""
        try:
            value = getattr(self._thing, name)
        except AttributeError:
            if name in attributes_of(self._thing):
                raise  # by a property that failed
            raise self._unknown(name) from None
        versions = self._versions.versions
        return value, {name: versions[name]} if name in versions else {}

    def run(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], have: Any
    ) -> Any:
        """Run a method of the object; with its value goes what it has changed.

        Returns:
            Whether the value is the object itself, else the value, and a Reply.
        """
        before = marks_of(attributes_of(self._thing))
        try:
            value = getattr(self._thing, name)(*args, **kwargs)
        except BaseException:
            self._changed_since(before)
            raise
        if inspect.iscoroutine(value):
            return self._awaited(value, before, have)
        return self._ran(value, before, have)

    async def _awaited(self, coroutine: Any, before: Any, have: Any) -> Any:
        try:
            value = await coroutine
        except BaseException:
            self._changed_since(before)
            raise
        return self._ran(value, before, have)

    def _ran(self, value: Any, before: Any, have: Any) -> Any:
        self._changed_since(before)
        itself = value is self._thing
        return itself, None if itself else value, self.read(None, have)

    def _changed_since(self, before: dict[str, Fingerprint | None]) -> None:
        after = marks_of(attributes_of(self._thing))
        self._versions.wrote(sorted(differing(before, after)))

    def _unknown(self, name: str) -> AttributeError:
        close = get_close_matches(name, [n for n in dir(self._thing) if n[0] != "_"], 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return AttributeError(f"parameter {self._name} has no {name!r}{hint}")


def _list(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


class Courier:
    """Made at a runtime to tell the copies there what their root has; then it goes."""

    def note(self, root: Any, reply: Reply) -> None:
        """Keep the root's state for whoever pulls here."""
        record = session.current().records.get(root._mosaic_handle.uid)
        if record is not None:
            record.published_here(reply)
