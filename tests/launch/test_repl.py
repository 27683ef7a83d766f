"""Prompts, as a user types at them: ``mrun repl``, ``python -m asyncio``, IPython."""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

import mosaic_like as mosaic
from mosaic_like.launch.repl import Console

LIMIT_S = 30.0

COUNTER = """\
class Counter:
    shape = (1, 2)
    def __init__(self, start=0):
        self.n = start
    def add(self, k):
        self.n += k
        return self.n
    def mark(self, path):
        open(path, "x").close()
    def fail(self):
        return 1 / 0
    def say(self, what):
        print(what)
        return len(what)
    async def sleep(self):
        import asyncio
        await asyncio.sleep(1000)
"""


class Prompt:
    """A terminal with a prompt in it."""

    def __init__(self, words: list[str], env: dict[str, str], cwd: Path) -> None:
        self.child = pexpect.spawn(
            sys.executable,
            words,
            env={**env, "TERM": "dumb", "HOME": str(cwd), "INPUTRC": os.devnull},
            cwd=str(cwd),
            encoding="utf-8",
            timeout=LIMIT_S,
            dimensions=(24, 500),
        )
        self.is_ipython = "IPython" in words

    def until_prompt(self) -> str:
        """What is said up to the next prompt."""
        self.child.expect_exact(">>> ")
        said: str = self.child.before
        return said.replace("\r\n", "\n")

    def type(self, text: str) -> str:
        """Type a statement; what is said to it, without the echo."""
        lines = text.split("\n")
        if len(lines) > 1 and self.is_ipython:
            # It takes what is pasted as a whole.
            lines = ["%cpaste -q", *lines, "--"]
        for number, line in enumerate(lines):
            if number and not self.is_ipython:
                self.child.expect_exact("... ")
            self.child.sendline(line)
        typed = len(lines) if self.is_ipython else 1
        return self.until_prompt().split("\n", typed)[-1].strip()

    def complete(self, text: str) -> str:
        """What stands there, or is offered, after Tab."""
        self.child.send(text + "\t\t")
        self.child.send("#end")
        self.child.expect_exact("#end")
        said: str = self.child.before
        self.interrupt()
        return said.replace("\a", "").rstrip()

    def interrupt(self) -> str:
        """Ctrl-C; what is said up to the next prompt.

        One that comes while readline still draws, or in the moment before a loop waits
        for its next event, is noticed by Python only at the next key or event, so a
        second may be needed. It comes late: if both were heard, there were two prompts.
        """
        self.child.sendintr()
        heard = ["KeyboardInterrupt", pexpect.TIMEOUT]
        if self.child.expect_exact(heard, timeout=LIMIT_S / 3):
            self.child.sendintr()
            self.child.expect_exact("KeyboardInterrupt")
        said: str = self.child.before
        return f"{said}KeyboardInterrupt{self.until_prompt()}"

    def end(self) -> int:
        """Wait until it has ended; its exit status."""
        self.child.expect(pexpect.EOF)
        self.child.wait()
        status: int = self.child.exitstatus
        return status


Open = Callable[..., Prompt]


@pytest.fixture
def prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Starts Python with these words, on a terminal."""
    monkeypatch.delenv("MOSAIC_CLUSTER", raising=False)
    env = {**os.environ, "PYTHONWARNINGS": "always"}
    try:
        importlib.metadata.distribution("mosaic_like")
    except importlib.metadata.PackageNotFoundError:
        assert mosaic.__file__ is not None
        env["PYTHONPATH"] = str(Path(mosaic.__file__).parents[1])
    opened: list[Prompt] = []

    def start(*words: str) -> Prompt:
        opened.append(Prompt(list(words), env, tmp_path))
        return opened[-1]

    yield start
    for one in opened:
        one.child.close(force=True)


def ran_while_idle(prompt: Prompt, path: Path) -> bool:
    """Submit, leave the prompt alone, and look whether it runs meanwhile."""
    prompt.type(f"t = c.mark({str(path)!r})")
    end_s = time.monotonic() + LIMIT_S
    while not path.exists():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.01)
    return True


def test_mrun_repl_does_what_a_prompt_should(prompt: Open, tmp_path: Path) -> None:
    repl = prompt("-m", "mosaic_like", "repl", "-nw", "2")
    banner = repl.until_prompt().strip().split("\n")
    assert len(banner) == 3
    assert "2 workers on" in banner[0]
    assert banner[1].startswith("await works here · ready: mosaic, runtime, tessera")
    assert "Ctrl-C cancels what is awaited" in banner[2]

    # Values, await, and classes defined at the prompt.
    assert repl.type("1 + 1") == "2"
    assert repl.type("runtime.num_workers") == "2"
    assert repl.type("@tessera\n" + COUNTER) == ""
    assert repl.type("c = Counter.remote(10)") == ""
    assert repl.type("await c.add(5).result()") == "15"
    assert repl.type("_ + 1") == "16"
    assert repl.type("await gather(c.add(i) for i in range(3))") == "[15, 16, 18]"
    assert repl.type("Counter(1).add(1), isinstance(c, object)") == "(2, True)"
    assert repl.type("for i in range(2):\n    await c.add(i)\n") != ""
    assert ran_while_idle(repl, tmp_path / "mark")

    # Completion asks nobody and warns of nothing.
    assert repl.complete("c.ad").endswith("c.add(")
    assert repl.complete("c.sh").endswith("c.shape")
    offered = repl.complete("c.")
    assert all(n in offered for n in ("c.add(", "c.mark(", "c.fail(", "c.shape"))
    assert "_mosaic" not in offered
    assert repl.complete("c.shape.").endswith("c.shape.")
    assert repl.complete("mosaic.gat").endswith("mosaic.gather(")
    assert repl.complete("run").endswith("runtime")
    assert "Warning" not in repl.type("import gc; gc.collect() and None")

    # A forgotten await is told when its coroutine goes.
    assert repl.type("c.add(1).result()").startswith("<coroutine object")
    said = repl.type("2")
    assert "'TaskProxy.result' was never awaited" in said
    assert "ignored" not in said

    # Errors start at the line that was typed, and show no line of ours.
    said = repl.type("await c.fail().result()")
    assert said.startswith('Traceback (most recent call last):\n  File "<console>"')
    assert "ZeroDivisionError" in said
    assert "mosaic_like/" not in said
    assert "NameError" in repl.type("nobody")
    assert "SyntaxError" in repl.type("1 +")

    # Ctrl-C: of the prompt, of plain code, of an await; and on it goes.
    repl.child.send("half a line")
    repl.child.expect_exact("half a line")
    repl.interrupt()
    repl.child.sendline("print('in it')\rwhile True: pass\r")
    repl.child.expect_exact("in it\r\n")
    repl.child.expect_exact("... ")
    repl.child.sendintr()
    assert "KeyboardInterrupt" in repl.until_prompt()
    # What is called soon is called when this is awaited, and not before.
    repl.type("import asyncio")
    repl.child.sendline(
        "asyncio.get_running_loop().call_soon(print, 'in', 'it');"
        " await c.sleep().result()"
    )
    repl.child.expect_exact("in it\r\n")
    repl.child.sendintr()
    said = repl.until_prompt()
    goes_on = r"KeyboardInterrupt: Counter#\d+\.sleep goes on; Ctrl-C again cancels it"
    assert re.search(goes_on, said), said
    assert "Traceback" not in said
    repl.child.sendintr()
    assert re.search(r"Counter#\d+\.sleep: cancelled", repl.until_prompt())
    # It stood before this one.
    assert repl.type("await c.add(0).result()") != ""
    repl.type("d = Counter.remote(1)")
    assert repl.type("await d.add(1).result()") == "2"

    # asyncio is there, as in any coroutine.
    repl.type("import asyncio")
    repl.type("t = asyncio.create_task(asyncio.sleep(0, 7))")
    assert repl.type("await t") == "7"

    repl.child.sendline("exit(3)")
    assert repl.end() == 3
    history = (tmp_path / ".python_history").read_text()
    assert "c = Counter.remote(10)" in history


def test_a_traceback_at_the_prompt_does_nothing_to_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("last_type", "last_value", "last_traceback"):
        monkeypatch.setattr(sys, name, None, raising=False)
    console = Console({})
    try:
        console.push(r'raise ValueError("\x1b[2J\x1b[31mred\rall is well")')
    finally:
        console.close()
    said = capsys.readouterr().err
    assert said.endswith("ValueError: \x1b[31mredall is well\x1b[0m\n")


def test_ctrl_d_ends_mrun_repl_with_0(prompt: Open) -> None:
    repl = prompt("-m", "mosaic_like", "-nw", "1", "--quiet", "repl")
    repl.until_prompt()
    repl.type("c = mosaic.remote(dict)()")
    repl.child.sendeof()
    assert repl.end() == 0
    assert "Traceback" not in repl.child.before


def test_the_asyncio_prompt_works_line_by_line(prompt: Open, tmp_path: Path) -> None:
    repl = prompt("-m", "asyncio")
    repl.until_prompt()  # Python itself says: import asyncio
    repl.until_prompt()
    repl.type("import mosaic_like as mosaic")
    said = repl.type("runtime = await mosaic.interactive('on', num_workers=1)")
    assert "Error" not in said
    assert repl.type("@mosaic.tessera\n" + COUNTER) == ""
    repl.type("c = Counter.remote(10)")
    assert repl.type("await c.add(5).result()") == "15"
    assert ran_while_idle(repl, tmp_path / "mark")
    # What a completer does to each name.
    repl.type(
        "import rlcompleter; complete = rlcompleter.Completer(globals()).complete"
    )
    assert "c.add(" in repl.type("[complete('c.', i) for i in range(5)]")
    assert "Warning" not in repl.type("import gc; gc.collect() and None")
    # Said from the loop while the await waits: earlier, Python 3.11's own prompt may
    # lose the Ctrl-C.
    repl.type("later = asyncio.get_running_loop().call_later")
    repl.child.sendline("later(0.05, print, 'in', 'it'); await c.sleep().result()")
    repl.child.expect_exact("in it\r\n")
    repl.interrupt()
    repl.type("d = Counter.remote(1)")
    assert repl.type("await d.add(1).result()") == "2"
    repl.type("await mosaic.interactive('off')")
    repl.child.sendline("exit()")
    assert repl.end() == 0


IPYTHON = ("-m", "IPython", "--simple-prompt", "--classic", "--no-confirm-exit")


def test_the_ipython_prompt_works_line_by_line(prompt: Open, tmp_path: Path) -> None:
    repl = prompt(*IPYTHON, "--no-banner")
    repl.until_prompt()
    repl.type("import mosaic_like as mosaic")
    said = repl.type("runtime = await mosaic.interactive('on', num_workers=1)")
    assert "Error" not in said
    assert repl.type("@mosaic.tessera\n" + COUNTER) == ""
    repl.type("c = Counter.remote(10)")
    assert repl.type("await c.add(5).result()") == "15"
    assert ran_while_idle(repl, tmp_path / "mark")
    said = repl.type("await c.say('hel' + 'lo').result()")
    assert said.replace("\n\n", "\n") == "w0:0 Counter#1 | hello\n5"
    said = repl.type("await c.fail().result()")
    assert "return 1 / 0" in said
    assert "ZeroDivisionError: division by zero" in said

    # Ctrl-C ends the cell for good: nothing of it comes back in a later one.
    repl.type("import asyncio")
    repl.type(
        "async def stay():\n"
        "    try:\n"
        "        asyncio.get_running_loop().call_soon(print, 'in', 'it')\n"
        "        await c.sleep().result()\n"
        "    finally:\n"
        "        print('at', 'end')"
    )
    repl.child.sendline("await stay()")
    repl.child.expect_exact("in it\r\n")
    said = repl.interrupt()
    assert "at end" in said
    assert "CancelledError" not in said
    repl.type("d = Counter.remote(1)")
    assert repl.type("await d.add(1).result()") == "2"

    repl.type("await mosaic.interactive('off')")
    assert repl.type("runtime").endswith("· stopped>")
    repl.child.sendline("exit()")
    assert repl.end() == 0


def test_a_block_at_the_ipython_prompt_has_a_cluster_of_its_own(prompt: Open) -> None:
    repl = prompt(*IPYTHON, "--no-banner")
    repl.until_prompt()
    repl.type("import mosaic_like as mosaic")
    said = repl.type(
        "async with mosaic.init(num_workers=1) as runtime:\n"
        "    print(await mosaic.remote(list)((2, 1)).pop().result())\n"
    )
    assert said.endswith("1")
    assert repl.type("runtime").endswith("· stopped>")
    # Interrupted, it ends as when an error leaves it.
    repl.type(
        "async def block():\n"
        "    global runtime\n"
        "    async with mosaic.init(num_workers=1) as runtime:\n"
        "        asyncio.get_running_loop().call_soon(print, 'in', 'it')\n"
        "        await mosaic.remote(asyncio.Event)().wait().result()"
    )
    repl.type("import asyncio")
    repl.child.sendline("await block()")
    repl.child.expect_exact("in it\r\n")
    repl.interrupt()
    assert repl.type("runtime").endswith("· stopped>")
    repl.child.sendline("exit()")
    assert repl.end() == 0


def test_leaving_ipython_without_a_word_leaves_nothing(prompt: Open) -> None:
    repl = prompt(*IPYTHON, "--no-banner")
    repl.until_prompt()
    repl.type("import mosaic_like as mosaic")
    repl.type("runtime = await mosaic.interactive('on', num_workers=1)")
    repl.type("c = mosaic.remote(dict)()")
    repl.child.sendline("exit")
    assert repl.end() == 0
    assert "Traceback" not in repl.child.before
