"""A parameter server: handwritten digits, learned by workers that keep the data.

Each shard keeps its rows of scikit-learn's digits, one tessera the parameters of a
softmax regression. They learn in step (exactly as one process would), each shard at its
own pace (noisy), and by SciPy's L-BFGS at the head over the gradients of all shards.
"""

import argparse
import asyncio
import sys
import time

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits

import mosaic_like as mosaic

Array = NDArray[np.float64]
Found = dict[str, tuple[float, Array]]  # the loss that each way led to, and where
RIDGE, RATE, MOMENTUM, STEPS = 1e-3, 0.5, 0.9, 1000


@mosaic.tessera
class Parameters:
    def __init__(self, shape: tuple[int, int], rows: int) -> None:
        self.w, self.speed, self.rows = np.zeros(shape), np.zeros(shape), rows

    def get(self) -> Array:
        return self.w

    def step(self, *gradients: Array) -> None:
        gradient = sum(gradients) / self.rows + RIDGE * self.w
        self.speed = MOMENTUM * self.speed - RATE * gradient
        self.w = self.w + self.speed


@mosaic.tessera
class Shard:
    def __init__(self, x: Array, y: Array) -> None:
        self.x, self.y = x, y

    def loss_and_gradient(self, w: Array) -> tuple[float, Array]:
        """Cross entropy of softmax(x @ w) and its gradient, summed over our rows."""
        z = self.x @ w
        z -= z.max(axis=1, keepdims=True)
        logp = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        return -float((self.y * logp).sum()), self.x.T @ (np.exp(logp) - self.y)

    async def train(self, server: mosaic.TesseraProxy[Parameters], share: int) -> None:
        """At our own pace: the steps of the others come in between."""
        for _ in range(STEPS // share):
            w = await server.get().result()
            await server.step(share * self.loss_and_gradient(w)[1])


async def learn(x: Array, y: Array, n: int) -> Found:
    shards = [Shard.remote(x[i::n], y[i::n]) for i in range(n)]
    shape, found = (x.shape[1], y.shape[1]), Found()

    def objective(w: Array) -> tuple[float, Array]:
        tasks = [shard.loss_and_gradient(w.reshape(shape)) for shard in shards]
        parts = [task.get() for task in tasks]  # get blocks: SciPy has its own thread
        loss, gradient = sum(p[0] for p in parts), sum(p[1].ravel() for p in parts)
        return loss / len(x) + RIDGE / 2 * float(w @ w), gradient / len(x) + RIDGE * w

    async def report(name: str, w: Array, began: float) -> None:
        took, right = time.perf_counter() - began, np.argmax(x @ w, 1) == y.argmax(1)
        loss, _ = await asyncio.to_thread(objective, w.ravel())
        print(f"{name:<9} loss {loss:.7f} accuracy {right.mean():.4f} {took:6.2f} s")
        found[name] = loss, w

    began, server = time.perf_counter(), Parameters.remote(shape, len(x))
    for step in range(1, STEPS + 1):
        w = server.get()  # a task; as an argument it goes from worker to worker
        moved = server.step(*[s.loss_and_gradient(w).outputs[1] for s in shards])
        if step % 100 == 0:
            await moved  # no other wait: a tessera runs our calls in their order
    await report("in step", await server.get().result(), began)

    began, server = time.perf_counter(), Parameters.remote(shape, len(x))
    await mosaic.gather(shard.train(server, n) for shard in shards)
    await report("own pace", await server.get().result(), began)

    began, zeros = time.perf_counter(), np.zeros(shape).ravel()
    how = {"jac": True, "method": "L-BFGS-B", "options": {"ftol": 1e-12}}
    best = await asyncio.to_thread(minimize, objective, zeros, **how)
    await report("L-BFGS", best.x.reshape(shape), began)
    found["sum"] = await asyncio.to_thread(objective, best.x)
    return found


def check(found: Found, x: Array, y: Array) -> bool:
    """Compare with one process, where the classes are ordinary ones."""
    server, shard = Parameters((x.shape[1], y.shape[1]), len(x)), Shard(x, y)
    for _ in range(STEPS):
        server.step(shard.loss_and_gradient(server.get())[1])
    loss, best = found["L-BFGS"]
    single = shard.loss_and_gradient(best)[1].ravel() / len(x) + RIDGE * best.ravel()
    right = np.argmax(x @ best, 1) == y.argmax(1)
    exact = np.abs(found["sum"][1] - single).max() < 1e-12
    exact &= np.abs(found["in step"][1] - server.get()).max() < 1e-9
    known = abs(loss - 0.2639259) < 2e-7 and abs(right.mean() - 0.9794) < 1e-4
    return bool(exact and known and found["own pace"][0] < 0.3)


parser = argparse.ArgumentParser(description="Learn handwritten digits.")
parser.add_argument("--workers", type=int, default=2, metavar="N")
parser.add_argument("--check", action="store_true", help="exit 1 if a figure is wrong")
args = parser.parse_args()
threadpool_limits(1)  # for such small matrices more threads only wait
x, digits = load_digits(return_X_y=True)
x, y = np.hstack([x / 16, np.ones((len(x), 1))]), np.eye(10)[digits]
found = mosaic.run(lambda: learn(x, y, args.workers), num_workers=args.workers)
if args.check:
    print("check:", "as in one process" if (right := check(found, x, y)) else "WRONG")
    sys.exit(not right)
