"""A copy of a parameter: what it knows of its root, and what goes between the two.

``Replica`` is what a copy has beside the user's attributes. Each thing that is asked of
it becomes at most one call of the root, which is sent at once, and an ``Exchange`` that
is awaited for the answer. Which of them is allowed is a table in ``core.versions``;
what all copies of a runtime have in common is in ``root_record``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..comms.messages import Options
from ..core.versions import CopyState, CopyVersions, Operation, Verdict
from ..errors import ConflictError, StaleError
from .exchange import Exchange, Ran, Written
from .root import (
    Courier,
    Reply,
    attributes_of,
    differing,
    fill,
    marks_of,
    replace,
)
from .root_record import Record
from .schema import schema_of
from .tessera import TesseraProxy, proxy_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .exchange import Sent
    from .fingerprint import Fingerprint
    from .task import TaskProxy

_WHAT_NOW = {
    (Operation.PULL, Verdict.CONFLICT): (
        "was changed here and at its root; push(force=True) keeps what is here, "
        "pull(discard=True) takes the root's"
    ),
    (Operation.PUSH, Verdict.STALE): (
        "is behind its root and was not changed here, so there is nothing to push; "
        "pull() first"
    ),
    (Operation.SET, Verdict.STALE): "is behind its root; pull() first",
    (Operation.SEND, Verdict.STALE): (
        "was changed here and not at its root, so others would not see it; "
        "await push() first, or take it back by pull(discard=True)"
    ),
}


class Replica:
    """What a copy has beside the attributes.

    Args:
        root: where the parameter lives.
        cls: the user's class.
        cached: what this runtime has of it may be passed on and read again.
    """

    __slots__ = (
        "_sent",
        "_unsure",
        "cached",
        "cls",
        "marks",
        "record",
        "root",
        "runtime",
        "uid",
        "versions",
        "waiting",
    )

    def __init__(self, root: TesseraProxy[Any], cls: type, cached: bool) -> None:
        handle = root._mosaic_handle
        runtime: Any = handle.runtime
        self.runtime = runtime
        self.root: Any = root
        self.cls = cls
        self.cached = cached
        self.uid: int = next(runtime.uids)
        self.record: Record = runtime.records.setdefault(handle.uid, Record())
        self.versions = CopyVersions(self.record.newest)
        # What was in each attribute when it was as the root's; None: never was.
        self.marks: dict[str, Fingerprint | None] = {}
        self.waiting: TaskProxy[Reply] | None = None  # for all attributes
        self._sent: list[Sent] = []  # writes that may not have been answered
        self._unsure = False  # a method failed at the root: it may have changed some

    @property
    def label(self) -> str:
        return (
            f"parameter {self.cls.__name__} ({self.root._mosaic_handle.stream.label})"
        )

    def changed(
        self, thing: Any, names: Iterable[str] | None = None
    ) -> tuple[set[str], dict[str, Fingerprint | None]]:
        """What is not as it was taken, and what is in each attribute now.

        Args:
            thing: the copy.
            names: of which attributes; None: of all.
        """
        values = attributes_of(thing)
        if names is None:
            now = marks_of(values)
            return differing(self.marks, now), now
        names = set(names)
        now = marks_of({n: v for n, v in values.items() if n in names})
        marks = {n: m for n, m in self.marks.items() if n in names}
        return differing(marks, now), now

    def states(self, thing: Any) -> dict[str, CopyState]:
        self.collect()
        changed, now = self.changed(thing)
        names = sorted({*now, *self.marks, *self.versions.known()})
        return {name: self.versions.state(name, name in changed) for name in names}

    # -- what the root has said --------------------------------------------------------

    def collect(self) -> None:
        """Take in the answers to writes that nobody has awaited, as far as they came.

        In order, as the root answers; but a large one waits for who awaits it.
        """
        if self._sent:
            self._sent = [sent for sent in self._sent if not sent.answered(self)]

    def _take_newer(self, thing: Any, reply: Reply) -> None:
        """Take what the root has changed.

        Raises:
            ConflictError: some of it was changed here too; nothing is taken.
        """
        self.learned(reply[0])
        base = self.versions.base  # later than the answer, if that was not awaited
        versions = {n: v for n, v in reply[0].items() if v > base.get(n, 0)}
        changed, _ = self.changed(thing, versions)
        for sent in self._sent:
            # Sent after this was asked, so the root has refused it or will.
            changed.update(sent.names)
        self._take(thing, reply, self._check(Operation.PULL, versions, changed))

    def _take(self, thing: Any, reply: Reply, names: Iterable[str]) -> None:
        versions, values, removed = reply
        kept: Reply = (
            {name: versions[name] for name in names if name in versions},
            {name: values[name] for name in names if name in values},
            [name for name in names if name in removed],
        )
        replace(thing, kept[1], kept[2])
        self._taken(kept)

    def fill(self, thing: Any, reply: Reply) -> None:
        """Give a new copy all its attributes."""
        fill(thing, reply[1])
        self.waiting = None
        self._taken(reply)

    def _taken(self, reply: Reply) -> None:
        versions, values, removed = reply
        self.marks.update(marks_of(values))
        for name in removed:
            self.marks.pop(name, None)
        self.versions.taken(versions)

    def learned(self, versions: dict[str, int]) -> None:
        if self.versions.learned(versions):
            self.record.news += 1

    def refused(self, names: Iterable[str]) -> None:
        """A write has failed: these are not at the root."""
        for name in names:
            self.marks[name] = None

    def unsure(self) -> None:
        self._unsure = True

    # -- what is asked -----------------------------------------------------------------

    def pull(
        self, thing: Any, names: list[str] | None, discard: bool
    ) -> Exchange[None]:
        self.collect()
        have = dict(self.versions.base)
        for name, (version, _) in self.record.published.items():
            have[name] = max(version, have.get(name, 0))
        if discard:
            for name in self.changed(thing, names)[0]:
                have.pop(name, None)
        task = self.root.read(names, have)

        def apply(values: list[Any]) -> None:
            reply = self._with_published(values[0], names)
            if discard:
                self._take_all(thing, reply, names)
            else:
                self._take_newer(thing, reply)
            if names is None:
                self._unsure = False

        return Exchange(self, [task], apply)

    def _take_all(self, thing: Any, reply: Reply, names: list[str] | None) -> None:
        """Take what the root has, and give up what was changed here."""
        versions, _, removed = reply
        self.learned(versions)
        base = self.versions.base
        found = [name for name in versions if versions[name] >= base.get(name, 0)]
        for name in self.changed(thing, names)[0]:
            if name not in versions and name not in base:  # the root never had it
                removed.append(name)
                found.append(name)
        self._take(thing, reply, found)

    def _with_published(self, reply: Reply, names: list[str] | None) -> Reply:
        """With what was published to here, where the root has nothing newer."""
        versions, values, removed = dict(reply[0]), dict(reply[1]), list(reply[2])
        for name, (version, stored) in self.record.published.items():
            if (
                name not in versions
                and version > self.versions.base.get(name, 0)
                and (names is None or name in names)
            ):
                versions[name] = version
                if stored is not None:
                    values[name] = stored.load()
                else:
                    removed.append(name)
        return versions, values, removed

    def push(self, thing: Any, names: list[str] | None, force: bool) -> Exchange[None]:
        self.collect()
        return Exchange(self, self._push(thing, names, force), None)

    def put(self, thing: Any, name: str, value: Any, force: bool) -> Exchange[None]:
        self.collect()
        before, _ = self.changed(thing)
        if not force:
            self._check(Operation.SET, [name], before)
        values = attributes_of(thing)
        setattr(thing, name, value)
        if name in attributes_of(thing):
            names = [name]
        else:  # a property has put it elsewhere
            names = sorted(self.changed(thing)[0] - before)
        try:
            tasks = self._write(thing, names, self.changed(thing, names)[1], force)
        except Exception:  # it cannot travel
            if name in values:
                replace(thing, {name: values[name]}, ())
            raise
        return Exchange(self, tasks, None)

    def _push(
        self, thing: Any, names: list[str] | None, force: bool
    ) -> list[TaskProxy[Any]]:
        """Send what is changed."""
        changed, now = self.changed(thing, names)
        if names is None:
            names = sorted(changed)
        for name in names:
            if name not in now and name not in self.marks:
                raise AttributeError(
                    f"{self.label}: this copy has no attribute {name!r} to push"
                )
        if not force:
            names = self._check(Operation.PUSH, names, changed)
        return self._write(thing, names, now, force)

    def _write(
        self,
        thing: Any,
        names: list[str],
        now: dict[str, Fingerprint | None],
        force: bool,
    ) -> list[TaskProxy[Any]]:
        """Send these; the call, or none if there are none."""
        if not names:
            return []
        values = attributes_of(thing)
        base = self.versions.base
        task: TaskProxy[dict[str, int]] = self.root.write(
            self.uid,
            {name: values[name] for name in names if name in values},
            [name for name in names if name not in values],
            {name: base.get(name, 0) for name in names},
            force,
        )
        # From here on the root has it, unless it refuses.
        for name in names:
            if name in now:
                self.marks[name] = now[name]
            else:
                self.marks.pop(name, None)
        self.record.news += 1
        self._sent.append(Written(task, names))
        return [task]

    def get(self, thing: Any, name: str) -> Exchange[Any]:
        self.collect()
        if self.cached and self.waiting is None and not self._sent:
            changed, now = self.changed(thing, [name])
            state = self.versions.state(name, name in changed)
            if name in now and state is CopyState.CLEAN and not self._unsure:
                return Exchange(self, [], None, getattr(thing, name))
        task = self.root.get(name)

        def apply(values: list[Any]) -> Any:
            value, versions = values[0]
            self.learned(versions)
            return value

        return Exchange(self, [task], apply)

    def propagate(
        self, thing: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Exchange[Any]:
        schema = schema_of(self.cls)
        method = schema.methods.get(name)
        if method is None or name.startswith("_"):
            raise AttributeError(
                f"{schema.name} has no public method {name!r}{schema.nearest(name)}"
            )
        method.check(schema.name, args, kwargs)
        self.collect()
        self._check(Operation.SEND, *self._all(thing))
        task = self.root.run(name, args, kwargs, dict(self.versions.base))
        self.record.news += 1
        self._sent.append(Ran(task))

        def apply(values: list[Any]) -> Any:
            itself, value, reply = values[0]
            self._take_newer(thing, reply)
            return thing if itself else value

        return Exchange(self, [task], apply)

    def publish(
        self, thing: Any, names: list[str] | None = None, force: bool = False
    ) -> Exchange[None]:
        self.collect()
        first = self._push(thing, names, force)
        state = self.root.read(None, {})
        runtime = self.runtime
        told = []
        for member in (*runtime.of_kind("worker"), *runtime.of_kind("head")):
            if member.incarnation != runtime.incarnation:
                options = Options(name="", inline=True)
                handle = runtime.create(Courier, (), {}, options, member)
                courier: Any = proxy_of(Courier, handle)
                told.append(courier.note(self.root, state))
        return Exchange(self, [*first, *told], None, lost_from=len(first))

    def send(self, thing: Any) -> TaskProxy[Reply]:
        """What goes with a mention of the parameter: all that the root then has.

        Raises:
            StaleError: this copy was changed, and others would not see it.
        """
        if self.waiting is None:
            self.collect()
            self._check(Operation.SEND, *self._all(thing))
        record = self.record
        held = record.snapshot
        if self.cached and held is not None and held[0] == record.news:
            return held[1]
        task: TaskProxy[Reply] = self.root.read(None, {})
        if self.cached:
            record.snapshot = record.news, task
        return task

    # -- errors ------------------------------------------------------------------------

    def _all(self, thing: Any) -> tuple[set[str], set[str]]:
        changed, now = self.changed(thing)
        return {*now, *self.versions.known(), *self.marks}, changed

    def _check(
        self, operation: Operation, names: Iterable[str], changed: set[str]
    ) -> list[str]:
        """Those with which to go on; raises if one of them forbids it."""
        found = self.versions.judge(operation, names, changed)
        for bad, kind in (
            (Verdict.CONFLICT, ConflictError),
            (Verdict.STALE, StaleError),
        ):
            wrong = found.get(bad)
            if wrong:
                text = _WHAT_NOW.get((operation, bad))
                text = text or _WHAT_NOW[Operation.PULL, Verdict.CONFLICT]
                what = ", ".join(map(repr, wrong))
                newest = {name: self.record.newest.get(name, 0) for name in wrong}
                raise kind(f"{self.label}: {what} {text}", tuple(wrong), newest)
        return found.get(Verdict.GO, [])
