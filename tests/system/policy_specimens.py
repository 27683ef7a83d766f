"""Function tasks that note what they do in files, for the tests of policies."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import mosaic_like as mosaic
from mosaic_like import Concurrency

LONG_S = 300.0  # longer than any test: nobody waits it out


class Refused(Exception):
    """Retried where an option says so."""


def note(path: str, text: str) -> int:
    """Add a line; how many there are."""
    with open(path, "a") as file:
        file.write(f"{text}\n")
    return len(lines(path))


def lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().split() if file.exists() else []


@mosaic.task
def flaky(path: str, failures: int, kind: type[BaseException] = Refused) -> int:
    """Fails so many times; gives the number of its attempt."""
    tries = note(path, "try")
    if tries <= failures:
        raise kind(f"try {tries}")
    return mosaic.current_task().attempt


@mosaic.task
async def flaky_coroutine(path: str, failures: int) -> int:
    await asyncio.sleep(0)
    return flaky(path, failures)


@mosaic.task(cache_key="inputs")
def square(path: str, x: Any, wait: str = "") -> Any:
    note(path, f"{x}")
    hold(wait)
    return x * x


@mosaic.task(cache_key="inputs")
def plus_one(path: str, x: Any) -> Any:
    note(path, "plus_one")
    return x + 1


@mosaic.task(tags={"db"})
def busy(path: str, wait: str = "") -> int:
    """Notes how many run at once."""
    note(path, "in")
    hold(wait)
    time.sleep(0.01)
    found = lines(path)
    note(path, "out")
    return found.count("in") - found.count("out")


@mosaic.task(concurrency=Concurrency(key=("account",)))
def charge(path: str, account: int, wait: str = "") -> int:
    note(f"{path}-{account}", "in")
    hold(wait)
    found = lines(f"{path}-{account}")
    note(f"{path}-{account}", "out")
    return found.count("in") - found.count("out")


@mosaic.task
def until(path: str, wait: str, value: Any = None) -> Any:
    note(path, "ran")
    hold(wait)
    return value


@mosaic.task
async def for_ever(path: str = "") -> None:
    if path:
        note(path, "began")
    await asyncio.sleep(LONG_S)


@mosaic.task
async def nap(seconds: float) -> None:
    await asyncio.sleep(seconds)


@mosaic.task
def spin(seconds: float) -> None:
    ends_s = time.monotonic() + seconds
    while time.monotonic() < ends_s:
        time.sleep(0.005)


@mosaic.task
def die_once(path: str) -> str:
    if note(path, "try") == 1:
        os.kill(os.getpid(), 9)
    return "second"


@mosaic.task
def echo(value: Any = None) -> Any:
    return value


@mosaic.task
def prints(text: str) -> None:
    print(text)
    print(f"{text}, not ended", end="")


@mosaic.task
def fails(text: str) -> None:
    raise Refused(text)


def hold(wait: str) -> None:
    """Wait for a file, but never for ever."""
    ends_s = time.monotonic() + 20
    while wait and not os.path.exists(wait):
        if time.monotonic() > ends_s:
            raise TimeoutError(wait)
        time.sleep(0.002)
