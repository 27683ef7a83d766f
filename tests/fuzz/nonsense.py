"""Messages and bytes that no honest peer would send; from a seed, again and again."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from mosaic_like.comms import messages as wire
from mosaic_like.comms.exceptions import Node

if TYPE_CHECKING:
    from random import Random

KINDS: tuple[type[msgspec.Struct], ...] = typing.get_args(wire.AnyMessage)
# Where numbers of messages meet those of other messages.
_EDGES = (0, 1, -1, 255, 2**31, 2**63 - 1, -(2**63))
PICKLE = b"\x80\x05N."
_KINDS = tuple(
    f"mosaic_like.errors.{n}" for n in ("UpstreamError", "TaskCancelledError")
)
_TEXTS = ("", "x", "ping", "__init__", "__close__", "worker:0:0", "\x1b[31m", "é" * 40)


@functools.cache
def _types_of(kind: type[msgspec.Struct]) -> tuple[Any, ...]:
    """Of its fields, in order: to ask msgspec each time is most of the work."""
    return tuple(field.type for field in msgspec.structs.fields(kind))


class Generator:
    """Random messages whose fields are of the right types and make no sense.

    Args:
        random: where everything comes from.
        numbers: what integers are mostly taken from: uids and incarnations there are.
    """

    def __init__(self, random: Random, numbers: list[int]) -> None:
        self._random = random
        self._numbers = numbers

    def message(self) -> Any:
        """One of any kind."""
        return self._struct(self._random.choice(KINDS))

    def batch(self) -> list[Any]:
        """A few of them."""
        return [self.message() for _ in range(self._random.randint(1, 4))]

    def numbers(self, more: list[int]) -> None:
        """Take integers mostly from these from now on."""
        self._numbers = more

    def _struct(self, kind: type[msgspec.Struct]) -> Any:
        return kind(*[self._value(one) for one in _types_of(kind)])

    def _report(self) -> bytes:
        """An error as it travels, with a pickle inside that is not to be loaded."""
        random = self._random
        names = ("ValueError", *_KINDS)
        nodes = [
            Node(
                random.choice(names),
                random.choice(_TEXTS),
                "",
                [],
                [],
                pickled=PICKLE,
                cause=random.randint(-1, 4),
                context=random.randint(-2, 4),
                members=[random.randint(-1, 5)],
            )
            for _ in range(random.randint(0, 3))
        ]
        return msgspec.msgpack.encode(nodes)

    def _value(self, kind: Any) -> Any:
        random = self._random
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin is typing.Annotated:
            return self._value(arguments[0])
        if origin in (list, Sequence) or arguments[1:] == (...,):
            return [self._value(arguments[0]) for _ in range(random.randint(0, 3))]
        if origin is tuple:
            return tuple(self._value(argument) for argument in arguments)
        if origin in (types.UnionType, typing.Union):
            return self._value(random.choice(arguments))
        if kind is type(None):
            return None
        if kind is bool:
            return random.random() < 0.5
        if kind is int:
            few = random.random()
            if few < 0.7:
                return random.choice(self._numbers)
            return random.choice(_EDGES) if few < 0.9 else random.randint(0, 12)
        if kind is float:
            return random.choice((0.0, -1.0, 1e-3, 1e18))
        if kind is str:
            return random.choice(_TEXTS)
        if kind is bytes:
            few = random.random()
            if few < 0.2:
                return self._report()
            if few < 0.3:
                return PICKLE
            return random.randbytes(random.choice((0, 1, 8, 32)))
        return self._struct(kind)


def mutated(body: bytes, random: Random) -> bytes:
    """The bytes with a few changes: flipped, cut, doubled, put in."""
    out = bytearray(body)
    for _ in range(random.randint(1, 4)):
        at = random.randint(0, len(out))
        what = random.randrange(5)
        if what == 0 and out:
            out[at % len(out)] ^= 1 << random.randrange(8)
        elif what == 1 and out:
            out[at % len(out)] = random.choice((0x00, 0x7F, 0x80, 0xC0, 0xDF, 0xFF))
        elif what == 2:
            del out[at : at + random.randint(1, 8)]
        elif what == 3:
            out[at:at] = out[at : at + random.randint(1, 16)]
        else:
            out[at:at] = random.randbytes(random.randint(1, 8))
    return bytes(out)
