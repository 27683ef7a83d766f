"""What proxies need of the runtime that they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections import deque
    from collections.abc import Callable

    from ..comms.messages import Extra, Options
    from ..core.call import Call, Stream
    from .records import TaskInfo
    from .stream import Intakes


class Ticking(Protocol):
    ticking: bool
    closed: bool


def check_open(runtime: Runtime, name: str) -> None:
    """That a proxy is not of a cluster that has ended: its uids are used again."""
    if runtime.peers.closed:
        raise RuntimeError(
            f"{name} belongs to a cluster that has ended: make it again in the one "
            "that runs now"
        )


class Limiting(Protocol):
    def limit(self, call: Call, extra: Extra) -> None: ...


class Observing(Protocol):
    def info(self, call: Call) -> TaskInfo: ...
    def watch(self, call: Call, then: Callable[..., Any]) -> None: ...


class Runtime(Protocol):
    """Filled by ``runtimes.actor.ActorRuntime``."""

    loop: asyncio.AbstractEventLoop
    dropped: deque[Any]
    uid: str

    @property
    def peers(self) -> Ticking: ...
    @property
    def intakes(self) -> Intakes: ...
    @property
    def limiting(self) -> Limiting: ...
    @property
    def observing(self) -> Observing: ...
    @property
    def on_loop(self) -> bool: ...

    def _wake_tick(self) -> None: ...
    def post(self, function: Callable[..., Any], *args: Any) -> None: ...
    def when_settled(self, call: Call, then: Callable[[], Any]) -> None: ...
    def fetch(self, call: Call, then: Callable[[], Any]) -> None: ...
    def is_away(self, call: Call) -> bool: ...
    def part_of(self, task: Any, key: int | str) -> Any: ...
    def on_other_loop(
        self, loop: asyncio.AbstractEventLoop, then: Callable[[], Any]
    ) -> None: ...
    def block(self, call: Call, timeout: float | None, value: bool = False) -> None: ...
    def waits_on_main(self) -> bool: ...
    def block_until(
        self, condition: Callable[[], bool], call: Call, timeout: float | None
    ) -> bool: ...
    def wake_main(self) -> None: ...
    def value_of(self, call: Call) -> Any: ...
    def error_of(self, call: Call) -> BaseException: ...
    def cancel(self, call: Call, reason: str) -> bool: ...
    def uid_of(self, incarnation: int) -> str: ...
    @property
    def connections(self) -> Any: ...
    def want(self, call: Call) -> None: ...
    def at_once(self, function: Callable[..., Any], *args: Any) -> Any: ...
    def dump_call(
        self, method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any: ...
    def submit(
        self,
        handle: Any,
        method: str,
        payload: Any,
        extra: Extra | None = None,
        depth: int = 2,
    ) -> Call: ...
    def submit_to_result(
        self,
        handle: Any,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        extra: Extra,
    ) -> Call: ...
    def create(
        self,
        cls: type,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        where: Any = None,
        depth: int = 2,
    ) -> Any: ...
    def silence(
        self, stream: Stream, kinds: tuple[type[BaseException], ...]
    ) -> None: ...
    def resolve_worker(self, where: Any) -> Any: ...
