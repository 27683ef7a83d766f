"""Values that cannot travel, or bite who touches them."""

from __future__ import annotations

import os
import signal
from typing import Any


class BadReduce:
    def __reduce__(self) -> Any:
        raise ZeroDivisionError("in __reduce__")


class EndlessReduce:
    def __reduce__(self) -> Any:
        return self.__reduce__()


class BadState:
    def __getstate__(self) -> Any:
        raise ZeroDivisionError("in __getstate__")


class BadRebuild:
    """Leaves, and does not arrive."""

    def __getstate__(self) -> dict[str, int]:
        return {"x": 1}

    def __setstate__(self, state: dict[str, int]) -> None:
        raise ZeroDivisionError("in __setstate__")


class Bomb(BadRebuild):
    """Ends the process that it arrives in."""

    def __setstate__(self, state: dict[str, int]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Biting:
    """Travels well; all else that it is asked raises."""

    def __repr__(self) -> str:
        raise ZeroDivisionError("in __repr__")

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError("in __eq__")

    def __hash__(self) -> int:
        raise ZeroDivisionError("in __hash__")

    def __bool__(self) -> bool:
        raise ZeroDivisionError("in __bool__")

    def __len__(self) -> int:
        raise ZeroDivisionError("in __len__")


class BadText(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError("in __str__")

    __repr__ = __str__


class NeedsTwo(Exception):
    """Cannot be built again from its args."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one)


class Carries(Exception):
    """Holds what cannot travel."""

    def __init__(self) -> None:
        super().__init__(BadReduce())


# Those that do not leave, and those that do not arrive.
STAY = (BadReduce, EndlessReduce, BadState)
BREAK = (BadRebuild,)
RAISED = (BadText, lambda: NeedsTwo(1, 2), Carries)
