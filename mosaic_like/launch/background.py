"""``--daemon``: the same mrun in the background, and a parent that sees it get ready.

What the one in the background says goes to a file beside the run directories. Where it
ends before it is ready, what it has said is said here, and its exit code is this one's.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from ..environment import CLUSTER
from ..runtimes.directory import log_file
from ..text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

# What says that it is ready: a node that has joined, and a cluster that has its key.
_READY: Final = re.compile(rf"mosaic: node:[0-9]+ has joined, .*|{CLUSTER}=.*")
_LOOK_S: Final = 0.05
_ON: Final = "--daemon"


def run_in_background(words: Sequence[str]) -> int:
    """Start it, wait until it is ready, and leave it; the exit code.

    Args:
        words: of the command line, with ``--daemon`` among them.
    """
    path, fd = log_file(f"mrun-{secrets.token_hex(4)}.log")
    command = [sys.executable, "-m", __name__.partition(".")[0]]
    with os.fdopen(fd, "wb") as log, path.open(errors="replace") as said:
        process = subprocess.Popen(
            [*command, *(word for word in words if word != _ON)],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        text = ""
        while True:
            code = process.poll()  # before what it has said is read for the last time
            text += said.read()
            ready = next(filter(_READY.fullmatch, text.splitlines()), None)
            if ready is not None:
                print(printable(ready))
                print(f"mosaic: pid {process.pid}, log {path}", file=sys.stderr)
                # It is not waited for: its end is nobody's news.
                process.returncode = 0
                return 0
            if code is not None:
                print(text, end="", file=sys.stderr)
                path.unlink()
                return code if code >= 0 else 128 - code
            time.sleep(_LOOK_S)
