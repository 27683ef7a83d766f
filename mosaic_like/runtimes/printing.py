"""A runtime whose user code prints: the lines go to the head inside whose call it was.

How text becomes lines, and how these are shown, is in ``output``; what is written to
the descriptors themselves, in ``raw_output``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

from .. import ids
from ..comms import messages as wire
from ..core.task import Task, function_name
from ..ids import MRUN, short
from .output import (
    LOGGED,
    MESSAGE,
    MESSAGE_CHARACTERS,
    RECORDED,
    LineStream,
    Printed,
    messages_of,
)
from .port import CURRENT, Outcome
from .streams import Paused, Yielded
from .user import UserRuntime

if TYPE_CHECKING:
    from ..config import Config
    from .journal import Journal
    from .peer import Peer

# What is printed waits while so much is on its way to a head.
OUTPUT_BYTES = 1 << 20
OUTPUT_RETRY_S = 0.01
EXIT_S = 0.5  # that a process which ends itself has to send what it printed


class Printing(UserRuntime):
    """See the module."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, config: Config, journal: Journal
    ) -> None:
        super().__init__(loop, config, journal)
        self.ended = loop.create_future()
        self.printed = Printed()
        self._sending_later = False
        self.stdout = LineStream(lambda task, text: self._print(1, task, text), 1)
        self.stderr = LineStream(lambda task, text: self._print(2, task, text), 2)
        self.talk = self.printed.lines, self.stdout.parts, self.stderr.parts

    def joined_cluster(self, settings: bytes) -> None:
        super().joined_cluster(settings)
        if self.config.record is not None:
            from ..tasks.recording import Forwarder  # few programs are recorded

            self.observing.start(Forwarder(self._send_record))

    def finish_prints(self, task: Task) -> None:
        self.stdout.finish(task)

    def _print(self, stream: int, task: Task | None, text: str) -> None:
        if self.around.prints and task is not None and stream == 1:
            logged = self.around.prints.get(task.uid)
            if logged is False:
                return
            if logged:
                stream = LOGGED
        self.printed.put(stream, task, text)
        self.executor.journal.say(text)
        self._send_soon()
        if not self.on_loop and not self.stopping:
            self.printed.wait()

    def _send_soon(self) -> None:
        if not self._awake and not self.ended.done():
            self._awake = True
            self.loop.call_soon_threadsafe(self._drain, context=self.context)

    def finish_lines(self, task: Task, outcome: Outcome) -> None:
        # The line of a stream goes on with its next item.
        if not isinstance(outcome, Yielded | Paused):
            self.stdout.finish(task)
            self.stderr.finish(task)
        if self.printed and self.on_loop:
            self.send_printed()

    def _send_some(self) -> None:
        """Send what was printed, as fast as heads take it, between other messages."""
        self._sending_later = False
        while self.printed:
            if any(
                peer.link.unacknowledged_bytes > OUTPUT_BYTES for peer in self._heads()
            ):
                if not self._sending_later:
                    self._sending_later = True
                    self.loop.call_later(OUTPUT_RETRY_S, self._send_some)
                return
            self._send_lines(*self.printed.take())

    def send_printed(self) -> None:
        while self.printed:
            self._send_lines(*self.printed.take())

    def tell(self, task: Task, message: Any) -> None:
        self.printed.put_message(task, message)
        self._send_soon()

    def _send_lines(self, stream: int, task: Task | None, text: Any) -> None:
        if stream == MESSAGE:
            assert task is not None, "put_message has one"
            self._report(task.caller, text)
            return
        label = short(self.uid)
        if task is not None:
            options = task.tessera.options
            function = function_name(task.method)
            label = f"{label} {function if options.stateless else options.name}"
            if stream == LOGGED:
                label = function
        head = self._head_of(task)
        if head is None:  # the program has gone, and what it had made is closed
            head = next((m.incarnation for m in self.of_kind(MRUN)), None)
        outbox = None if head is None else self.outbox(head)
        if outbox is not None:
            for part in messages_of(text):
                outbox.send(wire.Output(stream, label, part))
                if len(part) > MESSAGE_CHARACTERS // 2:
                    outbox.flush()

    def _heads(self) -> list[Peer]:
        outboxes = [self.outbox(m.incarnation) for m in self.of_kind("head")]
        return [outbox for outbox in outboxes if outbox is not None]

    def before_exit(self) -> None:
        """The process is about to end by ``os._exit``: what was printed still goes."""
        if self.ended.done() or os.getpid() != self.me.pid:
            return
        for stream in (self.stdout, self.stderr):
            stream.finish(CURRENT.get())
        if self.on_loop:
            self.send_printed()
            self.peers.flush_all()
            time.sleep(OUTPUT_RETRY_S)  # nothing else of this process matters any more
            return
        sent = asyncio.run_coroutine_threadsafe(self._flush_printed(), self.loop)
        with contextlib.suppress(TimeoutError, concurrent.futures.CancelledError):
            sent.result(EXIT_S)

    async def _flush_printed(self) -> None:
        self.send_printed()
        await self.flushed(EXIT_S, "head")

    def _head_of(self, task: Task | None) -> int | None:
        """The head inside whose call this was printed, else the first there is."""
        heads = [m.incarnation for m in self.of_kind("head")]
        if task is not None:
            root = ids.maker(task.inside[0]) if task.inside else task.caller
            root = root or task.tessera.maker  # it closes because nobody holds it
            if root in heads:
                return root
        return heads[0] if heads else None

    def _report(self, to: int, message: wire.Message) -> None:
        outbox = self.outbox(to)
        if outbox is not None:
            outbox.send(message)

    def _send_record(self, line: str) -> None:
        head = self._head_of(None)
        if head is not None:
            self._report(head, wire.Output(RECORDED, short(self.uid), line))

    def finish_output(self) -> None:
        """All is closed: nothing more is printed."""
        self.stdout.finish_all()
        self.stderr.finish_all()
        self.send_printed()
