"""Hours of everything at once, to see that nothing grows: ``make soak MINUTES=...``.

Rounds in a random order on two workers, and from time to time one of these is killed.
The memory that each process has for itself is noted, and its descriptors and threads;
what has more of them at the end than after the first third makes it end with 1.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import random
import statistics
import sys
import time
from collections import Counter, defaultdict
from typing import Any, NamedTuple

import psutil
from rounds import ROUNDS, Member

import mosaic_like as mosaic

LOOKS = 60  # at the processes, in all
KILL_S = 25.0  # more often would look like a worker that cannot live
GROWTH_BYTES = 2 << 20
GROWTH = 8  # descriptors, threads


class Look(NamedTuple):
    """What a process has."""

    nbytes: int  # for itself alone: values on one host are shared
    descriptors: int
    threads: int


def look() -> dict[int, Look]:
    """All processes of this program."""
    gc.collect()
    found = {}
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        try:
            memory = process.memory_info()
            found[process.pid] = Look(
                memory.rss - memory.shared, process.num_fds(), process.num_threads()
            )
        except psutil.Error:  # it has just ended
            continue
    return found


def grown(looks: list[Look]) -> str:
    """What there is more of at the end than after the first third, if anything."""
    third = len(looks) // 3
    before, after = (
        Look(*(round(statistics.median(column)) for column in zip(*part, strict=True)))
        for part in (looks[third : 2 * third], looks[-third:])
    )
    text = (
        f"{before.nbytes >> 10:,} -> {after.nbytes >> 10:,} KiB, "
        f"{before.descriptors} -> {after.descriptors} descriptors, "
        f"{before.threads} -> {after.threads} threads"
    )
    wrong = (
        after.nbytes - before.nbytes > GROWTH_BYTES
        or after.descriptors - before.descriptors > GROWTH
        or after.threads - before.threads > GROWTH
    )
    return f"{'GREW' if wrong else 'ok':5}{text}"


async def soak(runtime: Any, seconds: float, seed: int, *, kills: bool) -> int:
    """The exit status."""
    shuffled = random.Random(seed)
    counts: Counter[str] = Counter()
    looks: defaultdict[int, list[Look]] = defaultdict(list)
    options = {"max_restarts": 1_000_000}
    first, second = (
        mosaic.remote(Member, runtime=worker, **options)() for worker in runtime.workers
    )
    start_s = look_s = kill_s = time.monotonic()
    lost = 0
    while (now_s := time.monotonic()) - start_s < seconds:
        if kills and now_s - kill_s > KILL_S:
            kill_s = now_s
            worker = shuffled.choice(runtime.workers)
            os.kill(worker.pid, 9)
        one = shuffled.choice(ROUNDS)
        try:
            await one(first, second)
            counts[one.__name__] += 1
        except mosaic.RuntimeDisconnectedError:
            if not kills:
                raise
            lost += 1  # what was to be: it runs on a worker that was killed
        if now_s - look_s > seconds / LOOKS:
            look_s = now_s
            for pid, found in look().items():
                looks[pid].append(found)
    print(*(f"{count:7} {name}" for name, count in counts.most_common()), sep="\n")
    print(f"{sum(counts.values())} rounds, {lost} cut short by a killed worker")
    most = max(map(len, looks.values()))  # of those that were there all the time
    whole = {pid: found for pid, found in looks.items() if len(found) == most}
    ends = {pid: grown(found) for pid, found in whole.items()}
    workers = [worker.pid for worker in runtime.workers]
    for pid, end in ends.items():
        name = "head" if pid == os.getpid() else "daemon"
        print(f"{'worker' if pid in workers else name:7}{end}")
    return int(any(end.startswith("GREW") for end in ends.values()))


def main() -> int:
    """Read the command line, and soak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", action="store_true", help="kill workers meanwhile")
    given = parser.parse_args()
    logging.disable(logging.ERROR)  # what failed as it should and nobody awaited
    return mosaic.run(
        lambda runtime: soak(
            runtime, given.minutes * 60, given.seed, kills=given.kills
        ),
        num_workers=2,
    )


if __name__ == "__main__":
    sys.exit(main())
