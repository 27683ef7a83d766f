"""Tracebacks without the runtime's own frames: the user's, here and where it ran.

What a frame of ours shows is never why a user's program fails, unless the fault is
ours: then all stay that the user's line led to. ``MOSAIC_FULL_TRACEBACK=1`` shows
everything always.

A frame is added to a traceback when an error leaves it, but not when a ``with`` that
is left by the error lets it pass: so what UNSEEN takes out at its end stays out.
"""

from __future__ import annotations

import os
from opcode import opmap
from types import TracebackType
from typing import Any

from ..environment import FULL_TRACEBACK

# cloudpickle works for us, and calls what users define.
_OWN = frozenset({__name__.partition(".")[0], "cloudpickle"})
_RAISES = opmap["RAISE_VARARGS"]
_CHAIN = 32  # causes and contexts


def without_own(
    tb: TracebackType | None, *, meant: bool = False
) -> TracebackType | None:
    """A traceback without our own frames; the one that is given is not changed.

    Args:
        tb: of an error that is to be shown to a user.
        meant: whatever frame of ours it came out of, it is no fault of ours.
    """
    if tb is None or os.environ.get(FULL_TRACEBACK) == "1":
        return tb
    frames = _frames(tb)
    if meant or _is_meant(frames[-1]):
        frames = [one for one in frames if not _is_own(one)]
    else:
        firsts = (i for i, one in enumerate(frames) if not _is_own(one))
        frames = frames[next(firsts, 0) :]
    shown = None
    for one in reversed(frames):
        shown = TracebackType(shown, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return shown


def has_others(tb: TracebackType | None) -> bool:
    """It has a frame that is not ours."""
    return not all(map(_is_own, _frames(tb)))


def hide_own(error: BaseException, *, meant: bool = False) -> None:
    """Take our own frames out of what is shown of an error, its causes and contexts.

    Args:
        error: which.
        meant: as for ``without_own``.
    """
    seen: set[int] = set()
    waiting = [(error, meant)]
    while waiting and len(seen) < _CHAIN:
        one, meant = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        frames = _frames(one.__traceback__)
        # What is no Exception, such as CancelledError, comes out of whatever waits.
        meant = meant or not isinstance(one, Exception)
        shown = without_own(one.__traceback__, meant=meant)
        object.__setattr__(one, "__traceback__", shown)  # its own may refuse
        # Where we say what it means, what we were told of it is no fault of ours.
        told = bool(frames) and _is_own(frames[-1]) and (meant or _is_meant(frames[-1]))
        behind = [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            behind += one.exceptions
        waiting += [(other, told) for other in behind if other is not None]


class _Unseen:
    """``with UNSEEN:`` errors leave it without our frames, also that around it."""

    __slots__ = ("_meant",)

    def __init__(self, meant: bool) -> None:
        self._meant = meant

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, tb: Any) -> None:
        if error is not None:
            hide_own(error, meant=self._meant)


UNSEEN = _Unseen(meant=False)
PASSED_ON = _Unseen(meant=True)  # around what only awaits a task


def _frames(tb: TracebackType | None) -> list[TracebackType]:
    frames = []
    while tb is not None:
        frames.append(tb)
        tb = tb.tb_next
    return frames


def _is_own(tb: TracebackType) -> bool:
    module = tb.tb_frame.f_globals.get("__name__", "")
    return str(module).partition(".")[0] in _OWN


def _is_meant(tb: TracebackType) -> bool:
    """A frame of the user's, or one of ours that says ``raise``.

    Any other of ours did not expect the error that came out of it.
    """
    code = tb.tb_frame.f_code.co_code
    at_raise = 0 <= tb.tb_lasti < len(code) and code[tb.tb_lasti] == _RAISES
    return at_raise or not _is_own(tb)
