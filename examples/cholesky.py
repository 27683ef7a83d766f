"""The Cholesky factor of a matrix in tiles, as a graph of tasks.

Each step on a tile is a task that takes others as arguments: the graph is what the
program says. ``--plot`` draws it, and what ran where and when.

    python examples/cholesky.py --tiles 5 --plot cholesky
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

import mosaic_like as mosaic

COLOURS = {"potrf": "#e4572e", "trsm": "#f3a712", "syrk": "#29335c", "gemm": "#669bbc"}


@mosaic.task
def potrf(a: Any) -> Any:
    return np.linalg.cholesky(a)


@mosaic.task
def trsm(factor: Any, a: Any) -> Any:
    return np.linalg.solve(factor, a.T).T


@mosaic.task
def syrk(c: Any, a: Any) -> Any:
    return c - a @ a.T


@mosaic.task
def gemm(c: Any, a: Any, b: Any) -> Any:
    return c - a @ b.T


def step(task: Any, *where: int) -> Any:
    return task.options(run_name=f"{task.name} {','.join(map(str, where))}").task


def factor(tile: Any, n: int) -> None:
    """Put the tasks in the place of the tiles of the lower half; none is sent yet."""
    for k in range(n):
        tile[k, k] = step(potrf, k)(tile[k, k])
        for i in range(k + 1, n):
            tile[i, k] = step(trsm, i, k)(tile[k, k], tile[i, k])
        for i in range(k + 1, n):
            tile[i, i] = step(syrk, i, k)(tile[i, i], tile[i, k])
            for j in range(k + 1, i):
                tile[i, j] = step(gemm, i, j, k)(tile[i, j], tile[i, k], tile[j, k])


def bar(x: float, y: float, width: float, name: str) -> str:
    place, fill = f'x="{x:.1f}" y="{y}" width="{width:.1f}"', COLOURS[name.split()[0]]
    return f'<rect {place} height="24" fill="{fill}"><title>{name}</title></rect>'


def timeline(records: list[Any]) -> str:
    """What ran where and when, as SVG: a row for each worker."""
    runs = [r | r["execution"] for r in records]
    start = min(r["task_start_time"] for r in runs)
    wide = 880 / (max(r["task_end_time"] for r in runs) - start)
    workers = sorted({r["runtime_id"] for r in runs})
    rows = {worker: 40 * i + 13 for i, worker in enumerate(workers)}
    size = f'width="1000" height="{40 * len(rows) + 50}" font-size="12"'
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" {size}>']
    lines += [f'<text x="8" y="{y + 17}">{worker}</text>' for worker, y in rows.items()]
    for r in runs:
        x = 100 + (r["task_start_time"] - start) * wide
        width = max((r["task_end_time"] - r["task_start_time"]) * wide, 1)
        lines.append(bar(x, rows[r["runtime_id"]], width, r["name"]))
    for place, name in enumerate(COLOURS):
        x, y = 100 + 100 * place, 40 * len(rows) + 15
        lines.append(bar(x, y, 24, name))
        lines.append(f'<text x="{x + 30}" y="{y + 16}">{name}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


async def solve(tiles: int, size: int) -> tuple[float, mosaic.Graph, list[Any]]:
    rows = np.random.default_rng(1).normal(size=(tiles * size, tiles * size))
    matrix = rows @ rows.T + len(rows) * np.eye(len(rows))
    cut = [slice(i * size, (i + 1) * size) for i in range(tiles)]
    tile: Any = {
        (i, j): matrix[cut[i], cut[j]] for i in range(tiles) for j in range(i + 1)
    }
    await potrf.map([np.eye(2)] * 8)  # so that the workers have imported NumPy
    factor(tile, tiles)
    records: list[Any] = []
    with mosaic.record(records.append):
        values: list[Any] = await mosaic.gather(tile.values())
    found = np.zeros_like(matrix)
    for (i, j), value in zip(tile, values, strict=True):
        found[cut[i], cut[j]] = value
    error = float(abs(found - np.linalg.cholesky(matrix)).max())
    return error, mosaic.Graph.of(*tile.values(), follow=True), records


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tiles", type=int, default=5, help="in each direction")
    parser.add_argument("--size", type=int, default=200, help="of a tile")
    parser.add_argument("--plot", metavar="PREFIX", help="of the pictures")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    solving = solve(args.tiles, args.size)
    error, graph, records = mosaic.run(lambda: solving, num_workers=args.workers)
    print(f"{len(graph):,} tasks on a matrix in {args.tiles} x {args.tiles} tiles")
    if args.plot is not None:
        Path(f"{args.plot}-graph.svg").write_text(graph.svg())
        Path(f"{args.plot}-timeline.svg").write_text(timeline(records))
    if args.check:
        wrong = error > 1e-10 or len(records) != len(graph)
        print("check:", "WRONG" if wrong else "equal to NumPy's", f"to {error:.1e}")
        sys.exit(int(wrong))
