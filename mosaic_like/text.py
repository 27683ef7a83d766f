"""Text of others on its way to a terminal.

What a user's method prints or raises is the user's. Names, host names and causes of
death come from other processes, and must not move the cursor or begin a new line that
looks like ours.
"""

from __future__ import annotations

import re

# All control characters: C0, DEL and C1, and what reverses the direction of text.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# Those that may stay in text of several lines.
_BUT_LINES = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)


def printable(text: str) -> str:
    r"""One line without control characters: each becomes a question mark.

    >>> printable("node\x1b[2J\nmosaic: all is well")
    'node?[2J?mosaic: all is well'
    """
    return _CONTROL.sub("?", text) if not text.isprintable() else text


def printable_lines(text: str) -> str:
    r"""The same for text of several lines, which stay.

    >>> printable_lines("one\ntwo\x1b[31m\r")
    'one\ntwo?[31m?'
    """
    return _BUT_LINES.sub("?", text)
