"""Slurm's short form of many names: ``n[9-11,14],d[01-02]``.

Brackets hold numbers and ranges, whose leading zeros count; there may be several of
them in one name. ``fold`` makes the form for people, ``expand`` takes it apart.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MOST = 65_536  # hosts of one list: what is more is a mistake
_PARTS = re.compile(r"\[([0-9,-]+)\]|([^\[\],\s]+)")
# Numbers of more digits are none: Python refuses to read those of thousands.
_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")
_NUMBERED = re.compile(r"(.*?)([0-9]{1,18})([^0-9]*)")


def expand(text: str) -> list[str]:
    """The names that a list stands for, in its order.

    Raises:
        ValueError: it is none.

    >>> expand("n[9-11],d[01-02]x,head")
    ['n9', 'n10', 'n11', 'd01x', 'd02x', 'head']
    """
    names: list[str] = []
    for item in _items(text):
        choices: list[list[str]] = []
        at = 0
        for part in _PARTS.finditer(item):
            if part.start() != at:
                break
            at = part.end()
            choices.append(_numbers(part[1], text) if part[1] else [part[2]])
        if at != len(item) or not item:
            raise ValueError(_not_a_list(text))
        count = len(names)
        for choice in choices:
            count *= len(choice) if count else 1
        for name in itertools.product(*choices):
            names.append("".join(name))
            if len(names) > MOST:
                raise ValueError(_too_many(text))
    return names


def _not_a_list(text: str) -> str:
    return f"found {text[:80]!r}, expected hosts such as 'node[01-04],head'"


def _too_many(text: str) -> str:
    return f"{text[:80]!r} stands for more than {MOST} hosts"


def _items(text: str) -> Iterator[str]:
    """Split at the commas that are outside of brackets."""
    item, depth = "", 0
    for character in text.strip():
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            yield item
            item = ""
        else:
            item += character
    yield item


def _numbers(text: str, whole: str) -> list[str]:
    numbers: list[str] = []
    for item in text.split(","):
        found = _RANGE.fullmatch(item)
        if found is None:
            raise ValueError(_not_a_list(whole))
        first, last = found[1], found[2] or found[1]
        count = int(last) - int(first) + 1
        if count < 1 or count > MOST:
            raise ValueError(_not_a_list(whole))
        width = len(first)
        numbers += [f"{int(first) + n:0{width}}" for n in range(count)]
        if len(numbers) > MOST:
            raise ValueError(_too_many(whole))
    return numbers


def shown(names: Iterable[str]) -> str:
    """In short, and in the order in which people count.

    >>> shown(["n10", "n2", "n9", "n11"])
    'n[2,9],n[10-11]'
    """
    return fold(sorted(names, key=_order))


def _order(name: str) -> list[tuple[int, str]]:
    return [
        (int(part[-18:]) if part.isdecimal() else -1, part)
        for part in re.split("([0-9]+)", name)
    ]


def fold(names: Iterable[str]) -> str:
    """The names in short.

    >>> fold(["node01", "node02", "node03", "gpu7", "head"])
    'node[01-03],gpu7,head'
    """
    written: list[str] = []
    for (prefix, suffix, width), group in itertools.groupby(names, _stem):
        members = list(group)
        if width == 0:
            written += members
            continue
        ranges = _ranges(
            [int(name[len(prefix) : len(name) - len(suffix)]) for name in members]
        )
        texts = [
            f"{first:0{width}}"
            if first == last
            else f"{first:0{width}}-{last:0{width}}"
            for first, last in ranges
        ]
        if len(members) == 1:
            written += members
        else:
            written.append(f"{prefix}[{','.join(texts)}]{suffix}")
    return ",".join(written)


def _stem(name: str) -> tuple[str, str, int]:
    """What is around the last number of a name, and how wide that is; 0: none is."""
    found = _NUMBERED.fullmatch(name)
    if found is None or any(character in name for character in "[],"):
        return name, "", 0
    before, number, after = found.groups()
    return before, after, len(number)


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1] = ranges[-1][0], number
        else:
            ranges.append((number, number))
    return ranges
