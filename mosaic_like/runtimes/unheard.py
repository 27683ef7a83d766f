"""Failures that nobody has asked for: they are logged, once for each place of a call.

The failure of a call is heard, too, where that of a call is which took it. That comes a
little later: so while calls are on their way it is waited for, ``_SOON_S`` at most.

That a call was let go before anybody had asked is noticed elsewhere: see ``dropping``.
"""

from __future__ import annotations

import itertools
import logging
import traceback
from collections import Counter
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from .. import ids
from ..comms import messages as wire
from ..comms.causes import fault_of
from ..comms.exceptions import error_summary
from ..core.call import DROPPED, rare
from ..core.task import CLOSE_METHOD, FAILED
from ..proxies.tessera import READY
from ..text import lines_for_terminal

if TYPE_CHECKING:
    from ..core.call import Call, Stream
    from .actor import ActorRuntime

logger = logging.getLogger(__name__)


class _Cleaned(logging.Filter):
    """Nobody knows here whether what is logged goes to a terminal."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            text = "".join(traceback.format_exception(error)).removesuffix("\n")
            clean = lines_for_terminal(text)
            if clean != text:  # else whoever formats it may do so in another way
                record.exc_text = clean
        return True


logger.addFilter(_Cleaned())

_SOON_S = 0.1  # until those that took what has failed have failed as well
_MOST_HEARD = 1000  # tasks, the latest


class UnheardFailures:
    """Those of the calls of one runtime; all on the loop's thread, but ``silence``."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        # Of which failures nothing is logged when nobody asks for them.
        self._silenced: WeakKeyDictionary[Stream, tuple[type[BaseException], ...]]
        self._silenced = WeakKeyDictionary()
        # The last one that was logged, and the places of its calls.
        self._told: WeakKeyDictionary[Stream, tuple[bytes, set[str]]]
        self._told = WeakKeyDictionary()
        # Calls to be told of soon, and those for whose dependents that waits: by name.
        self._soon: dict[str, Call] = {}
        self._unsaid: dict[str, Call] = {}
        self._blamed: Counter[str] = Counter()  # by failures that may be heard yet
        self._heard: dict[str, None] = {}  # by way of another failure

    def silence(self, stream: Stream, kinds: tuple[type[BaseException], ...]) -> None:
        """Log nothing of such failures of this tessera."""
        self._silenced[stream] = kinds

    def silence_as(self, old: Stream, stream: Stream) -> None:
        """What was said of one stream holds for the one that took its place."""
        if old in self._silenced:
            self._silenced[stream] = self._silenced[old]

    def note(self, call: Call) -> None:
        """It has failed, and nobody waits for it: its proxy may still ask."""
        if call.method == "__init__" or (call.method == READY and call.hold == DROPPED):
            # Every call on the tessera says it again; see Dropping._drop_handle.
            rare(call).unheard = True
        elif call.hold == DROPPED:
            self.complain(call)
        else:
            rare(call).unheard = True
            fault = fault_of(call.result) if _is_upstream(call) else ""
            if fault:
                self._blamed[fault] += 1

    def heard(self, call: Call) -> None:
        """Somebody has got the error of a call that was not called for its argument."""
        fault = fault_of(call.result)
        if not fault:
            return
        self._soon.pop(fault, None)
        self._unsaid.pop(fault, None)
        self._blamed.pop(fault, None)
        self._heard[fault] = None
        if len(self._heard) > _MOST_HEARD:
            del self._heard[next(iter(self._heard))]

    def again(self, call: Call) -> None:
        """It is retried: how it ended before, and who had heard of it, is forgotten."""
        name = ids.task_name(call.first_uid)
        for known in (self._soon, self._unsaid, self._blamed, self._heard):
            known.pop(name, None)

    def complain(self, call: Call) -> None:
        """A failure that nobody has asked for."""
        if call.rare is not None:
            call.rare.unheard = False
        if call.state != FAILED or self._runtime.stopping:
            return
        if _is_upstream(call):
            self._unheard_too(fault_of(call.result))
            return  # the call at fault says it
        name = ids.task_name(call.first_uid)
        if name in self._heard:
            return
        if name in self._blamed:
            self._unsaid[name] = call
        elif self._runtime.caller.calls:
            if not self._soon:
                loop, context = self._runtime.loop, self._runtime.context
                loop.call_later(_SOON_S, self.flush, context=context)
            self._soon[name] = call
        else:
            self.flush()  # in their order
            self._say(call)

    def flush(self, *, all_of_it: bool = False) -> None:
        """Tell now what waits to be told.

        Args:
            all_of_it: also what might be heard yet: the program ends.
        """
        soon, self._soon = self._soon, {}
        for name, call in soon.items():
            if name in self._blamed:
                self._unsaid[name] = call
            else:
                self._say(call)
        if all_of_it:
            unsaid, self._unsaid = self._unsaid, {}
            for call in unsaid.values():
                self._say(call)

    def _unheard_too(self, fault: str) -> None:
        """Nobody will ask for a call either that has failed of this one."""
        if not fault:
            return
        self._blamed[fault] -= 1
        if self._blamed[fault] < 1:
            del self._blamed[fault]
            call = self._unsaid.pop(fault, None)
            if call is not None:
                self._say(call)

    def _say(self, call: Call) -> None:
        gone = call.rare is not None and call.rare.reason == wire.REASONS[wire.GONE]
        if gone and call.method == CLOSE_METHOD:
            return  # what it asked for is so
        error = self._runtime.error_of(call)
        if isinstance(error, self._silenced.get(call.stream, ())):
            return
        place = place_of(call)
        # Calls on what could not be made all fail with the very same error.
        last, places = self._told.get(call.stream, (b"", set()))
        is_new = call.result != last
        if is_new:
            places = set()
            self._told[call.stream] = call.result, places
        elif place in places:
            return
        places.add(place)
        logger.error(
            "%s.%s, called at %s, failed and nobody asked for its result%s",
            call.stream.label,
            call.method,
            place,
            "" if is_new else f": {error_summary(call.result)} (see above)",
            exc_info=(type(error), error, error.__traceback__) if is_new else None,
        )


def _is_upstream(call: Call) -> bool:
    return call.rare is not None and call.rare.reason == wire.REASONS[wire.UPSTREAM]


def place_of(call: Call) -> str:
    """Where a call was made, as ``file:line``."""
    code = call.code
    if code is None:
        return "another runtime"
    line = code.co_firstlineno
    # co_positions has one entry for each instruction of two bytes.
    positions = itertools.islice(code.co_positions(), call.instruction // 2, None)
    for start, _, _, _ in positions:
        if start is not None:
            line = start
        break
    return f"{code.co_filename}:{line}"
