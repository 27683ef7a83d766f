"""Runs cells, each in a process of its own, and says which rules held how often.

``make faults`` runs all with 3 seeds, ``make faults SEEDS=50`` with 50; for one cell::

    python tests/faults/matrix.py --only F1.m4 --seed 7

A cell that fails prints this line for itself.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).parents[1]))
import checker
import faults
import leftovers
import processes
from cells import Cell, Skip
from program import Stage

if TYPE_CHECKING:
    from collections.abc import Iterable

LIMIT_S = 120.0  # of one cell with all its waits
_ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Report:
    """What came of one cell with one seed."""

    cell: str
    seed: int
    wrong: list[str] = field(default_factory=list)
    skipped: str = ""
    bound_s: float | None = None  # measured
    took_s: float = 0.0
    said: str = ""  # on standard error, if anything is wrong

    @property
    def command(self) -> str:
        return f"python tests/faults/matrix.py --only {self.cell} --seed {self.seed}"


def play(cell: Cell, seed: int, slack: float) -> Report:
    """In a process of its own: what came of it."""
    report = Report(cell.name, seed)
    processes.warm_up()
    folder = tempfile.mkdtemp(prefix="history-")
    stage = Stage(folder, seed, slack)
    before = leftovers.belongings()
    try:
        if inspect.iscoroutinefunction(cell.play):
            stage.run(cell.play, **dict(cell.options))
        else:
            cell.play(stage)
    except Skip as skip:
        report.skipped = str(skip)
        return report
    except BaseException:
        report.wrong.append(f"the run itself: {traceback.format_exc()}")
    left = [*stage.left, *leftovers.left(before)]
    records = stage.history.records()
    rules = stage.rules(cell.bound_s, cell.after_healing_s)
    report.wrong += checker.check(records, rules, left)
    report.bound_s = checker.bound_s(records)
    return report


def run(cell: Cell, seed: int, slack: float) -> Report:
    """Start a process that plays it, and end all of it when it takes too long."""
    # Short: socket paths end at 107 bytes.
    folder = tempfile.mkdtemp(prefix="mf-")
    began_s = time.monotonic()
    command = [sys.executable, __file__, "--inside", "--only", cell.name]
    command += ["--seed", str(seed), "--slack", str(slack)]
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    report = Report(cell.name, seed)
    try:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            with subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, "TMPDIR": folder, "PYTHONPATH": path},
                start_new_session=True,
            ) as process:
                try:
                    code = process.wait(LIMIT_S)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    report.wrong.append(f"it did not end in {LIMIT_S:g} s")
                    code = 0
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        try:
            report = Report(**json.loads(texts[0].splitlines()[-1]))
        except (ValueError, IndexError, TypeError):
            report.wrong.append(f"its process ended with {code} and told nothing")
        report.said = texts[1][-4000:] if report.wrong else ""
    finally:
        leftovers.kill_all_of(folder)
        shutil.rmtree(folder, ignore_errors=True)
    report.took_s = time.monotonic() - began_s
    return report


def run_all(
    cells: Iterable[Cell], seeds: Iterable[int], slack: float, jobs: int
) -> list[Report]:
    """Every cell with every seed, some at a time; each is told when it has ended."""

    def one(cell: Cell, seed: int) -> Report:
        report = run(cell, seed, slack)
        if report.wrong:
            print(describe(report), flush=True)
        return report

    chosen = tuple(cells)
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(one, cell, seed) for seed in seeds for cell in chosen]
        return [future.result() for future in futures]


def describe(report: Report) -> str:
    """What is wrong with one, and how to see it again."""
    lines = [f"{report.cell} seed {report.seed}:", *report.wrong[:20]]
    if len(report.wrong) > 20:
        lines.append(f"and {len(report.wrong) - 20} more")
    if report.said:
        lines.append(report.said.rstrip())
    return "\n  ".join("\n".join(lines).splitlines()) + f"\nagain: {report.command}"


def table(reports: Iterable[Report]) -> str:
    """A line for each cell: passed of run, and the bound that was measured."""
    by_cell: dict[str, list[Report]] = defaultdict(list)
    for report in reports:
        by_cell[report.cell].append(report)
    known = {cell.name: cell for cell in faults.CELLS}
    lines = [f"{'cell':<16}{'passed':>8}{'median s':>10}{'worst s':>9}{'bound s':>9}"]
    for name, found in by_cell.items():
        skipped = next((r.skipped for r in found if r.skipped), "")
        if skipped:
            lines.append(f"{name:<16} skipped: {skipped}")
            continue
        passed = sum(not r.wrong for r in found)
        line = f"{name:<16}{f'{passed}/{len(found)}':>8}"
        measured = [r.bound_s for r in found if r.bound_s is not None]
        if measured:
            median = statistics.median(measured)
            line += f"{median:>10.3f}{max(measured):>9.3f}{known[name].bound_s:>9.1f}"
        lines.append(line)
    return "\n".join(lines)


def chosen(only: str) -> list[Cell]:
    """Those whose name is one of these, or begins with one that names a fault."""
    names = [name for name in only.split(",") if name]
    found = [
        cell
        for cell in faults.CELLS
        if not names or cell.name in names or cell.fault in names
    ]
    if not found:
        raise SystemExit(f"no cell is named so: {only!r}; --list names all")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="cells or faults, with commas")
    parser.add_argument("--seeds", type=int, default=3, help="how many (default 3)")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--jobs", type=int, default=2, help="at a time (default 2)")
    parser.add_argument(
        "--slack", type=float, default=3.0, help="times the bounds (default 3)"
    )
    parser.add_argument("--list", action="store_true", help="name the cells")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    cells = chosen(args.only)
    if args.list:
        print(*(cell.name for cell in cells), sep="\n")
        return 0
    if args.inside:
        # Who is started in the background of a shell ignores it, and so would all here.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        report = play(cells[0], args.seed, args.slack)
        print(json.dumps(asdict(report)), flush=True)
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(0)  # what a run has left was told, and must not hold us up
    seeds = range(args.seeds) if args.seed is None else [args.seed]
    reports = run_all(cells, seeds, args.slack, args.jobs)
    print(table(reports))
    wrong = [r for r in reports if r.wrong]
    skipped = sum(bool(r.skipped) for r in reports)
    run_count = len(reports) - skipped
    right = run_count - len(wrong)
    load = os.getloadavg()[0]
    print(f"{right} of {run_count} right, {skipped} skipped; load {load:.1f}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
