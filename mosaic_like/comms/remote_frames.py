"""Frames that travel: where an error went through elsewhere, as a traceback here.

A frame of Python cannot be made, only entered: for each remote one a line of code is
compiled that has its file, its name and its position, and run to raise. Lines are read
from the file of that name here, as Python does for every traceback, so the marks below
them are right where the file is the same.
"""

from __future__ import annotations

import ast
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

# File, function, module; line, last line, column, last column, each -1 if not known.
Frame = tuple[str, str, str, int, int, int, int]

_FRAMES = 100
_UNKNOWN = (-1, -1, -1)


def frames_of(tb: TracebackType | None) -> list[Frame]:
    """The frames of a traceback, outermost first; of very many the first and last."""
    frames: list[Frame] = []
    while tb is not None:
        frame = tb.tb_frame
        code = frame.f_code
        line = tb.tb_lineno or 0
        module = str(frame.f_globals.get("__name__", "?"))
        name = code.co_name
        position = _position(code, tb.tb_lasti, line)
        frames.append((code.co_filename, name, module, line, *position))
        tb = tb.tb_next
    if len(frames) > _FRAMES:
        frames = frames[: _FRAMES // 2] + frames[-_FRAMES // 2 :]
    return frames


def _position(code: Any, instruction: int, line: int) -> tuple[int, int, int]:
    """Last line, column and last column of what failed; columns are in bytes."""
    if instruction < 0:
        return _UNKNOWN
    for found in islice(code.co_positions(), instruction // 2, None):
        if None in found or found[0] != line:
            break
        return found[1], found[2], found[3]
    return _UNKNOWN


def joined(frames: list[Frame]) -> TracebackType | None:
    """These frames as a traceback; None if it cannot be made."""
    try:
        try:
            return _joined(frames)
        except Exception:  # perhaps a Python that compiles in some other way
            return _joined_without_positions(frames)
    except Exception:  # the frames are for people: without them it is still the error
        return None


def _joined(frames: list[Frame]) -> TracebackType | None:
    top: TracebackType | None = None
    for file, function, module, line, last, column, last_column in reversed(frames):
        name = ast.Name("error", ast.Load())
        raises = ast.Raise(name, None)
        for node in (name, raises):
            node.lineno, node.end_lineno = line, max(line, last)
            node.col_offset, node.end_col_offset = column, last_column
        code = compile(ast.Module([raises], []), file, "exec")
        code = code.replace(co_name=function, co_qualname=function)
        try:
            exec(code, {"__name__": module, "__file__": file, "error": _Entered})
        except _Entered as entered:
            made = entered.__traceback__ and entered.__traceback__.tb_next
            if made is not None:
                made.tb_next = top
                top = made
    return top


class _Entered(Exception):
    """Raised in a frame to have it in a traceback."""


def _joined_without_positions(frames: list[Frame]) -> TracebackType | None:
    from tblib import Traceback

    chain: dict[str, Any] | None = None
    for file, function, module, line, *_ in reversed(frames):
        chain = {
            "tb_frame": {
                "f_globals": {"__name__": module, "__file__": file},
                "f_code": {"co_filename": file, "co_name": function},
                "f_lineno": line,
            },
            "tb_lineno": line,
            "tb_next": chain,
        }
    made: TracebackType | None = Traceback.from_dict(chain).as_traceback()
    return made
