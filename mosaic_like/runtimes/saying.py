"""What a process of ours says to people, on its standard error, if anybody hears it.

A node that was started by ssh may outlive the connection over which it speaks: then
writing fails, and what was to be done beside it has to be done all the same.
"""

from __future__ import annotations

import contextlib
import sys


def say(text: str) -> None:
    """Write one line; on the standard error that the process was started with."""
    with contextlib.suppress(OSError, ValueError):  # broken, or closed
        print(f"mosaic: {text}", file=sys.__stderr__, flush=True)
