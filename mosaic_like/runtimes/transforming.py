"""``runtime.transformer``: users change how values travel, here and at all workers.

Whoever registers a transformer tells all workers, also those that join later, before
anything else that it sends them: so what a call gives is encoded, too. How it is asked
is in ``comms.transforming``.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Self

from .. import ids
from ..comms import messages as wire
from ..comms.transforming import NEVER_ASKED, Transformer, Transformers
from ..core.payloads import extra_of
from ..core.senders import Kind, kind_of
from ..errors import ProtocolError

if TYPE_CHECKING:
    from ..comms.messages import Member
    from ..comms.serialization import Payload
    from .user import UserRuntime

logger = logging.getLogger(__name__)

_MOST = 1000  # of all that have told some


class Registration:
    """A transformer that is used; ``remove()``, or the end of a ``with``, ends that."""

    def __init__(self, transforming: Transforming, key: int) -> None:
        self._transforming = transforming
        self._key = key

    def remove(self) -> None:
        """Use it no longer; what was encoded can still be read."""
        self._transforming.remove(self._key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.remove()


class Transforming:
    """Of one runtime."""

    def __init__(self, runtime: UserRuntime) -> None:
        self._runtime = runtime
        self._all = Transformers()
        self._own: dict[int, bytes | Payload] = {}  # as they are sent

    def add(self, encode: Any, decode: Any, where: Any) -> Registration:
        """See ``UserRuntime.transformer``; from any thread."""
        _check(encode, decode, where)
        runtime = self._runtime
        sent = runtime.serializer.dumps((encode, decode, where), what="a transformer")
        key = next(runtime.uids)
        self._all.add(key, Transformer(encode, decode, where))
        self._look()
        self._on_loop(self._begin, key, sent)
        return Registration(self, key)

    def remove(self, key: int) -> None:
        """It is used no longer; from any thread."""
        self._all.remove([key])
        self._look()
        self._on_loop(self._end, key)

    def _look(self) -> None:
        serializer = self._runtime.serializer
        serializer.transforming = self._all.for_one if len(self._all) else None

    def _on_loop(self, function: Any, *args: Any) -> None:
        if self._runtime.on_loop:
            function(*args)
        else:
            self._runtime.post(function, *args)

    # -- who is told -------------------------------------------------------------------

    def _begin(self, key: int, sent: bytes | Payload) -> None:
        self._own[key] = sent
        for member in list(self._runtime.members.values()):
            self._tell(member, key, sent)

    def _end(self, key: int) -> None:
        if self._own.pop(key, None) is not None:
            for member in list(self._runtime.members.values()):
                self._tell(member, key, b"")

    def joined(self, member: Member) -> None:
        """Somebody has come, and was sent nothing yet."""
        for key, sent in self._own.items():
            self._tell(member, key, sent)

    def _tell(self, member: Member, key: int, sent: bytes | Payload) -> None:
        outbox = self._runtime.outbox(member.incarnation)
        if (
            outbox is None
            or kind_of(member.uid) is not Kind.WORKER
            or member.incarnation == self._runtime.incarnation
        ):
            return
        if isinstance(sent, bytes):
            outbox.send(wire.Transform(key, sent))
        else:
            outbox.send(wire.Transform(key, sent.data, extra_of(sent, None)), sent)

    # -- who hears ---------------------------------------------------------------------

    def on_transform(self, message: wire.Transform, buffers: Any, sender: int) -> None:
        """Another has registered one, or removed it."""
        key = message.uid
        if ids.maker(key) != sender:
            raise ProtocolError("a transformer of another")
        if not message.data:
            self._all.remove([key])
        elif len(self._all) >= _MOST:
            raise ProtocolError(f"one more than {_MOST} transformers")
        else:
            data: Any = message.data
            if message.extra is not None:
                data = self._runtime.arrived(message, buffers, sender)
            self._all.add(key, lambda: self._read(data, sender))
        self._look()

    def _read(self, data: Any, sender: int) -> Transformer | None:
        try:
            encode, decode, where = self._runtime.values.item(data)
            _check(encode, decode, where)
        except Exception as error:  # such as a module that is not here
            logger.warning(
                "a transformer of %s cannot be used here, and values go as they are: "
                "%s: %s",
                *(self._runtime.uid_of(sender), type(error).__name__, error),
            )
            return None
        return Transformer(encode, decode, where)

    def lost(self, incarnation: int) -> None:
        """Who has registered some may be gone."""
        self._all.remove_of(incarnation)
        self._look()


def _check(encode: Any, decode: Any, where: Any) -> None:
    for name, function in (("encode", encode), ("decode", decode)):
        if not callable(function):
            raise TypeError(f"transformer: {name}={function!r} cannot be called")
    kinds = where if isinstance(where, tuple) else (where,)
    if not kinds or not (
        all(isinstance(kind, type) for kind in kinds) or callable(where)
    ):
        raise TypeError(
            f"transformer: where={where!r}: expected a class, a tuple of classes, or a "
            "function that is given a value and says whether it is to be encoded"
        )
    never = [kind.__name__ for kind in kinds if kind in NEVER_ASKED]
    if never:
        raise TypeError(
            f"transformer: values of {', '.join(never)} themselves always go as they "
            "are; name the class of what is in them, or wrap them in one of your own"
        )
