"""Amounts of memory as people write and read them."""

from __future__ import annotations

import re

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_FACTORS = {unit.lower(): 1 << 10 * power for power, unit in enumerate(_UNITS)}
_FACTORS |= {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "pb": 10**15}
_MOST = 1 << 62  # bytes
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")


def parse_size(text: str) -> int:
    """Bytes of an amount such as "2 GiB", "500 MB" or "4096".

    Raises:
        ValueError: it is none; write a number and one of B, KiB, MiB, GiB, TiB.

    >>> parse_size("2 GiB"), parse_size("1.5MB"), parse_size("10")
    (2147483648, 1500000, 10)
    """
    found = _SIZE.fullmatch(text)
    factor = None if found is None else _FACTORS.get(found[2].lower())
    if found is None or factor is None:
        raise ValueError(f"found {text!r}, expected a size such as '2 GiB'")
    nbytes = float(found[1]) * factor
    if nbytes > _MOST:
        raise ValueError(f"found {text[:40]!r}, more than any memory")
    return int(nbytes)


def size_text(nbytes: int) -> str:
    """An amount for people.

    >>> size_text(512), size_text(3 << 30), size_text(1_500_000)
    ('512 B', '3.0 GiB', '1.4 MiB')
    """
    amount = float(nbytes)
    for unit in _UNITS:
        if abs(amount) < 1024 or unit == _UNITS[-1]:
            break
        amount /= 1024
    return f"{nbytes} B" if unit == "B" else f"{amount:.1f} {unit}"
