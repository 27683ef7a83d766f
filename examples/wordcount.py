"""The words of Python's standard library: map and reduce, with a record of what ran.

Each task counts the names in some files; their counts are merged two by two, as they
come, in the workers. ``--record`` keeps one line of JSON for each task; from these the
critical path is read: the chain of tasks that no number of workers makes shorter.

    python examples/wordcount.py --workers 2 --record wordcount.jsonl
"""

import argparse
import json
import re
import sys
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import mosaic_like as mosaic

NAME = re.compile(r"[A-Za-z_]\w+")


@mosaic.task
def count(paths: Any) -> Counter[str]:
    words: Counter[str] = Counter()
    for path in paths:
        words.update(NAME.findall(Path(path).read_text(errors="replace")))
    return words


@mosaic.task
def merge(left: Any, right: Any) -> Counter[str]:
    total: Counter[str] = left + right
    return total


def sources(most: int) -> list[str]:
    """Files of the standard library, the largest first."""
    library = Path(sysconfig.get_path("stdlib"))
    files = [
        path for path in library.rglob("*.py") if "site-packages" not in path.parts
    ]
    files.sort(key=lambda path: (-path.stat().st_size, path))
    return [str(path) for path in files[:most]]


def critical_path(records: list[dict[str, Any]]) -> list[tuple[str, float]]:
    """The chain of tasks that took longest: names, and seconds of each."""
    known = {record["task_id"]: record for record in records}
    took = {
        uid: record["execution"]["execution_end_time"]
        - record["execution"]["execution_start_time"]
        for uid, record in known.items()
    }
    until: dict[str, float] = {}  # the longest way to the end of each
    before: dict[str, str | None] = {}
    for uid, record in known.items():  # as they ended: parents come first
        parents = [parent for parent in record["parent_task_ids"] if parent in until]
        last = max(parents, key=until.__getitem__, default=None)
        before[uid] = last
        until[uid] = took[uid] + (until[last] if last is not None else 0.0)
    path = []
    uid = max(until, key=until.__getitem__)
    while uid is not None:
        path.append((known[uid]["name"], took[uid]))
        uid = before[uid]
    return path[::-1]


async def counted(paths: list[str], tasks: int, record: str) -> Counter[str]:
    with mosaic.record(record):
        parts = list(count.map([paths[i::tasks] for i in range(tasks)]))
        while len(parts) > 1:
            pairs = zip(parts[::2], parts[1::2], strict=False)
            merged = [merge.submit(left, right) for left, right in pairs]
            parts = merged + parts[len(merged) * 2 :]
        total: Counter[str] = await parts[0].result()
        return total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--files", type=int, default=400, help="at most")
    parser.add_argument("--tasks", type=int, default=16, help="that count")
    parser.add_argument(
        "--record", metavar="FILE", help="of the records, as JSON lines"
    )
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    paths = sources(args.files)
    with tempfile.TemporaryDirectory() as folder:
        record = args.record or f"{folder}/wordcount.jsonl"
        counting = counted(paths, args.tasks, record)
        total = mosaic.run(lambda: counting, num_workers=args.workers)
        lines = Path(record).read_text().splitlines()
    print(f"{total.total():,} names in {len(paths):,} files, {len(lines)} tasks")
    print("  ".join(f"{word} {n:,}" for word, n in total.most_common(6)))
    path = critical_path([json.loads(line) for line in lines])
    print(f"critical path: {sum(took for _, took in path):.2f} s")
    for name, took in path:
        print(f"  {name:8} {took:.3f} s")
    if args.check:
        wrong = total != count(paths) or len(lines) != 2 * args.tasks - 1
        print("check:", "WRONG" if wrong else "equal to one process")
        sys.exit(int(wrong))
