"""Travel times through a slab, inverted: a program as one writes it for the original.

Rays cross a grid of slownesses; each shot is a group of rays. The operator, one in
each worker, gives the misfit of a shot and its gradient; an optimiser in another
tessera sums them and steps. The model is a parameter. Run by ``test_porting`` with the
``mosaic`` of this folder, it prints what the test expects.
"""

import sys

import mosaic
import numpy as np
from mosaic import tessera
from mosaic.file_manipulation import h5
from mosaic.types import Struct


@tessera
class Medium:
    """Slowness of each cell."""

    def __init__(self, slowness):
        self.slowness = slowness
        self.updates = 0

    def step(self, change):
        self.slowness = self.slowness - change
        self.updates += 1
        return self.updates


@tessera
class Operator:
    """Travel times of the rays of one shot; takes any keyword, as operators do."""

    def __init__(self, num_cells, **kwargs):
        self.num_cells = num_cells
        self.kwargs = kwargs
        self.stumbles = 0

    def _rays(self, shot):
        rng = np.random.default_rng(shot.id)
        return rng.uniform(-0.5, 0.5, (self.num_cells * 2, self.num_cells))

    async def observe(self, shot, medium, **kwargs):
        return self._rays(shot) @ medium.slowness

    async def __call__(self, shot, medium, observed, **kwargs):
        rays = self._rays(shot)
        residual = kwargs.get("weight", 1.0) * (rays @ medium.slowness - observed)
        return float(residual @ residual), rays.T @ residual

    async def stumble(self, **kwargs):
        self.stumbles += 1
        if self.stumbles == 1:
            mosaic.logger().warning("stumbled")
            raise RuntimeError("once")
        return sorted(kwargs)


@tessera
class Optimiser:
    """Sums gradients; the order in which they come counts for nothing."""

    def __init__(self, medium, **kwargs):
        self.medium = medium
        self.rate = kwargs.pop("rate")
        self.terms = {}

    async def add(self, shot, gradient, misfit):
        self.terms[shot] = (gradient, misfit)
        return len(self.terms)

    async def total(self, *tokens):
        terms = [self.terms[shot] for shot in sorted(self.terms)]
        self.terms = {}
        change = self.rate * sum(gradient for gradient, _ in terms)
        return change, sum(misfit for _, misfit in terms)


async def main(runtime):
    config = Struct(cells=6, shots=4, grid=Struct(spacing=0.5), iterations=12)
    file = sys.argv[1]
    truth = 1 + 0.1 * np.arange(config.cells)
    target = Medium.parameter(truth)
    medium = Medium.parameter(np.ones(config.cells), cached=False)
    shots = [Struct(id=n, at=n * config.grid.spacing) for n in range(config.shots)]

    # Options beside the operator's own keywords.
    operator = Operator.remote(
        config.cells, kernel="rays", order=4, len=runtime.num_workers, max_retries=0
    )
    await operator
    print("kernels", [kwargs["kernel"] for kwargs in await operator.kwargs])
    worker = runtime.workers[0]
    print(
        "retried",
        await operator.stumble(a=1, eager=True, max_retries=1, runtime=worker).result(),
    )

    observed = {}

    @runtime.async_for(shots)
    async def observing(worker, shot):
        task = await operator.observe(shot, target, runtime=worker, nothing=None)
        observed[shot.id] = await task.result()

    await observing

    optimiser = Optimiser.remote(medium, rate=0.24, runtime=worker)
    h5.dump(file, {"config": config, "misfit": []})
    for iteration in range(config.iterations):

        @runtime.async_for(shots)
        async def loop(worker, shot):
            # Lazily in the original: sent with the call that uses it.
            task = operator(shot, medium, observed[shot.id], runtime=worker, weight=1.0)
            added = optimiser.add(shot.id, task.outputs[1], task.outputs[0])
            await added
            return added

        added = await loop
        step = optimiser.total(*[task.outputs.done for task in added])
        misfit = await step.outputs[1].result()
        change = await step.outputs[0].result()
        await medium.step(change, propagate=True)
        h5.append(file, {"misfit": [misfit], "models": medium.slowness[None]})
        if iteration == 0:
            mosaic.logger().warning("the first misfit is %.1f", misfit)

    await runtime.barrier()
    back = h5.load(file)
    print("updates", await medium.get("updates"), back["models"].shape)
    print("spacing", back["config"].grid.spacing)
    print("falls", bool(np.all(np.diff(back["misfit"]) < 0)))
    print("close", bool(np.abs(medium.slowness - truth).max() < 1e-2))
    model = medium.slowness * 0 + 2
    medium.slowness = model
    await medium.push("slowness")
    print("pushed", bool(np.all(await medium.get("slowness") == 2)))
    print("workers", mosaic.num_workers, mosaic.runtime() is runtime)
    print("gathered", [t.state for t in await mosaic.gather([optimiser.total()])])


if __name__ == "__main__":
    mosaic.run(main, num_workers=2, log_level="perf", monitor_strategy="round-robin")
