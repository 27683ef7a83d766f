"""The head: the program that uses the cluster, as one of its runtimes."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

from ..comms import messages as wire
from ..config import Config
from .user import UserRuntime

logger = logging.getLogger(__name__)


class Head(UserRuntime):
    """The runtime object that ``main`` is given."""

    def __init__(self, loop: asyncio.AbstractEventLoop, config: Config) -> None:
        super().__init__(loop, config)
        self.handlers[wire.Output] = self._on_output
        self.handlers[wire.Stopped] = self._on_stopped
        self.stopped: asyncio.Future[list[str]] = loop.create_future()
        self.failed: str | None = None

    def _on_output(self, message: wire.Output, buffers: Any, sender: int) -> None:
        stream = sys.stdout if message.stream == 1 else sys.stderr
        prefix = f"{message.label} | "
        text = "".join(
            prefix + line for line in message.text.splitlines(keepends=True)
        )
        try:
            stream.write(text)
            stream.flush()
        except (OSError, ValueError):
            logger.debug("output of %s is lost: the stream is closed", message.label)

    def _on_stopped(self, message: wire.Stopped, buffers: Any, sender: int) -> None:
        if not self.stopped.done():
            self.stopped.set_result(message.lines)

    def on_stop(self, message: wire.Stop, buffers: Any, sender: int) -> None:
        self.stopping = True


