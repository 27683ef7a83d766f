"""Text of others on its way to a terminal.

Names, host names and causes of death come from other processes, and must not move the
cursor or begin a new line that looks like ours. What a user's method prints or raises
is the user's: it may have colors, and more only where it does not come by us.
"""

from __future__ import annotations

import re

# All control characters: C0, DEL and C1, and what reverses the direction of text.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# Those that may stay in text of several lines.
_BUT_LINES = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)
# Control characters but tab and line's end, and escape sequences; colors are group 1.
_ESCAPES = re.compile(
    r"(\x1b\[[0-9;:]*m)"
    r"|\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]"
)
_PLAIN_COLOR = "\x1b[0m"


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


def is_utf8(text: str) -> bool:
    r"""Whether a message can carry it: no lone surrogates, as in names of old files.

    >>> is_utf8("häß"), is_utf8("h\udce4")
    (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def for_terminal(line: str) -> str:
    r"""A line without what could do more to a terminal than show text in color.

    >>> for_terminal("\x1b]0;title\x07\x1b[31mred\x1b[2J")
    '\x1b[31mred\x1b[0m'
    """
    clean = _ESCAPES.sub(lambda match: match[1] or "", line)
    if "\x1b" in clean and not clean.endswith(_PLAIN_COLOR):
        clean += _PLAIN_COLOR  # a color ends with its line
    return clean


def lines_for_terminal(text: str) -> str:
    r"""The same for text of several lines, which stay.

    >>> lines_for_terminal("one\ntwo\x1b[2J\r")
    'one\ntwo'
    """
    if text.isprintable():
        return text
    return "\n".join(map(for_terminal, text.split("\n")))
