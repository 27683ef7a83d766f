"""``mrun repl``: a Python prompt at which await works, with a cluster.

All code typed runs on the main thread, as one step of one loop: Ctrl-C in plain code is
KeyboardInterrupt as everywhere, Ctrl-C while something is awaited cancels that. A call
that was awaited goes on elsewhere: that is said, and the next Ctrl-C cancels it. The
runtime has a thread of its own, so calls go on while nobody types; asyncio tasks that
the user starts run whenever something is awaited.

What is typed belongs to a new ``__main__``, so classes defined at the prompt travel to
workers like those of a script.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import code
import contextlib
import inspect
import platform
import re
import rlcompleter
import signal
import socket
import sys
import time
import traceback
import types
from typing import TYPE_CHECKING, Any

from .. import session
from ..comms.frames import hide_own
from ..proxies.array import ArrayProxy
from ..proxies.tessera import TesseraProxy
from ..runtimes.awaiting import awaited_calls
from ..text import lines_for_terminal
from . import hosting, local

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..core.call import Call

_PATIENCE = 3  # Ctrl-Cs that one await may swallow
_KEYS = "Ctrl-C cancels what is awaited · exit() stops the cluster"


def run_repl(options: dict[str, Any]) -> int:
    """Start a cluster, serve the prompt, stop the cluster; the exit code."""
    began_s = time.monotonic()
    try:
        runtime = hosting.init(**{**options, "quiet": True})  # the banner says it
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    ready_s = time.monotonic() - began_s
    try:
        main = types.ModuleType("__main__")
        names = _names(runtime)
        # As every __main__ has it: an import that C code makes looks for it there.
        vars(main).update(names, __builtins__=builtins)
        with _as_main(main):
            console = Console(vars(main))
            install_completer(vars(main))
            banner = (
                f"{local.start_line(runtime)} · ready in {ready_s:.1f} s · Python "
                f"{platform.python_version()}\n"
                f"await works here · ready: {', '.join(names)}\n{_KEYS}"
            )
            try:
                console.interact("" if options.get("quiet") else banner, exitmsg="")
                return 0
            except SystemExit as stop:
                return _exit_code(stop)
            finally:
                console.close()
                vars(main).clear()  # proxies are released while there is a cluster
                sys.last_value = None
                if hasattr(builtins, "_"):
                    del builtins._
    finally:
        if session.peek() is not None:
            hosting.stop()


def _names(runtime: Any) -> dict[str, Any]:
    package = sys.modules[__name__.partition(".")[0]]
    names = {"mosaic": package, "runtime": runtime}
    for name in ("tessera", "task", "gather"):
        if hasattr(package, name):
            names[name] = getattr(package, name)
    return names


@contextlib.contextmanager
def _as_main(module: types.ModuleType) -> Iterator[None]:
    before = sys.modules["__main__"]
    sys.modules["__main__"] = module
    try:
        yield
    finally:
        sys.modules["__main__"] = before


def _exit_code(stop: SystemExit) -> int:
    if stop.code is None:
        return 0
    if isinstance(stop.code, int):
        return stop.code
    print(stop.code, file=sys.stderr)
    return 1


class Console(code.InteractiveConsole):
    """A console that awaits what was typed."""

    def __init__(self, names: dict[str, Any]) -> None:
        super().__init__(names, filename="<console>")
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self._loop = asyncio.new_event_loop()
        self._interrupted = 0
        self._awaited: list[Call] = []  # by what Ctrl-C has cancelled last
        # A signal that comes just before the loop begins to wait would not end the
        # wait: it writes here too.
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        self._loop.add_reader(self._woken, self._woken.recv, 4096)

    def close(self) -> None:
        """Cancel the tasks that are left, and close the loop."""
        loop = self._loop
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        with contextlib.suppress(BaseException):
            loop.run_until_complete(
                asyncio.wait(left, timeout=1.0) if left else _idle()
            )
            loop.run_until_complete(loop.shutdown_asyncgens())
        loop.remove_reader(self._woken)
        loop.close()
        self._woken.close()
        self._wake.close()

    def runcode(self, code: types.CodeType) -> None:
        """Run what was typed; only SystemExit leaves it."""
        run = types.FunctionType(code, self.locals)
        self._awaited = []
        try:
            self._run(run)
        except SystemExit:
            raise
        except (KeyboardInterrupt, asyncio.CancelledError) as error:
            if isinstance(error, KeyboardInterrupt) or self._interrupted:
                self.write(f"\nKeyboardInterrupt{self._what_goes_on()}\n")
            else:
                self.showtraceback()
        except BaseException:
            self.showtraceback()

    def raw_input(self, prompt: str = "") -> str:
        """The next line; Ctrl-C instead of one cancels what goes on."""
        try:
            return super().raw_input(prompt)
        except KeyboardInterrupt:
            going_on, self._awaited = self._going_on(), []
            runtime = session.peek()
            if going_on and runtime is not None:
                for call in going_on:
                    runtime.cancel(call, "Ctrl-C at the prompt")
                self.write(f"\n{_names_of(going_on)}: cancelled")
            raise

    def _going_on(self) -> list[Call]:
        return [call for call in self._awaited if not call.settled]

    def _what_goes_on(self) -> str:
        going_on = self._going_on()
        if not going_on:
            return ""
        one = len(going_on) == 1
        return (
            f": {_names_of(going_on)} {'goes' if one else 'go'} on; Ctrl-C again "
            f"cancels {'it' if one else 'them'}"
        )

    def _run(self, run: Callable[[], Any]) -> None:
        """As one task; while it waits, Ctrl-C cancels it."""
        loop = self._loop

        async def step() -> None:
            result = run()
            if inspect.iscoroutine(result):
                await result

        task = loop.create_task(step())
        self._interrupted = 0

        def on_interrupt(number: int, frame: Any) -> None:
            self._interrupted += 1
            # In Python code of a task: as everywhere. Else the loop waits.
            if asyncio.current_task(loop) or self._interrupted > _PATIENCE:
                raise KeyboardInterrupt
            self._awaited = self._awaited or awaited_calls(task.get_coro())
            task.cancel()

        fd = signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        before = signal.signal(signal.SIGINT, on_interrupt)
        try:
            loop.run_until_complete(task)
        finally:
            signal.signal(signal.SIGINT, before)
            signal.set_wakeup_fd(fd)
            if not task.done():
                # Ctrl-C hit another task's step, or this one swallows everything.
                task.cancel()
                with contextlib.suppress(BaseException):
                    loop.run_until_complete(asyncio.wait((task,), timeout=1.0))

    def showtraceback(self) -> None:
        """From the line that was typed on."""
        error = sys.exc_info()[1]
        assert error is not None
        first = error.__traceback__
        while first is not None and first.tb_frame.f_code.co_filename != self.filename:
            first = first.tb_next
        if first is not None:
            error = error.with_traceback(first)
        hide_own(error)
        sys.last_type, sys.last_value = type(error), error
        sys.last_traceback = error.__traceback__
        text = "".join(traceback.format_exception(error))
        self.write(lines_for_terminal(text))


def _names_of(calls: list[Call]) -> str:
    more = f" and {len(calls) - 1} more" if len(calls) > 1 else ""
    return f"{calls[0].name}{more}"


async def _idle() -> None:
    """Nothing to wait for."""


# -- completion ------------------------------------------------------------------------

_CHAIN = re.compile(r"(\w+(?:\.\w+)*)\.(\w*)$")


class Completer(rlcompleter.Completer):
    """Completes public names of the user's class on a proxy, without the network.

    The standard one reads each attribute that it offers; of a proxy that would make
    remote attributes that nobody awaits.
    """

    def attr_matches(self, text: str) -> list[str]:
        """What may follow the last dot."""
        chain = _CHAIN.match(text)
        if chain is None:
            return []
        expression, prefix = chain.groups()
        first, *rest = expression.split(".")
        names: dict[str, Any] = self.namespace  # type: ignore[attr-defined]  # not in typeshed
        found = names.get(first, getattr(builtins, first, None))
        for name in rest:
            if isinstance(found, TesseraProxy | ArrayProxy):
                return []  # what follows lives elsewhere
            found = getattr(found, name, None)
        if isinstance(found, TesseraProxy):
            return _matches(expression, prefix, found)
        if isinstance(found, ArrayProxy) and len(found):
            return _matches(expression, prefix, found[0])
        return super().attr_matches(text)


def _matches(expression: str, prefix: str, proxy: TesseraProxy[Any]) -> list[str]:
    schema = proxy._mosaic_schema
    return [
        f"{expression}.{name}" + ("(" if name in schema.methods else "")
        for name in schema.public
        if name.startswith(prefix)
    ]


def install_completer(names: dict[str, Any]) -> None:
    """Tab, and the history of the standard prompt, where there is a terminal."""
    if not sys.stdin.isatty():
        return
    # The interpreter's own: bindings, ~/.python_history and who writes it at the end.
    hook = getattr(sys, "__interactivehook__", None)
    with contextlib.suppress(Exception):
        if hook is not None:
            hook()
    try:
        import readline
    except ImportError:
        return
    readline.set_completer(Completer(names).complete)
    libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
