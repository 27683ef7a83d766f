"""Smooth a photograph of the retina in tiles, and keep its vessels sharp.

Perona and Malik's diffusion (1990): a pixel moves towards its four neighbours, but
little across an edge. Each tile is a tessera and keeps its pixels; for a step it needs
the rims of the tiles beside it, which go from worker to worker. The head writes down
all steps of all tiles at once and waits for none of them.

    python examples/retina.py --workers 2 --steps 40 --plot retina.png
"""

import argparse
import itertools
import sys
import time

import numpy as np
from numpy.typing import NDArray
from skimage import color, data, io

import mosaic_like as mosaic

Array = NDArray[np.float64]
Place = tuple[int, int]  # row and column of a tile
Cut = tuple[int | slice, int | slice]  # of an array
RATE, EDGE = 0.2, 0.05  # of one step; a difference of grey that counts as an edge
ROWS, COLUMNS = 3, 4
PLACES = list(itertools.product(range(ROWS), range(COLUMNS)))

# Of each side: the way to the tile there, that tile's rim, and its place in our frame.
SIDES: dict[str, tuple[Place, Cut, Cut]] = {
    "north": ((-1, 0), np.s_[-1, :], np.s_[0, 1:-1]),
    "south": ((1, 0), np.s_[0, :], np.s_[-1, 1:-1]),
    "west": ((0, -1), np.s_[:, -1], np.s_[1:-1, 0]),
    "east": ((0, 1), np.s_[:, 0], np.s_[1:-1, -1]),
}


def framed(pixels: Array) -> Array:
    """The pixels in a frame one pixel wide, to which nothing flows."""
    return np.pad(pixels, 1, mode="edge")


def diffused(frame: Array) -> Array:
    """The pixels inside the frame, one step later."""
    pixels = frame[1:-1, 1:-1]
    above, below = frame[:-2, 1:-1], frame[2:, 1:-1]
    left, right = frame[1:-1, :-2], frame[1:-1, 2:]
    flow = np.zeros_like(pixels)
    for beside in (above, below, left, right):
        slope = beside - pixels
        flow += slope / (1 + (slope / EDGE) ** 2)
    return pixels + RATE * flow


@mosaic.tessera
class Tile:
    def __init__(self, pixels: Array) -> None:
        self.pixels = pixels

    def rims(self) -> dict[str, Array]:
        """What each neighbour needs, by the side on which it has us."""
        return {side: self.pixels[rim] for side, (_, rim, _) in SIDES.items()}

    def step(self, **rims: Array) -> dict[str, Array]:
        frame = framed(self.pixels)
        for side, rim in rims.items():
            frame[SIDES[side][2]] = rim
        self.pixels = diffused(frame)
        return self.rims()


def neighbours(place: Place) -> dict[str, Place]:
    """The tiles beside this one, by their side of it."""
    i, j = place
    beside = {side: (i + di, j + dj) for side, ((di, dj), _, _) in SIDES.items()}
    return {side: found for side, found in beside.items() if found in PLACES}


async def smooth(image: Array, steps: int) -> Array:
    """The image after so many steps, its tiles spread over the workers."""
    rows = [np.array_split(row, COLUMNS, axis=1) for row in np.array_split(image, ROWS)]
    tiles = {(i, j): Tile.remote(rows[i][j]) for i, j in PLACES}
    rims = {place: tile.rims() for place, tile in tiles.items()}  # tasks, not arrays
    for _ in range(steps):
        before, rims = rims, {}
        for place, tile in tiles.items():
            beside = neighbours(place).items()
            rims[place] = tile.step(**{s: before[at].outputs[s] for s, at in beside})
    pixels = await mosaic.gather(mosaic.get_attr(t, "pixels") for t in tiles.values())
    return np.block([pixels[i * COLUMNS :][:COLUMNS] for i in range(ROWS)])


def smooth_alone(image: Array, steps: int) -> Array:
    for _ in range(steps):
        image = diffused(framed(image))
    return image


parser = argparse.ArgumentParser(description="Smooth a retina, keep its vessels.")
parser.add_argument("--workers", type=int, default=2, metavar="N")
parser.add_argument("--steps", type=int, default=10, metavar="N")
parser.add_argument("--plot", metavar="FILE", help="draw it before and after")
parser.add_argument("--check", action="store_true", help="exit 1 if a pixel is wrong")
args = parser.parse_args()
image, began = color.rgb2gray(data.retina()), time.perf_counter()
found = mosaic.run(lambda: smooth(image, args.steps), num_workers=args.workers)
took = time.perf_counter() - began
print(f"{args.workers} workers {took:.2f} s, {args.steps} steps of {len(PLACES)} tiles")
print(f"grey: {image.mean():.8f} +- {image.std():.4f} before")
print(f"      {found.mean():.8f} +- {found.std():.4f} after")
if args.plot:
    halves = np.hstack([image, found])[400:1000]
    io.imsave(args.plot, (255 * halves).round().astype(np.uint8))
if args.check:
    began = time.perf_counter()
    equal = np.array_equal(found, smooth_alone(image, args.steps))
    took = time.perf_counter() - began
    print(f"one process {took:.2f} s: {'equal, bit by bit' if equal else 'NOT EQUAL'}")
    sys.exit(not equal)
