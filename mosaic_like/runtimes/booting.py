"""Starting the fork server's interpreter: all of it that needs nothing imported.

It takes as long to import as the program that starts it, so it is started first, and
this module imports only what any program has. What the server does is in
``forkserver``, how it is spoken to in ``processes``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence

PACKET_BYTES = 128 * 1024
_PACKAGE = __name__.partition(".")[0]
PRELOAD = ("asyncio", "uvloop", "zmq", "msgspec")
# Of a cluster's.
MODULES = (
    *PRELOAD,
    f"{_PACKAGE}.runtimes.monitor",
    f"{_PACKAGE}.runtimes.node",
    # Not the warehouse: it is forked when all others are there, and reads its few own
    # files itself, so that nothing before it waits for them.
    f"{_PACKAGE}.runtimes.worker_process",
)

_CONTROL = 3  # the number of the control socket in the server

# Copies from this size on go past the caches. Before glibc 2.38 they do so only from
# three quarters of all the cache that the processor says to have, which is hundreds of
# MiB on some: a copy of 64 MiB took 9.7 ms there and takes 5.4 ms so. What a C library
# does not know, it ignores; and it reads this only when a process starts.
STREAMED_COPY_BYTES = 4 << 20
_TUNABLES = "GLIBC_TUNABLES"
_TUNABLE = "glibc.cpu.x86_non_temporal_threshold"
_OUR_TUNABLE = f"{_TUNABLE}={STREAMED_COPY_BYTES:#x}"

# The first thing that the server runs. Until the owner's sys.path has come, nothing may
# be imported from the working directory, and the package only from where it is here.
_BOOT = f"""\
def boot():
    import sys
    sys.path[:] = [entry for entry in sys.path if entry]
    import json, os
    fd = int(sys.argv[1])
    body = os.read(fd, {PACKET_BYTES})
    if not body:
        os._exit(0)
    first = json.loads(body)
    sys.path[:] = first["path"]
    sys.argv[:] = [""]
    from importlib import import_module
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec
    spec = PathFinder.find_spec(first["package"], [first["root"]])
    if spec is not None and spec.origin is not None:
        module = sys.modules[first["package"]] = module_from_spec(spec)
        spec.loader.exec_module(module)
    server = import_module(first["server"])
    server.main(fd, first["owner"], first["modules"], first["directory"])
boot()
"""


class Booted(NamedTuple):
    """A server that nobody has spoken to yet."""

    control: socket.socket
    pid: int
    pidfd: int | None

    def kill(self) -> None:
        """Nobody wants it after all."""
        self.control.close()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        if self.pidfd is not None:
            os.close(self.pidfd)


def boot(
    directory: str = "",
    modules: Sequence[str] = MODULES,
    environment: Mapping[str, str | None] | None = None,
) -> Booted:
    """Start the server and return while it imports.

    Args:
        directory: the run directory, which it holds, and removes if it ends after this
            process.
        modules: what it imports before it forks; what is absent is left out.
        environment: changes to this process's environment; None removes.
    """
    if not sys.executable:
        raise RuntimeError(
            "sys.executable is empty: the interpreter that is to run the workers "
            "is not known; set sys.executable to its path"
        )
    first = {
        "path": [entry for entry in sys.path if isinstance(entry, str)],
        "package": _PACKAGE,
        "root": str(Path(__file__).absolute().parents[2]),
        "server": f"{_PACKAGE}.runtimes.forkserver",
        "owner": os.getpid(),
        "modules": list(modules),
        "directory": directory,
    }
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        body = json.dumps(first).encode()
        if len(body) > PACKET_BYTES:
            raise ValueError(f"sys.path is too long: {len(body)} bytes")
        ours.send(body)  # before there is a server: it will not have to wait
        pid = _posix_spawn(theirs.fileno(), environment or {})
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    # Our child, just made: the pid is its own.
    return Booted(ours, pid, open_pidfd(pid))


def hide_tunable(environ: MutableMapping[str, str]) -> None:
    """In a started process: the programs that it starts are not to get our tunable."""
    given = environ.get(_TUNABLES, "").split(":")
    if _OUR_TUNABLE in given:
        given.remove(_OUR_TUNABLE)
        if given:
            environ[_TUNABLES] = ":".join(given)
        else:
            del environ[_TUNABLES]


def _set_tunable(environ: MutableMapping[str, str]) -> None:
    """Unless the user has set it."""
    given = environ.get(_TUNABLES, "")
    if _TUNABLE not in given:
        environ[_TUNABLES] = f"{given}:{_OUR_TUNABLE}" if given else _OUR_TUNABLE


def open_pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when this process ends; None without support.

    The caller makes sure that the pid is still that of the process it means: its own
    child that has not been reaped, or its parent, with os.getppid() looked at after.
    """
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # an old kernel, a sandbox that forbids it, or no such process
        return None


def interpreter_flags() -> list[str]:
    """The options that make another interpreter behave like this one."""
    flags = sys.flags
    counts = {
        "d": flags.debug,
        "O": flags.optimize,
        "B": flags.dont_write_bytecode,
        "S": flags.no_site,
        "v": flags.verbose,
        "b": flags.bytes_warning,
        "q": flags.quiet,
    }
    if flags.isolated:
        counts["I"] = 1  # says the next three as well
    else:
        counts["E"] = flags.ignore_environment
        counts["s"] = flags.no_user_site
        counts["P"] = int(flags.safe_path)
    arguments = ["-" + letter * count for letter, count in counts.items() if count]
    arguments += [f"-W{option}" for option in sys.warnoptions]
    for name, value in sys._xoptions.items():
        arguments.append(f"-X{name}" if value is True else f"-X{name}={value}")
    return arguments


def _posix_spawn(control: int, changes: Mapping[str, str | None]) -> int:
    environment = dict(os.environ)
    for name, value in changes.items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value
    _set_tunable(environment)
    # Far from 0 to 3, so that the actions below cannot overwrite it, and never
    # inheritable here, where another thread may start a process at this moment.
    source = fcntl.fcntl(control, fcntl.F_DUPFD_CLOEXEC, 16)
    actions: list[tuple[object, ...]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    ]
    for fd in (1, 2):
        try:
            os.fstat(fd)
        except OSError:  # closed here: the number must not be taken by something else
            actions.append((os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0))
    actions.append((os.POSIX_SPAWN_DUP2, source, _CONTROL))
    signals = signal.valid_signals()
    try:
        return os.posix_spawn(
            sys.executable,
            [sys.executable, *interpreter_flags(), "-c", _BOOT, str(_CONTROL)],
            environment,
            file_actions=actions,
            # All are blocked until it ignores what it has to ignore.
            setsigmask=signals,
            setsigdef=signals - {signal.SIGKILL, signal.SIGSTOP},
        )
    finally:
        os.close(source)
