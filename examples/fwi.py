"""Look into a head with sound: full-waveform inversion in two dimensions.

Transducers stand around a slice of the MNI152 brain, made small. Some fire, one after
the other, all listen, and from what they hear the speed of sound inside is found: the
waves are simulated in a model, what the model gets wrong is sent back in time (the
adjoint), and where both waves meet the model is to be changed. Each group of shots is a
tessera that keeps its recordings; L-BFGS, at the head, hands each of its models to all.

    python examples/fwi.py --workers 2 --plot fwi.png

The recordings are simulated too, by the same code on the same grid. This shows how to
compute such a thing, and not how well it would do in a hospital.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence

import numpy as np
from nilearn.datasets import load_mni152_template
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, minimize

import mosaic_like as mosaic

Array = NDArray[np.float64]
CELLS, CELL_M, STEPS, STEP_S = 70, 1e-3, 420, 0.22e-6  # a square grid, explicit steps
WATER, FASTER = 1500.0, 80.0  # m/s; the speed outside, and what the brain may add
RADIUS, SHOTS = 26, range(0, 48, 6)  # of the ring, in cells; which of its 48 fire
ITERATIONS = 12

angle = 2 * np.pi * np.arange(48) / 48
RING = np.array([np.sin(angle), np.cos(angle)]) * RADIUS + (CELLS - 1) / 2
RING_Y, RING_X = RING.round().astype(int)
y, x = np.mgrid[:CELLS, :CELLS] - (CELLS - 1) / 2
INSIDE = np.hypot(y, x) < RADIUS - 2  # where the model may change
SPONGE = 0.3 * ((np.maximum(abs(y), abs(x)) - RADIUS) / 8).clip(0) ** 2
phase = (np.pi * 120e3 * (STEP_S * np.arange(STEPS) - 10e-6)) ** 2
PULSE = (1 - 2 * phase) * np.exp(-phase)  # Ricker's wavelet of 120 kHz


def laplacian(u: Array) -> Array:
    """Of the last two axes, with cells of length 1 and zero around."""
    found = -4 * u
    found[..., 1:, :] += u[..., :-1, :]
    found[..., :-1, :] += u[..., 1:, :]
    found[..., 1:] += u[..., :-1]
    found[..., :-1] += u[..., 1:]
    return found


def model(x: Array) -> Array:
    """The speeds that a vector of SciPy's means."""
    return WATER + FASTER * x.reshape(CELLS, CELLS)


@mosaic.tessera
class Shots:
    """Some of the shots, simulated together; knows what was recorded of them."""

    def __init__(self, shots: Sequence[int], truth: Array) -> None:
        self.fires = np.zeros((len(shots), CELLS, CELLS), bool)
        self.fires[range(len(shots)), RING_Y[shots], RING_X[shots]] = True
        self.recorded, _ = self.simulate(truth)

    def simulate(self, speed: Array) -> tuple[Array, list[Array]]:
        """What is heard, and what drives the wave; of each step."""
        heard, drives, ratio = [], [], (speed * STEP_S / CELL_M) ** 2
        u = before = np.zeros(self.fires.shape)
        for pulse in PULSE:
            heard.append(u[:, RING_Y, RING_X])
            drives.append(drive := laplacian(u))
            drive[self.fires] += pulse
            after = 2 * u - (1 - SPONGE) * before + ratio * drive
            u, before = after / (1 + SPONGE), u
        return np.array(heard), drives

    def misfit(self, speed: Array) -> tuple[float, Array]:
        """Half the squared differences from what was recorded, and its gradient."""
        heard, drives = self.simulate(speed)
        gradient, ratio = np.zeros_like(speed), (speed * STEP_S / CELL_M) ** 2
        v = after = np.zeros(self.fires.shape)  # the adjoint wave: the last step first
        wrong = heard - self.recorded
        for miss, drive in zip(wrong[::-1], drives[::-1], strict=True):
            gradient += (v * drive).sum(axis=0)
            before = 2 * v - (1 - SPONGE) * after + laplacian(ratio * v)
            before[:, RING_Y, RING_X] += miss
            v, after = before / (1 + SPONGE), v
        return float((wrong**2).sum()) / 2, gradient * ratio * 2 / speed


def head() -> Array:
    """Speeds of sound in the shape of a slice of a brain, 36 mm by 44."""
    t1 = load_mni152_template(resolution=2).get_fdata()[14:85:2, 15:103:2, 45]
    return WATER + FASTER * np.pad(t1 / t1.max(), ((17, 17), (13, 13)))


def likeness(speed: Array, truth: Array) -> tuple[float, float]:
    """How far two models are apart, m/s rms, and their correlation."""
    speed, truth = speed[INSIDE], truth[INSIDE]
    return np.sqrt(((speed - truth) ** 2).mean()), np.corrcoef(speed, truth)[0, 1]


async def invert(truth: Array, n: int) -> tuple[Array, float, Array]:
    """The model that was found, its misfit, and the gradient there."""
    groups = [Shots.remote(SHOTS[i::n], truth) for i in range(min(n, len(SHOTS)))]
    loop, zeros = asyncio.get_running_loop(), np.zeros(CELLS**2)

    async def misfit(x: Array) -> tuple[float, Array]:
        parts = await mosaic.gather(group.misfit(model(x)) for group in groups)
        return sum(part[0] for part in parts), sum(part[1] for part in parts)

    def objective(x: Array) -> tuple[float, Array]:  # SciPy has a thread of its own
        job = asyncio.run_coroutine_threadsafe(misfit(x), loop)
        value, gradient = job.result()
        return value / start, (gradient * INSIDE).ravel() * FASTER / start

    def report(intermediate_result: OptimizeResult) -> None:
        error, _ = likeness(model(intermediate_result.x), truth)
        print(f"misfit {intermediate_result.fun:9.3%}   error {error:5.2f} m/s rms")

    start, _ = await misfit(zeros)
    how = {"jac": True, "method": "L-BFGS-B", "options": {"maxiter": ITERATIONS}}
    best = await asyncio.to_thread(minimize, objective, zeros, callback=report, **how)
    return model(best.x), *await misfit(best.x)


def check(truth: Array, speed: Array, value: float, gradient: Array) -> bool:
    """Compare with one process, a gradient with differences, and the known figures."""
    alone, water, change = Shots(SHOTS, truth), model(np.zeros(CELLS**2)), truth - WATER
    (start, slope), (_, expected) = alone.misfit(water), alone.misfit(speed)
    up, down = (alone.misfit(water + h * change)[0] for h in (1e-4, -1e-4))
    apart = abs(gradient - expected).max() / abs(expected).max()
    off = abs((slope * change).sum() / (up - down) * 2e-4 - 1)
    error, alike = likeness(speed, truth)
    print(f"gradient {apart:.0e} from one process's, {off:.0e} from differences")
    print(
        f"misfit {value / start:.3%}, error {error:.2f} m/s rms, correlation {alike:.4f}"
    )
    exact = apart < 1e-10 and off < 1e-7
    return exact and value < 2e-4 * start and error < 6.5 and alike > 0.978


def plot(file: str, speed: Array, truth: Array) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    panels = {"before": truth * 0 + WATER, "after": speed, "true": truth}
    for axis, (title, panel) in zip(axes, panels.items(), strict=True):
        drawn = axis.imshow(panel.T, origin="lower", vmin=WATER, vmax=WATER + FASTER)
        axis.plot(RING_Y, RING_X, "w.", markersize=2)
        axis.set_title(title)
    figure.colorbar(drawn, ax=axes, label="speed of sound, m/s")
    figure.savefig(file, dpi=120)


parser = argparse.ArgumentParser(description="Look into a head with sound.")
parser.add_argument("--workers", type=int, default=2, metavar="N")
parser.add_argument("--plot", metavar="FILE", help="draw the model before, after, true")
parser.add_argument("--check", action="store_true", help="exit 1 if a figure is wrong")
args, truth = parser.parse_args(), head()
began = time.perf_counter()
found = mosaic.run(lambda: invert(truth, args.workers), num_workers=args.workers)
print(f"{time.perf_counter() - began:.2f} s with {args.workers} workers")
if args.plot:
    plot(args.plot, found[0], truth)
if args.check:
    print("check:", "as it should be" if (right := check(truth, *found)) else "WRONG")
    sys.exit(not right)
