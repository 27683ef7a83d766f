"""What a program starts before it has imported what it needs itself.

The fork server's interpreter takes as long to start and import as the program, so it
is started first. Nothing may be imported here that a program does without. What the
server is for, and everything that goes wrong, is left to ``local``: what cannot be
started here is tried there again.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..runtimes.booting import boot
from ..runtimes.directory import RunDirectory

if TYPE_CHECKING:
    from ..runtimes.booting import Booted

# What a program imports last: where it is there, nothing is won by beginning early.
HEAD = f"{__name__.partition('.')[0]}.runtimes.head"


class Early:
    """A run directory, and a server that holds it; to be taken, or else ended."""

    def __init__(self, directory: RunDirectory, booted: Booted) -> None:
        self.directory = directory
        self.booted = booted
        self.is_taken = False

    @classmethod
    def start(cls) -> Early | None:
        """Start it; None where nothing is won, or where it cannot be started."""
        if HEAD in sys.modules:
            return None
        try:
            directory = RunDirectory.create()
        except OSError:
            return None
        try:
            return cls(directory, boot(str(directory.path)))
        except (OSError, RuntimeError, ValueError):
            directory.remove()
            return None
        except BaseException:  # Ctrl-C
            directory.remove()
            raise

    def take(self) -> tuple[RunDirectory, Booted]:
        """From now on it is the cluster's."""
        self.is_taken = True
        return self.directory, self.booted

    def end(self) -> None:
        """Unless a cluster has it, nothing is left of it."""
        if not self.is_taken:
            self.booted.kill()
            self.directory.remove()
