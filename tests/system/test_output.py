"""What methods print and log, at the head."""

from __future__ import annotations

import gc
import io
import os
import pty
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from mosaic_like.runtimes import output
from mosaic_like.runtimes.output import LineStream, Printed, messages_of

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = """
import asyncio, logging, os, sys, threading, time
import mosaic_like as mosaic

@mosaic.tessera
class Talker:
    def __init__(self):
        print("built")
    def say(self, text, end="\\n"):
        print(text, end=end)
    def bar(self):
        for i in range(100):
            sys.stdout.write(f"\\r{i + 1}%")
            sys.stdout.flush()
        print()
        print("dos\\r\\nline\\r")
    def lines(self, n):
        for i in range(n):
            print("line", i)
    def huge(self):
        sys.stdout.write("x" * 3_000_000 + "\\n" + "y\\n" * 1_000_000)
    def odd(self):
        print("grüße \\u65e5\\u672c \\U0001f600")
        print("lone \\udc80 surrogate")
        sys.stdout.buffer.write("bytes \\u00e9".encode()[:-1])
        sys.stdout.buffer.write("bytes \\u00e9\\n".encode()[-2:])
        sys.stdout.buffer.flush()
        sys.stdout.reconfigure(line_buffering=True)
        print("a\\x0bb\\u2028c")
        print()
        print("blank before", file=sys.stderr)
        print("no end", end="", file=sys.stderr)
    def log(self):
        logging.getLogger("user").warning("warned %d", 1)
        logging.getLogger("user").info("not shown")
        try:
            1 / 0
        except ZeroDivisionError:
            logging.getLogger("user").exception("failed")
    def start(self):
        thread = threading.Thread(target=print, args=("from a thread",))
        thread.start()
        thread.join()
    def ask(self, other):
        return other.say("asked by another").get()
    def fails(self):
        print("before the error")
        raise ValueError("no")
    def ends(self):
        print("last words")
        print("without end", end="")
        os._exit(3)
    def items(self):
        for i in range(3):
            print("item", i)
            yield i
    def __close__(self):
        print("closing")

@mosaic.tessera(is_async=True)
class Pair:
    def __init__(self):
        self.turn = asyncio.Event()
    async def first(self):
        print("first ", end="")
        await self.turn.wait()
        print("again")
    async def second(self):
        print("second ", end="")
        self.turn.set()
        await asyncio.sleep(0)
        print("again")

"""


def body(main: str, workers: int = 1) -> str:
    lines = "".join(f"    {line}\n" for line in main.strip().splitlines())
    return (
        f"{PROGRAM}\nasync def main():\n{lines}\n"
        f"if __name__ == '__main__':\n    mosaic.run(main, num_workers={workers})\n"
    )


def somewhere(text: str) -> str:
    """With the same name for all workers: which one a tessera gets is not said."""
    return re.sub(r"^w0:\d", "w0:N", text, flags=re.MULTILINE)


def test_what_is_printed_stands_before_what_follows_the_await(
    run_script: Any,
) -> None:
    result = run_script(
        body(
            """
talker = Talker.remote()
await talker
print("after the constructor")
for i in range(50):
    await talker.say(i)
    print("after", i)
await talker.say("no end", end="")
print("after no end")
await talker.bar()
print("after the bar")
await talker.lines(10_000)
print("after the lines")
try:
    await talker.fails()
except ValueError:
    print("after the error")
async for i in talker.items():
    print("got", i)
    break
"""
        )
    )
    said = "".join(f"w0:0 Talker#1 | {i}\nafter {i}\n" for i in range(50))
    lines = "".join(f"w0:0 Talker#1 | line {i}\n" for i in range(10_000))
    whole = (
        f"w0:0 Talker#1 | built\nafter the constructor\n{said}"
        "w0:0 Talker#1 | no end\nafter no end\n"
        "w0:0 Talker#1 | 100%\nw0:0 Talker#1 | dos\nw0:0 Talker#1 | line\n"
        f"after the bar\n{lines}after the lines\n"
        "w0:0 Talker#1 | before the error\nafter the error\n"
        "w0:0 Talker#1 | item 0\n"
    )
    assert result.code == 0, result.stderr
    assert result.stdout.startswith(whole)
    rest = result.stdout[len(whole) :]
    assert "got 0\n" in rest
    assert rest.endswith("w0:0 Talker#1 | closing\n")
    assert result.stderr == ""


def test_odd_text_logs_threads_and_calls_of_others_arrive(
    run_script: Any,
) -> None:
    result = run_script(
        body(
            """
talker = Talker.remote()
other = Talker.remote()
await mosaic.gather(talker.say("a"), other.say("b"))
print("--")
await talker.odd()
print("-- odd")
await talker.log()
await talker.start()
await other.ask(talker)
pair = Pair.remote()
await mosaic.gather(pair.first(), pair.second())
print("-- end")
""",
            2,
        )
    )
    assert result.code == 0, result.stderr
    stdout, stderr = somewhere(result.stdout), somewhere(result.stderr)
    head, _, rest = stdout.partition("--\n")
    assert sorted(head.splitlines()) == [
        "w0:N Talker#1 | a",
        "w0:N Talker#1 | built",
        "w0:N Talker#2 | b",
        "w0:N Talker#2 | built",
    ]
    name = "w0:N Talker#1 | "
    assert rest.startswith(
        f"{name}grüße \u65e5\u672c \U0001f600\n{name}lone \\udc80 surrogate\n"
        f"{name}bytes \u00e9\n{name}a\x0bb\u2028c\n{name}\n-- odd\n"
    )
    assert "w0:N | from a thread\n" in rest
    assert "w0:N Talker#1 | asked by another\n" in rest
    assert "w0:N Pair#1 | first again\n" in rest
    assert "w0:N Pair#1 | second again\n" in rest
    errors = stderr.splitlines()
    assert errors[:3] == [
        f"{name}blank before",
        f"{name}no end",
        f"{name}WARNING user: warned 1",
    ]
    assert errors[3] == f"{name}ERROR user: failed"
    assert errors[-1] == f"{name}ZeroDivisionError: division by zero"
    assert all(line.startswith(name) for line in errors)


def test_the_last_words_of_a_process_that_ends_itself_arrive(
    run_script: Any,
) -> None:
    result = run_script(
        body(
            """
talker = Talker.remote()
try:
    await talker.ends()
except mosaic.WorkerDied:
    print("died")
"""
        )
    )
    assert result.code == 0, result.stderr
    assert result.stdout.splitlines() == [
        "w0:0 Talker#1 | built",
        "w0:0 Talker#1 | last words",
        "w0:0 Talker#1 | without end",
        "died",
    ]


def test_much_output_is_whole_and_others_are_answered_meanwhile(
    run_script: Any,
) -> None:
    result = run_script(
        body(
            """
talker = Talker.remote()
other = Talker.remote()
await mosaic.gather(talker.say("a"), other.say("b"))
task = talker.huge()
await asyncio.wait_for(other.say("meanwhile").result(), 20)
await task
print("after")
sys.stdout.close()
await talker.say("nobody reads it")
sys.stdout = None
await talker.say("nor this")
print("fine", file=sys.stderr)
""",
            2,
        )
    )
    assert result.code == 0, result.stderr
    assert result.stderr == "fine\n"
    before, _, after = somewhere(result.stdout).partition("after\n")
    assert after == ""
    assert before.count("w0:N Talker#1 | y\n") == 1_000_000
    assert "w0:N Talker#1 | " + "x" * 3_000_000 + "\n" in before


def test_a_terminal_gets_colors_and_no_other_control_sequences() -> None:
    script = body(
        r"""
talker = Talker.remote()
await talker.say("\x1b[31mred\x1b[0m \x1b[2Jgone \x1b]0;title\x07bell\x07 \x1b[1mbold")
"""
    )
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
        assert process.wait(30) == 0
        os.set_blocking(master, False)
        shown = os.read(master, 10_000).decode()
    finally:
        os.close(slave)
        os.close(master)
    line = "w0:0 Talker#1 | \x1b[31mred\x1b[0m gone bell \x1b[1mbold\x1b[0m\r\n"
    assert line in shown
    assert not re.search("\x1b\\[2J|\x1b\\]|\x07", shown)


# -- parts, without processes ----------------------------------------------------------


def stream_of(found: list[str], clock: Callable[[], float] = lambda: 0.0) -> LineStream:
    return LineStream(lambda _task, text: found.append(text), 1, clock)


def test_lines_of_threads_are_joined_by_thread() -> None:
    found: list[str] = []
    stream = stream_of(found)
    stream.write("mine ")
    thread = threading.Thread(target=stream.write, args=("theirs\n",))
    thread.start()
    thread.join()
    stream.write("goes on\n")
    assert found == ["theirs\n", "mine goes on\n"]
    assert not stream.pending


def test_a_bar_that_goes_on_is_shown_now_and_then() -> None:
    found: list[str] = []
    now_s = 0.0
    stream = stream_of(found, lambda: now_s)
    for i in range(25):
        now_s = i / 10
        stream.write(f"\r{i}")
    stream.write("\rready\n")
    assert found == ["10\n", "20\n", "ready\n"]
    for i in range(3):
        stream.write(f"{i}\r")
    stream.write("\n")
    assert found[3:] == ["2\n"]


def test_printing_inside_a_garbage_collection_does_not_lock_up() -> None:
    found: list[str] = []
    stream = stream_of(found)

    class Loud:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            stream.write("collected\n")

    with stream._lock:
        Loud()
        gc.collect()
    assert found == ["collected\n"]


def test_bytes_and_closing_are_as_of_any_text_stream() -> None:
    found: list[str] = []
    stream = stream_of(found)
    stream.buffer.write(b"\xc3")
    stream.buffer.write(memoryview(b"\xa9\xff\n"))
    stream.close()
    stream.buffer.close()
    print("still open", file=stream)
    assert "".join(found) == "é\ufffd\nstill open\n"
    with pytest.raises(TypeError, match="takes a str"):
        stream.write(b"x")  # type: ignore[arg-type]


def test_large_text_goes_in_parts_of_whole_lines() -> None:
    text = "a" * 200_000 + "\n" + "b\n" * 100_000
    parts = list(messages_of(text))
    assert "".join(parts) == text
    assert all(part.endswith("\n") for part in parts)
    assert max(len(part) for part in parts[1:]) <= output.MESSAGE_CHARACTERS


def test_printing_waits_while_too_much_is_on_its_way() -> None:
    printed = Printed()
    printed.put(1, None, "x" * (5 << 20))
    printed.put(1, None, "y\n")
    waiting = threading.Thread(target=printed.wait)
    waiting.start()
    while printed:
        printed.take()
    waiting.join(20)
    assert not waiting.is_alive()


def test_a_stream_that_cannot_hold_the_text_gets_what_it_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    output.show(1, "w0:0", "grün\n")
    assert raw.getvalue() == b"w0:0 | gr\\xfcn\n"
