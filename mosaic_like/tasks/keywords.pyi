"""What type checkers know of the options of a task. None of this is there at run time.

What each means stands at ``mosaic.task``, and what is right is checked in ``options``.
"""

from __future__ import annotations

import concurrent.futures
import datetime
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from ..proxies.outputs import TaskDone, TaskOutput
from ..proxies.task import TaskProxy
from .concurrency import Concurrency
from .options import _Unset as Unset
from .storage import Serializer, Store

# What stands for a value among the arguments of a call.
StandsFor = TaskProxy[Any] | TaskOutput | concurrent.futures.Future[Any]

_Hooks = Callable[..., Any] | Sequence[Callable[..., Any]] | Unset | None
_RunName = str | Callable[[dict[str, Any]], str] | Unset | None
_CacheKey = (
    Literal["inputs"] | Callable[[Any, Mapping[str, Any]], str | None] | Unset | None
)

class TaskKeywords(TypedDict, total=False):
    """The options of ``mosaic.task``."""

    name: str | Unset | None
    description: str | Unset | None
    tags: Iterable[str] | Unset | None
    version: str | Unset | None
    run_name: _RunName
    max_retries: int | Unset | None
    retry_on: type[Exception] | tuple[type[Exception], ...] | Unset | None
    retry_if: Callable[..., Any] | Unset | None
    retry_delay: float | Sequence[float] | Callable[[int], float] | Unset | None
    retry_jitter: float | Unset | None
    timeout: float | Unset | None
    interrupt: Literal["flag", "raise", "kill"] | Unset | None
    cache_key: _CacheKey
    cache_expiration: float | datetime.timedelta | Unset | None
    refresh_cache: bool | Unset | None
    persist: bool | Unset | None
    store: str | os.PathLike[str] | Store | Unset | None
    store_key: str | Unset | None
    serializer: Literal["pickle", "json"] | Serializer | Unset | None
    concurrency: Concurrency | Unset | None
    cancel_if: Callable[[Any], Any] | Unset | None
    log_prints: bool | Unset | None
    on_done: _Hooks
    on_failed: _Hooks
    on_state: _Hooks
    runtime: Any
    viz_value: Any

class CallKeywords(TaskKeywords, total=False):
    """The options of ``Task.options``: also those of calls."""

    after: _After | Iterable[_After] | Unset | None
    delay: float | Unset | None
    batch_size: int | Unset | None

_After = TaskProxy[Any] | TaskDone | TaskOutput
