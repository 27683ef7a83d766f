"""Function tasks that go to one worker, in order, behind what was sent there.

Those that take only tasks of that worker, and those that were submitted to run there.
Who is pinned, and when they are sent, is decided in ``dispatch``.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .call import Call, Stream
    from .window import Entry


class Pinned:
    """Those of one queue: a line for each worker that has some, by its stream."""

    def __init__(self) -> None:
        self._lines: dict[Stream, OrderedDict[int, Entry]] = {}
        self._streams: dict[int, Stream] = {}  # by uid

    def __len__(self) -> int:
        return len(self._streams)

    def __contains__(self, uid: int) -> bool:
        return uid in self._streams

    def has_line(self, stream: Stream) -> bool:
        """Whatever goes there goes behind others."""
        return stream in self._lines

    def stream_of(self, call: Call) -> Stream:
        """Where a call goes: its line's, or its own."""
        return self._streams.get(call.uid, call.stream)

    def add(self, stream: Stream, entry: Entry) -> None:
        """To the end of a line."""
        self._lines.setdefault(stream, OrderedDict())[entry.call.uid] = entry
        self._streams[entry.call.uid] = stream

    def first(self, stream: Stream) -> Entry | None:
        """Take out the first of a line; ``tidy`` afterwards."""
        line = self._lines.get(stream)
        if not line:
            return None
        uid, entry = line.popitem(last=False)
        del self._streams[uid]
        return entry

    def tidy(self, stream: Stream) -> None:
        """Forget a line that is empty."""
        if not self._lines.get(stream, True):
            del self._lines[stream]

    def take_line(self, stream: Stream) -> list[Entry]:
        """All that goes to a worker, which goes elsewhere."""
        line = self._lines.pop(stream, OrderedDict())
        for uid in line:
            del self._streams[uid]
        return list(line.values())

    def take(self, uid: int) -> Entry | None:
        """Take out one; None: it is not pinned."""
        stream = self._streams.pop(uid, None)
        if stream is None:
            return None
        entry = self._lines[stream].pop(uid)
        self.tidy(stream)
        return entry

    def take_free(self, is_free: Callable[[Entry], bool], most: int) -> list[Entry]:
        """Take out those that may go to any worker.

        Args:
            is_free: of one.
            most: that are looked at in each line, the first: others are behind these.
        """
        found = [
            entry
            for line in self._lines.values()
            for entry in itertools.islice(line.values(), most)
            if is_free(entry)
        ]
        for entry in found:
            self.take(entry.call.uid)
        return found
