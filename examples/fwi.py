"""Look into a head with sound: full-waveform inversion in two dimensions.

Transducers stand around a slice of the MNI152 brain, made small. Some fire, one after
the other, and all listen. Waves are simulated in a model, what it gets wrong is sent
back in time (the adjoint), and where both waves meet the model is to be changed. Each
group of shots is a tessera with its recordings; L-BFGS, at the head, makes the models.
The recordings are simulated by the same code: this shows how to compute such a thing,
and not how well it would do in a hospital.

    python examples/fwi.py --workers 2 --plot fwi.png
"""

import argparse
import asyncio
import sys
import time

import numpy as np
from nilearn.datasets import load_mni152_template
from numpy.typing import NDArray
from scipy.optimize import minimize

import mosaic_like as mosaic

Array = NDArray[np.float64]  # a model: 0 is water, 1 the fastest tissue
CELLS, CELL_M, STEPS, STEP_S = 70, 1e-3, 420, 0.22e-6  # a square grid, its time steps
WATER, FASTER = 1500.0, 80.0  # m/s; the speed in water, and how much is added at 1
COURANT = STEP_S / CELL_M  # s/m; times the speed it is 0.35, and 0.71 would be too much
RADIUS, SHOTS = 26, range(0, 48, 6)  # of the ring, in cells; which of its 48 fire
MIDDLE, angle = (CELLS - 1) / 2, 2 * np.pi * np.arange(48) / 48
RING_Y = (MIDDLE + RADIUS * np.sin(angle)).round().astype(int)
RING_X = (MIDDLE + RADIUS * np.cos(angle)).round().astype(int)
y, x = np.mgrid[:CELLS, :CELLS] - MIDDLE
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


@mosaic.tessera
class Shots:
    """Some of the shots, simulated together; knows what was recorded of them."""

    def __init__(self, shots: range, truth: Array) -> None:
        self.fires = np.zeros((len(shots), CELLS, CELLS), bool)
        self.fires[range(len(shots)), RING_Y[shots], RING_X[shots]] = True
        self.recorded, _ = self.simulate(truth)

    def simulate(self, model: Array) -> tuple[Array, list[Array]]:
        """What is heard, and what drives the wave; of each step."""
        heard, drives, c2 = [], [], ((WATER + FASTER * model) * COURANT) ** 2
        u = before = np.zeros(self.fires.shape)
        for pulse in PULSE:
            heard.append(u[:, RING_Y, RING_X])
            drives.append(drive := laplacian(u))
            drive[self.fires] += pulse
            after = 2 * u - (1 - SPONGE) * before + c2 * drive
            u, before = after / (1 + SPONGE), u
        return np.array(heard), drives

    def misfit(self, model: Array) -> tuple[float, Array]:
        """Half the squared differences from what was recorded, and its gradient."""
        heard, drives = self.simulate(model)
        wrong, c = heard - self.recorded, (WATER + FASTER * model) * COURANT
        v = after = np.zeros(self.fires.shape)  # the adjoint wave: the last step first
        met = np.zeros_like(model)
        for miss, drive in zip(wrong[::-1], drives[::-1], strict=True):
            met += (v * drive).sum(axis=0)
            before = 2 * v - (1 - SPONGE) * after + laplacian(c**2 * v)
            before[:, RING_Y, RING_X] += miss
            v, after = before / (1 + SPONGE), v
        return float((wrong**2).sum()) / 2, INSIDE * met * 2 * c * FASTER * COURANT


def brain() -> Array:
    """A slice between ears and top, 36 by 44 cells, in the middle of the water."""
    t1 = load_mni152_template(resolution=2).get_fdata()[14:85:2, 15:103:2, 45]
    return np.pad(t1 / t1.max(), ((17, 17), (13, 13)))


def error(model: Array, truth: Array) -> float:
    """How far two models are apart inside the ring, m/s rms."""
    return FASTER * float(np.sqrt(((model - truth)[INSIDE] ** 2).mean()))


async def invert(truth: Array, n: int) -> tuple[Array, float, Array]:
    """The model that was found, its misfit (1 in water) and its gradient."""
    groups = [Shots.remote(SHOTS[i::n], truth) for i in range(min(n, len(SHOTS)))]
    values = []

    def misfit(x: Array) -> tuple[float, Array]:
        model = mosaic.put(x.reshape(truth.shape))  # is handed over once, read by all
        tasks = [group.misfit(model) for group in groups]
        parts = [task.get() for task in tasks]  # get blocks: SciPy has its own thread
        values.append(sum(part[0] for part in parts))
        off = error(x.reshape(truth.shape), truth)
        print(f"misfit {values[-1] / values[0]:9.3%}   error {off:5.2f} m/s rms")
        return values[-1], sum(part[1].ravel() for part in parts)

    end = {"maxiter": 12, "ftol": 0, "gtol": 0}
    how = {"jac": True, "method": "L-BFGS-B", "options": end}
    best = await asyncio.to_thread(minimize, misfit, np.zeros(truth.size), **how)
    return best.x.reshape(truth.shape), best.fun / values[0], best.jac


def check(truth: Array, found: Array, misfit: float, gradient: Array) -> bool:
    """Compare with one process, the adjoint with differences, and known figures."""
    alone, h = Shots(SHOTS, truth), 1e-4 * truth
    same, slope = (alone.misfit(model)[1] for model in (found, 0 * truth))
    apart = abs(gradient - same.ravel()).max() / abs(same).max()
    off = (slope * 2 * h).sum() / (alone.misfit(h)[0] - alone.misfit(-h)[0]) - 1
    alike = np.corrcoef(found[INSIDE], truth[INSIDE])[0, 1]
    print(f"gradient {apart:.0e} from one process's and {off:.0e} from differences")
    print(f"misfit {misfit:.4%}, correlation with the truth {alike:.4f}")
    known = misfit < 1e-4 and error(found, truth) < 7 and alike > 0.975
    return bool(known and apart < 1e-10 and abs(off) < 1e-7)


def plot(file: str, found: Array, truth: Array) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    panels = {"before": 0 * truth, "after": found, "true": truth}
    for axis, (title, model) in zip(axes, panels.items(), strict=True):
        speed = WATER + FASTER * model.T
        drawn = axis.imshow(speed, origin="lower", vmin=WATER, vmax=WATER + FASTER)
        axis.plot(RING_Y, RING_X, "w.", markersize=2)
        axis.set_title(title)
    figure.colorbar(drawn, ax=axes, label="speed of sound, m/s")
    figure.savefig(file, dpi=120)


parser = argparse.ArgumentParser(description="Look into a head with sound.")
parser.add_argument("--workers", type=int, default=2, metavar="N")
parser.add_argument("--plot", metavar="FILE", help="draw the model before, after, true")
parser.add_argument("--check", action="store_true", help="exit 1 if a figure is wrong")
args, truth, began = parser.parse_args(), brain(), time.perf_counter()
found = mosaic.run(lambda: invert(truth, args.workers), num_workers=args.workers)
print(f"{time.perf_counter() - began:.1f} s with {args.workers} workers")
if args.plot:
    plot(args.plot, found[0], truth)
if args.check:
    print("check:", "as it should be" if (right := check(truth, *found)) else "WRONG")
    sys.exit(not right)
