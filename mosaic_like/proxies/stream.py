"""What a remote generator yields, as its caller takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from ..core.caller import Call
    from .runtime import Runtime

T_co = TypeVar("T_co", covariant=True)


class RemoteStream(Generic[T_co]):
    def __init__(self, runtime: Runtime, call: Call) -> None:
        self._runtime = runtime
        self._call = call

    def __aiter__(self) -> Any:
        raise NotImplementedError
