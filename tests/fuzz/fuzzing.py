"""Messages that make no sense into a live runtime: ``make fuzz COUNT=... SEED=...``.

After them come files that were damaged, one for each ten messages: see ``files``.

A *round*: two members join, send nonsense, and are lost. It is determined by its seed.
When something is found in one, its packets are taken out as long as it is still found,
and what is left is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import logging
import random
import resource
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import files
import nonsense
import targets

from mosaic_like.comms import messages as wire
from mosaic_like.comms.link import HEADER_BYTES, Link

PACKETS = 200  # of a round
ROUNDS = 25  # of one runtime
_TRIES = 300  # to find a smaller batch
_GROWTH_BYTES = 100 << 20
_MESSAGES_A_FILE = 10


@dataclass
class Packet:
    """What one member sends at once, or bytes that are no batch."""

    sender: int  # 0 or 1: which of the members; 2: a stranger
    batch: list[Any]
    body: bytes = b""  # if it is mutated
    ends: int = 0  # calls that end before it


@dataclass
class Tally:
    """What was done."""

    messages: int = 0
    mutated: int = 0
    rounds: int = 0
    found: list[str] = field(default_factory=list)


def make_round(seed: str, numbers: list[int]) -> list[Packet]:
    """The packets of a round."""
    rnd = random.Random(seed)
    generator = nonsense.Generator(rnd, numbers)
    packets = []
    for _ in range(PACKETS):
        packet = Packet(rnd.choice((0, 0, 1, 1, 1, 2)), generator.batch())
        packet.ends = rnd.choice((0, 0, 1, 5))
        if packet.sender == 2 or rnd.random() < 0.3:
            body = bytes(wire.encode(packet.batch))
            packet.body = nonsense.mutated(body, rnd)
        packets.append(packet)
    return packets


def send(runtime: targets.Runtime, packet: Packet) -> None:
    """One packet into the runtime."""
    runtime.idle.end_some(packet.ends)
    if packet.sender == 2:
        token = len(packet.batch).to_bytes(8, "little")
        runtime.raw(token, packet.body)
        return
    sender = runtime.members[packet.sender]
    if not packet.body:
        runtime.receive(sender, packet.batch)
        return
    whole: list[Any] = [bytearray(HEADER_BYTES) + packet.body]
    runtime.links[sender].wrap(whole)
    runtime.raw(sender.to_bytes(8, "big"), bytes(whole[0]))


async def play(
    runtime: targets.Runtime, packets: list[Packet], faults: targets.Faults
) -> list[str]:
    """What is found by these packets."""
    faults.found.clear()
    for packet in packets:
        try:
            shown = io.StringIO()
            with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
                send(runtime, packet)
                await asyncio.sleep(0)
        except Exception as error:
            faults.found.append(f"raised: {type(error).__name__}: {error}")
        if faults.found:
            break
    left = await runtime.lose()
    return [*faults.found, *(f"left: {one}" for one in left)]


def in_a_runtime(seed: str, faults: targets.Faults, work: Any) -> Any:
    """Run ``work(runtime)`` with a new one."""

    async def run() -> Any:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(
            lambda _, about: faults.found.append(
                f"in a callback: {about.get('exception')!r}"
            )
        )
        with tempfile.TemporaryDirectory(prefix="mf-") as directory:
            runtime = targets.Runtime(loop, directory, random.Random(seed))
            try:
                return await work(runtime)
            finally:
                runtime.close()

    return asyncio.run(run())


def smallest(seed: str, faults: targets.Faults) -> tuple[list[Packet], list[str]]:
    """Of a round in which something is found: what is needed, and what is found."""

    async def once(runtime: targets.Runtime, keep: list[int] | None) -> Any:
        packets = make_round(seed, runtime.join())
        kept = packets if keep is None else [packets[i] for i in keep]
        return kept, await play(runtime, kept, faults)

    def attempt(keep: list[int] | None) -> tuple[list[Packet], list[str]]:
        found: tuple[list[Packet], list[str]]
        found = in_a_runtime(seed, faults, lambda runtime: once(runtime, keep))
        return found

    keep = list(range(PACKETS))
    best = attempt(None)
    size, tries = PACKETS // 2, 0
    while size and best[1] and tries < _TRIES:
        at = 0
        while at < len(keep) and tries < _TRIES:
            tries += 1
            fewer = keep[:at] + keep[at + size :]
            result = attempt(fewer)
            if result[1]:
                keep, best = fewer, result
            else:
                at += size
        size //= 2
    return best


def fuzz(count: int, seed: int, faults: targets.Faults) -> Tally:
    """Send at least so many messages; stop at the first finding."""
    tally = Tally()
    link = Link(b"12345678")
    link.opened(0.0)

    async def rounds(runtime: targets.Runtime) -> None:
        for _ in range(ROUNDS):
            name = f"{seed}.{tally.rounds}"
            tally.rounds += 1
            packets = make_round(name, runtime.join())
            for packet in packets:
                tally.messages += len(packet.batch)
                if packet.body:
                    tally.mutated += len(packet.batch)
                    targets.decode(packet.body)
                    targets.unwrap(link, packet.body)
            tally.found = await play(runtime, packets, faults)
            if tally.found or tally.messages >= count:
                return

    while tally.messages < count and not tally.found:
        in_a_runtime(f"{seed}.{tally.rounds}", faults, rounds)
    return tally


def watched() -> targets.Faults:
    """What the package logs is taken, and not shown."""
    logger = logging.getLogger("mosaic_like")
    logger.handlers[:] = [faults := targets.Faults()]
    logger.propagate = False
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="messages")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    faults = watched()
    began = time.monotonic()
    with targets.loads_are_faults(faults):
        fuzz(min(args.count, 10_000), args.seed, faults)  # what is made once is there
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        tally = fuzz(args.count, args.seed, faults)
        seconds = time.monotonic() - began
        grew = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before
        print(
            f"{tally.messages} messages in {tally.rounds} rounds, {tally.mutated} of "
            f"them mutated, in {seconds:.0f} s; memory grew by {grew >> 20} MiB"
        )
        if tally.found:
            name = f"{args.seed}.{tally.rounds - 1}"
            print(f"found in round {name}:", *tally.found, sep="\n  ")
            packets, found = smallest(name, faults)
            print(f"the smallest that shows it, of {len(packets)} packets:")
            for packet in packets:
                print(f"  from {packet.sender}, after {packet.ends} ends")
                print("   ", packet.body if packet.body else packet.batch)
            print(*found, sep="\n  ")
            return 1
    if grew > _GROWTH_BYTES:
        print(f"memory grew by {grew >> 20} MiB: something is kept")
        return 1
    if found := fuzz_files(args.count // _MESSAGES_A_FILE, args.seed):
        print("found in files:", *found, sep="\n  ")
        return 1
    print("nothing was found")
    return 0


def fuzz_files(count: int, seed: int) -> list[str]:
    """What is found in so many files."""
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mf-") as folder:
        found = files.fuzz(count, seed, Path(folder))
    seconds = time.monotonic() - began_s
    print(f"{count} files in {seconds:.0f} s")
    return found


if __name__ == "__main__":
    sys.exit(main())
