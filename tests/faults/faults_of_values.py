"""F16, F22, F23: bad values, collection under way, members that do not fit."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bad_values
from actors import Actor, Light
from cells import Cell
from history import Event
from history import Outcome as O

import mosaic_like as mosaic
from mosaic_like.comms import messages
from mosaic_like.runtimes import base

if TYPE_CHECKING:
    from program import Stage

VERY_MANY = 100_000
AT_ONCE = 1000
FREED_S = 5.0  # after the last one is dropped
ANY_LOSS = (O.LOST_NOT_STARTED, O.LOST_MAYBE_RAN, O.LOST_RESULT)


class Returns(Actor):
    """Gives and raises bad values."""

    def give(self, stream: int, number: int, index: int) -> Any:
        self._log.note(Event.STARTED, stream, number)
        value = (*bad_values.STAY, *bad_values.BREAK, bad_values.Biting)[index]()
        self._log.note(Event.ENDED, stream, number)
        return value

    def fail(self, stream: int, number: int, index: int) -> None:
        self._log.note(Event.STARTED, stream, number)
        raise bad_values.RAISED[index]()


async def bad_arguments(stage: Stage) -> None:
    """m2: refused at the call, or an error of the call that cannot read it."""
    for kind in bad_values.STAY:
        try:
            stage.a.keep(0, 0, kind())
        except (mosaic.SerializationError, ZeroDivisionError, RecursionError):
            continue
        stage.left.append(f"{kind.__name__} was taken as an argument")
    for breaks in bad_values.BREAK:
        stage.call(stage.a, [breaks()], method="keep", expect=(O.BAD_VALUE,))
    stage.call(stage.a, bad_values.Biting(), method="keep")
    stage.call(stage.a, [bad_values.Biting(), stage.b], method="keep")
    stage.calls(stage.a)
    await stage.settled()
    stage.call(stage.a, method="drop")
    await stage.settled()
    assert stage.first.pid in [w.pid for w in stage.runtime.workers], "it was ended"


async def bad_results(stage: Stage) -> None:
    """m5: the call fails, with what it can be told by; nobody else does."""
    returns = mosaic.remote(Returns, runtime=stage.first)(stage.folder)
    bad = len(bad_values.STAY) + len(bad_values.BREAK)
    order = list(range(bad + 1))
    stage.rng.shuffle(order)
    for index in order:
        expect = O.VALUE if index == bad else O.BAD_VALUE
        stage.call(returns, index, method="give", expect=(expect,))
        # What cannot arrive here is not to be lost there.
        stage.call(stage.b, "", 0, expect=(O.VALUE,))
    for index in range(len(bad_values.RAISED)):
        stage.call(returns, index, method="fail", expect=(O.RAISED, O.OTHER))
    await stage.settled()
    stage.calls(stage.a)
    assert stage.first.pid in [w.pid for w in stage.runtime.workers], "it was ended"


# -- F22 -------------------------------------------------------------------------------


async def dropped_under_way(stage: Stage) -> None:
    """m8: the last proxy here goes while the receiver has not read its own."""
    os.kill(stage.second.pid, signal.SIGSTOP)
    extra = mosaic.remote(Actor, runtime=stage.first)(stage.folder)
    stage.call(extra)
    keeps = stage.call(stage.b, extra, method="keep")
    del extra
    gc.collect()
    stage.runtime.peers.flush_all()
    await stage.jitter(0.1)
    os.kill(stage.second.pid, signal.SIGCONT)
    await keeps.task
    closed = stage.history.count(Event.CLOSED)
    await stage.call(stage.b, method="drop").task
    # Not before it was dropped there, and soon after.
    assert closed == 0
    await stage.history.until(
        lambda: stage.history.count(Event.CLOSED) == 1, "__close__"
    )


async def receiver_dies_of_it(stage: Stage) -> None:
    """m8: who is given a proxy dies while it unpickles what came with it."""
    extra = mosaic.remote(Actor, runtime=stage.second)(stage.folder)
    stage.call(extra)
    await stage.settled()
    stage.fault()
    stage.call(stage.a, [extra, bad_values.Bomb()], method="keep", expect=ANY_LOSS)
    del extra
    await stage.settled()
    await stage.replaced()
    await stage.history.until(
        lambda: stage.history.count(Event.CLOSED) == 1, "__close__"
    )


async def given_to_itself(stage: Stage) -> None:
    """m8: it holds itself, then each of two holds the other, until told to drop."""
    for _ in range(stage.rng.randint(1, 5)):
        stage.call(stage.a, stage.a, method="keep")
        stage.call(stage.a, stage.b, method="keep")
        stage.call(stage.b, [stage.a, stage.b], method="keep")
    await stage.settled()
    stage.call(stage.a, method="drop")
    stage.call(stage.b, method="drop")
    await stage.settled()


async def many_made_and_dropped(stage: Stage) -> None:
    """m8: each is used or given away, or neither; every one is closed."""
    count = 300
    for _ in range(count):
        made: Any = mosaic.remote(Actor, runtime=stage.first)(stage.folder)
        chance = stage.rng.random()
        if chance < 0.4:
            made.pid()
        elif chance < 0.8:
            stage.call(stage.b, [made, made], method="keep")
        del made
        if stage.rng.random() < 0.05:
            await asyncio.sleep(0)
    await stage.settled()
    stage.call(stage.b, method="drop")
    await stage.history.until(
        lambda: stage.history.count(Event.CLOSED) == count, f"{count} times __close__"
    )


async def very_many_made_and_dropped(stage: Stage) -> None:
    """m8: as many as a long run makes; soon after the last one nothing is left."""
    probes = stage.probes()
    for first in range(0, VERY_MANY, AT_ONCE):
        made: Any = None
        for number in range(first, first + AT_ONCE):
            where = (stage.first, stage.second)[number % 2]
            # Some hold the one before, and let it go with their own end.
            held = made if stage.rng.random() < 0.2 else None
            made = mosaic.remote(Light, runtime=where)(held)
            if stage.rng.random() < 0.3:
                made.touch()
        await made.touch()
    del made, held
    began_s = time.monotonic()
    while sum(await mosaic.gather(p.closed() for p in probes)) < VERY_MANY:
        if time.monotonic() - began_s > FREED_S * stage.slack:
            stage.left.append(f"not all are closed after {FREED_S * stage.slack:g} s")
            break


# -- F23 -------------------------------------------------------------------------------


async def of_another_version(stage: Stage) -> None:
    """m1: refused at once, with both versions."""
    cluster = stage.runtime.hold.cluster
    for name, value in (("PYTHON", "2.7"), ("PROTOCOL", 999)):
        module = base if name == "PYTHON" else messages
        real = getattr(module, name)
        setattr(module, name, value)
        stranger = base.Base(asyncio.get_running_loop(), stage.runtime.config)
        stranger.bind(cluster.directory.socket(f"stranger-{name}"))
        try:
            await stranger.join(
                "head", cluster.monitor_address, cluster.monitor_token, timeout_s=10
            )
        except mosaic.ConnectError as error:
            for text in (str(real), str(value)):
                if text not in str(error):
                    stage.left.append(f"{text} is not in {error}")
        else:
            stage.left.append(f"who has {name} = {value} was let in")
        finally:
            stranger.close()
            setattr(module, name, real)
    stage.calls(stage.a)


def module_in_a_folder(name: str) -> str:
    folder = tempfile.mkdtemp()
    Path(folder, f"{name}.py").write_text("class Thing:\n    def go(self): pass\n")
    return folder


async def module_is_missing(stage: Stage) -> None:
    """m2: it can be imported here and not there; the error says what and where."""
    name = f"only_here_{stage.rng.randrange(1 << 30)}"
    folder = module_in_a_folder(name)
    sys.path.append(folder)
    try:
        thing = importlib.import_module(name).Thing
        error = await mosaic.remote(thing, runtime=stage.first)().go().exception()
    finally:
        sys.path.remove(folder)
    text = f"{type(error).__name__} {error} {getattr(error, '__notes__', '')}"
    cause = error.__cause__ if error is not None else None
    text += f"{type(cause).__name__} {cause}"
    for word in ("ModuleNotFoundError", name, "w0:0"):
        if word not in text:
            stage.left.append(f"{word} is not in {text}")
    stage.calls(stage.a)


CELLS = (
    Cell("F16", "m2", bad_arguments, in_ci=True),
    Cell("F16", "m5", bad_results),
    Cell("F22", "dropped", dropped_under_way),
    Cell("F22", "dies", receiver_dies_of_it),
    Cell("F22", "itself", given_to_itself),
    Cell("F22", "many", many_made_and_dropped, in_ci=True),
    Cell("F22", "very-many", very_many_made_and_dropped),
    Cell("F23", "versions", of_another_version, in_ci=True),
    Cell("F23", "module", module_is_missing),
)
