"""How many calls of a task may run at the same time: options, and names of slots.

``Concurrency`` is a rule of one task, ``tags`` and ``limits`` go across tasks. Both
become slots, which the monitor gives (``core.slots``); when they are taken and freed is
decided in ``guarding``.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import session
from ..comms.messages import OF_TAG, Slot
from ..text import is_utf8
from .digest import digest_of

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable, Mapping

SCOPES = RUNNING, SUBMITTED = ("running", "submitted")
CONFLICTS = WAIT, DROP, REUSE, ERROR = ("wait", "drop", "reuse", "error")
ARGUMENTS = "arguments"
MOST = 1 << 31
MOST_TAGS = 200  # of one task: they go in one message, as slots
TAG_CHARACTERS = 256

_TAGS: contextvars.ContextVar[frozenset[str]] = contextvars.ContextVar(
    "mosaic_like.tags", default=frozenset()
)


@dataclass(frozen=True)
class Concurrency:
    """How many calls of a task may go on at the same time, and what becomes of others.

    Args:
        limit: how many, 1 or more.
        key: which calls count together. None: all of the task; ``"arguments"``: those
            with equal arguments; names of parameters: those in which these are equal;
            or a function of the arguments by name.
        scope: ``"running"``: a call counts while an attempt of it runs;
            ``"submitted"``: from its submission until it has ended, also while it waits
            for its next attempt.
        on_conflict: what a call does that is one too many. ``"wait"``: until another
            has ended, in order; ``"drop"``: it is cancelled, reason ``dropped``;
            ``"reuse"``: it stands for the call of this process that goes on already,
            reason ``reused``, and waits if that is another's; ``"error"``: it fails
            with ConcurrencyError.
        strict: with ``"reuse"``: only if all arguments are equal, else it fails with
            ConcurrencyError, which lists the differences.

    Raises:
        TypeError: an option of the wrong type.
        ValueError: one that is out of range; at decoration: a parameter that the
            function does not have.

    >>> Concurrency(key=("account",)).limit
    1
    """

    limit: int = 1
    key: str | tuple[str, ...] | Callable[[Mapping[str, Any]], Any] | None = None
    scope: str = RUNNING
    on_conflict: str = WAIT
    strict: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.limit, bool) or not isinstance(self.limit, int):
            raise TypeError(f"Concurrency(limit={self.limit!r}): expected int")
        if not 1 <= self.limit < MOST:
            raise ValueError(f"Concurrency(limit={self.limit}): expected 1 or more")
        key = self.key
        if isinstance(key, str):
            if key != ARGUMENTS:
                raise ValueError(
                    f"Concurrency(key={key!r}): expected 'arguments', names of "
                    f"parameters such as ({key!r},), a function, or None"
                )
        elif key is not None and not callable(key):
            names = tuple(key) if isinstance(key, Iterable) else ()
            if not names or not all(isinstance(name, str) for name in names):
                raise TypeError(
                    f"Concurrency(key={key!r}): expected names of parameters, "
                    "'arguments', a function, or None"
                )
            object.__setattr__(self, "key", names)
        if self.scope not in SCOPES:
            raise ValueError(
                f"Concurrency(scope={self.scope!r}): expected 'running' or 'submitted'"
            )
        if self.on_conflict not in CONFLICTS:
            raise ValueError(
                f"Concurrency(on_conflict={self.on_conflict!r}): expected 'wait', "
                "'drop', 'reuse' or 'error'"
            )
        if self.strict and self.on_conflict != REUSE:
            raise ValueError("Concurrency(strict=True) is for on_conflict='reuse'")

    def check(self, name: str, signature: inspect.Signature) -> None:
        """Raise ValueError for a parameter that the function does not have."""
        if isinstance(self.key, tuple):
            unknown = [n for n in self.key if n not in signature.parameters]
            if unknown:
                raise ValueError(
                    f"Concurrency(key={self.key!r}): {name}{signature} has no "
                    f"parameter {', '.join(map(repr, unknown))}"
                )

    def slot(
        self,
        task: str,
        parameters: Mapping[str, Any],
        identity: Callable[[Any], Any] | None = None,
    ) -> Slot:
        """What a call with these arguments takes.

        Args:
            task: the key of the task.
            parameters: the arguments by name, defaults filled in.
            identity: as of ``digest_of``.

        Raises:
            Unhashable: an argument by which calls are told apart has no content.
            Exception: what a ``key`` function raises.
        """
        key = self.key
        if key is None:
            return Slot(f"task:{task}", self.limit)
        if key == ARGUMENTS:
            what: Any = dict(parameters)
        elif isinstance(key, tuple):
            what = [parameters.get(name) for name in key]
        else:
            assert callable(key), "checked when it was made"
            what = key(parameters)
        return Slot(f"task:{task}:{digest_of(what, identity)}", self.limit)


def differences(
    one: Mapping[str, Any],
    two: Mapping[str, Any],
    identity: Callable[[Any], Any] | None = None,
) -> list[str]:
    """The names of the arguments in which two calls differ."""
    return [
        name
        for name in one
        if digest_of(one[name], identity) != digest_of(two.get(name), identity)
    ]


# -- tags ------------------------------------------------------------------------------


def tags_of(option: Any) -> frozenset[str]:
    """The option ``tags``: texts in any collection.

    Raises:
        TypeError: something else.
        ValueError: an empty one, one that is too long, or too many.
    """
    if isinstance(option, str):
        raise TypeError(f"option 'tags': found {option!r}, expected {{{option!r}}}")
    try:
        found = frozenset(option)
    except TypeError:
        raise TypeError(f"option 'tags': found {option!r}, expected texts") from None
    for tag in found:
        if not isinstance(tag, str):
            raise TypeError(f"option 'tags': found {tag!r}, expected texts")
        if not tag:
            raise ValueError("option 'tags': found an empty text")
        if not is_utf8(tag):
            raise ValueError(f"option 'tags': found {tag!r}, expected UTF-8")
        if len(tag) > TAG_CHARACTERS:
            raise ValueError(
                f"option 'tags': found {tag[:40]!r} and {len(tag) - 40:,} characters "
                f"more, expected at most {TAG_CHARACTERS}"
            )
    if len(found) > MOST_TAGS:
        raise ValueError(
            f"option 'tags': found {len(found):,} tags, expected at most {MOST_TAGS}; "
            "what is different for each call belongs into its arguments"
        )
    return found


def current_tags() -> frozenset[str]:
    """Those of the ``with tags(...)`` that this code is in."""
    return _TAGS.get()


@contextlib.contextmanager
def tags(*names: str) -> Iterator[frozenset[str]]:
    """Tasks that are submitted inside have these tags too.

    Args:
        names: of the tags; ``limits`` says how many tasks of each may run.

    Raises:
        TypeError: a name that is no text.
        ValueError: an empty one, one that is too long, or too many.

    >>> with tags("db") as outer, tags("slow") as inner:
    ...     sorted(inner)
    ['db', 'slow']
    """
    found = tags_of(_TAGS.get() | tags_of(names))
    token = _TAGS.set(found)
    try:
        yield found
    finally:
        _TAGS.reset(token)


def slots_of_tags(names: Iterable[str]) -> list[Slot]:
    """What a call with these tags takes, while it runs."""
    return [Slot(f"tag:{name}", OF_TAG) for name in sorted(names)]


class Limits(MutableMapping[str, "int | None"]):
    """``mosaic.limits``: how many tasks with a tag may run, in the whole cluster.

    Of any task, submitted anywhere. A new limit acts at once: tasks that run go on, and
    those that wait start when they may. 0 holds all; None, or ``del``, removes it. It
    lasts as long as the program that has set it. A process reads here what it has set
    itself.

    Raises:
        RuntimeError: there is no runtime.
        TypeError: a limit that is no int.
        ValueError: a negative one.

    >>> import mosaic_like as mosaic
    >>> async def main():
    ...     mosaic.limits["db"] = 10
    ...     return dict(mosaic.limits)
    >>> mosaic.run(main, num_workers=1)
    {'db': 10}
    """

    def __getitem__(self, tag: str) -> int:
        found: int = _limits_here()[tag]
        return found

    def __setitem__(self, tag: str, limit: int | None) -> None:
        tags_of((tag,))
        if limit is not None:
            if isinstance(limit, bool) or not isinstance(limit, int):
                raise TypeError(f"limits[{tag!r}]: found {limit!r}, expected int")
            if not 0 <= limit < MOST:
                raise ValueError(
                    f"limits[{tag!r}]: found {limit}, expected 0 or more; 0 holds all "
                    "tasks with this tag, None lets all run"
                )
        here = _limits_here()
        here.pop(tag, None)
        if limit is not None:
            here[tag] = limit
        session.current().slots.set_limit(slots_of_tags((tag,))[0].name, limit)

    def __delitem__(self, tag: str) -> None:
        if tag not in _limits_here():
            raise KeyError(tag)
        self[tag] = None

    def __iter__(self) -> Iterator[str]:
        return iter(dict(_limits_here()))

    def __len__(self) -> int:
        return len(_limits_here())

    def __repr__(self) -> str:
        runtime = session.peek()
        return f"limits({dict(_limits_here()) if runtime is not None else ''})"


def _limits_here() -> dict[str, int]:
    found: dict[str, int] = session.current().slots.limits
    return found


limits = Limits()
