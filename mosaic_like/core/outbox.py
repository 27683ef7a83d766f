"""Where messages to one peer wait for the end of the tick; only what it can do.

Made in runtimes/peers.py. How much may wait is decided by who fills it.
"""

from __future__ import annotations

from typing import Any, Protocol


class Outbox(Protocol):
    """Where messages to one peer are gathered until the end of the tick."""

    bytes_out: int  # counted arguments that are on their way

    @property
    def incarnation(self) -> int: ...

    @property
    def shares_memory(self) -> bool:
        """It is on this host, and opens what this runtime shares."""

    @property
    def releases(self) -> list[int]:
        """Uids that it will be told of as dropped; to be appended to."""

    def send(self, message: Any, payload: Any = None) -> None: ...

    def send_ends(self, messages: list[Any]) -> None: ...
