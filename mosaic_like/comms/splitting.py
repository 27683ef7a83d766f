"""Packets as they go over the network: no frame larger than FRAME_BYTES.

Who has connected and not yet shown a key may send frames, and libzmq keeps each until
its end has come: so those that are taken from the network have to be small. A packet
whose parts are small goes as it is. Another is cut, and a first frame says of how many
frames each part is made; it begins with ``_SPLIT``, as the header of no link does.

Sockets in directories (ipc) need none of this: there are no strangers.
"""

from __future__ import annotations

import itertools
import struct
from typing import TYPE_CHECKING, Any, Final

from ..errors import ProtocolError

if TYPE_CHECKING:
    from .transport import Packet

FRAME_BYTES: Final = 512 * 1024
_SPLIT: Final = 0xF5  # neither a link's protocol, nor the first byte of any text
_COUNT: Final = struct.Struct("<I")


def is_small(packet: Packet) -> bool:
    """Whether it can go as it is."""
    return all(_nbytes(part) <= FRAME_BYTES for part in packet)


def split(packet: Packet) -> Packet:
    """The frames of a packet that has large parts; only views of these are made."""
    plan = bytearray((_SPLIT,))
    frames: Packet = [plan]
    for part in packet:
        view = memoryview(part).cast("B")
        # Of nothing one frame too, or it could not be told from no part at all.
        starts = range(0, max(1, len(view)), FRAME_BYTES)
        plan += _COUNT.pack(len(starts))
        frames += [view[start : start + FRAME_BYTES] for start in starts]
    return frames


def joined(packet: Packet) -> Packet:
    """What was sent, of what has come.

    Raises:
        ProtocolError: it says of itself what is not so; it is to be dropped.
    """
    first = packet[0]
    if not len(first) or first[0] != _SPLIT:
        return packet
    plan = bytes(first[1:])
    if len(plan) % _COUNT.size:
        raise ProtocolError(f"a plan of {len(plan)} bytes for the frames of a packet")
    counts = [count for (count,) in _COUNT.iter_unpack(plan)]
    if not counts or min(counts) < 1 or sum(counts) != len(packet) - 1:
        raise ProtocolError(f"{len(packet) - 1} frames came, expected {sum(counts)}")
    frames = iter(packet[1:])
    return [_join(list(itertools.islice(frames, count))) for count in counts]


def _join(frames: list[Any]) -> Any:
    # What stands in several frames is put together in memory that is ours: it is
    # writable there, and what is handed on must not be.
    return frames[0] if len(frames) == 1 else memoryview(b"".join(frames))


def _nbytes(part: Any) -> int:
    return part.nbytes if isinstance(part, memoryview) else len(part)
