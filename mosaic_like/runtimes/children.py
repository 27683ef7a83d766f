"""The processes that a node has forked: from their start to how they ended.

When one is started, stopped or replaced is for ``node``.
"""

from __future__ import annotations

import functools
import os
import signal
from typing import TYPE_CHECKING

from ..environment import FULL_TRACEBACK
from ..errors import MosaicError
from . import portions
from .oom import LOOK_S, Evidence, MemoryKills, near_limit
from .processes import Child, ForkServer, describe_status
from .raw_output import RawOutput

if TYPE_CHECKING:
    from .node import Node
    from .spec import Spec

# By the kind in their uid.
ENTRIES = {
    "worker": "mosaic_like.runtimes.worker_process:main",
    "helper": "mosaic_like.runtimes.worker_process:main",
    "warehouse": "mosaic_like.runtimes.warehouse:main",
}
# What numeric libraries read when they are imported.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
_OUTPUT_S = 10.0  # that what a dead worker had started may still print
_SERVER_GONE = "its parent, the fork server, has ended, and it was killed"


class Children:
    """Of one node; on its loop.

    Args:
        node: is told by ``child_ended`` that one has ended.
        server: forks them.
    """

    def __init__(self, node: Node, server: ForkServer) -> None:
        self._node = node
        self._server = server
        self.by_uid: dict[str, Child] = {}
        self._outputs: dict[Child, RawOutput] = {}
        self._memory = MemoryKills()
        self._cores: list[int] = []  # to be shared out, if workers are pinned
        self._killed: dict[int, str] = {}  # why this node has killed them, by pid

    def spawn(self, spec: Spec) -> None:
        """Start one, as its spec says; if that is impossible the node ends."""
        config, uid = self._node.config, spec.uid
        threads = str(config.num_threads)
        environment: dict[str, str | None] = {
            name: threads for name in _THREAD_VARIABLES if name not in os.environ
        }
        if config.full_traceback:
            environment[FULL_TRACEBACK] = "1"
        output: RawOutput | None = None
        stdout: int | None = None
        stderr: int | None = None
        if not uid.startswith("warehouse"):
            count = config.num_workers
            index = int(uid.split(":")[2]) % count
            if config.pin:
                self._cores = self._cores or portions.cores()
                spec.cores = list(portions.portion(self._cores, index, count))
            if config.split_gpus:
                environment |= portions.gpus(index, count, os.environ)
            output = RawOutput(self._node, uid, spec.directory)
        try:
            if output is not None:
                stdout, stderr = output.pipes()
            self.by_uid[uid] = child = self._server.spawn(
                ENTRIES[uid.split(":")[0]],
                spec.encode(),
                environment=environment,
                death_signal=True,
                stdout=stdout,
                stderr=stderr,
                on_started=self._started,
                on_exited=functools.partial(self._exited, uid),
            )
            if output is not None:
                self._outputs[child] = output
        except (MosaicError, OSError) as error:
            if output is not None:
                output.close()
            if isinstance(error, OSError):  # no descriptors, or the server is deaf
                self._not_forked(uid, error)
            else:
                self._node.stop()
        finally:
            for end in (stdout, stderr):
                if end is not None:
                    os.close(end)

    def _not_forked(self, uid: str, error: OSError) -> None:
        """As if the fork server had said so, which is soon tried again."""
        self.by_uid[uid] = child = Child(ENTRIES[uid.split(":")[0]])
        child.failure = str(error)
        self._node.loop.call_soon(self._exited, uid, child)

    def kill(self, child: Child, why: str) -> None:
        """End one; ``why`` is how it ended, for people."""
        self._killed[child.pid] = why
        self._server.kill(child.pid)

    def look_at_memory(self) -> None:
        """Now and again: which of them the kernel has killed for want of it."""
        self._memory.look()
        self._node.loop.call_later(LOOK_S, self.look_at_memory)

    def close(self) -> None:
        """Hear no more of what they print."""
        for output in self._outputs.values():
            output.close()

    def _started(self, child: Child) -> None:
        self._memory.watch(child.pid)
        if child in self._outputs:
            self._outputs[child].pid = child.pid

    def _exited(self, uid: str, child: Child) -> None:
        if self.by_uid.get(uid) is child:
            del self.by_uid[uid]
        if child in self._outputs:
            # Before it is said that it has ended.
            self._outputs[child].ended()
            self._node.loop.call_later(_OUTPUT_S, self._outputs.pop(child).close)
        status = child.status
        how = _SERVER_GONE if status is None else describe_status(status)
        if child.failure:
            how = f"could not be forked: {child.failure}"
        memory = self._killed_for(child)
        how = self._killed.pop(child.pid, how)
        self._node.child_ended(uid, child, how, memory)

    def _killed_for(self, child: Child) -> Evidence:
        """What speaks for it that a signal ended it for want of memory."""
        pid, status, found = child.pid, child.status, Evidence()
        by_others = pid not in self._killed
        if status is not None and os.WIFSIGNALED(status) and by_others:
            if os.WTERMSIG(status) == signal.SIGKILL:
                found = self._memory.killed(pid, child.max_rss_bytes)
            near = "" if found.is_certain else near_limit(child.max_rss_bytes)
            found = Evidence(near, is_certain=True) if near else found
        self._memory.forget(pid)
        return found
