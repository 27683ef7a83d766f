"""The best support vector machine for handwritten digits: a grid, and a race.

The grid trains every configuration on every fold. The race is successive halving: each
round has twice the samples and keeps the better half of the configurations; one that
cannot be among them any more, even if the rest of its folds were perfect, is cancelled.
Scores are cached by their inputs: the last round of the race finds those of the grid.

    python examples/hyperparameters.py --workers 2 --check
"""

import argparse
import sys
import time
from collections.abc import Iterable
from itertools import product
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import SVC

import mosaic_like as mosaic

GRID = {"C": [0.1, 1.0, 10.0], "gamma": [1e-4, 1e-3, 1e-2, 1e-1]}
FOLDS = 5
Config = tuple[float, float]


@mosaic.task(cache_key="inputs", max_retries=2, retry_on=mosaic.WorkerDied)
def score(data: Any, samples: int, config: Config, fold: int) -> float:
    """Accuracy on one fold of the first samples."""
    images, digits = (part[:samples] for part in data)
    folds = StratifiedKFold(FOLDS).split(images, digits)
    train, test = list(folds)[fold]
    model = SVC(C=config[0], gamma=config[1]).fit(images[train], digits[train])
    return float(model.score(images[test], digits[test]))


async def grid(data: Any, samples: int, configs: list[Config]) -> dict[Config, float]:
    """The mean score of every configuration, with progress as the scores come."""
    tasks = {
        (config, fold): score.submit(data, samples, config, fold)
        for config, fold in product(configs, range(FOLDS))
    }
    ended = 0
    async for _ in mosaic.as_completed(tasks.values()):
        ended += 1
        if ended % FOLDS == 0:
            print(f"grid: {ended:3d} of {len(tasks)} scores", file=sys.stderr)
    scores = {key: await task.result() for key, task in tasks.items()}
    return {c: mean(scores[c, fold] for fold in range(FOLDS)) for c in configs}


async def survivors(
    data: Any, samples: int, configs: list[Config], keep: int
) -> tuple[list[Config], int]:
    """The best configurations, and how many were given up for that."""
    tasks = {
        score.submit(data, samples, config, fold): config
        for fold, config in product(range(FOLDS), configs)
    }
    scores: dict[Config, list[float]] = {config: [] for config in configs}
    given_up: set[Config] = set()
    async for task in mosaic.as_completed(tasks):
        if task.state != "done":
            continue  # it was cancelled
        scores[tasks[task]].append(await task.result())
        means = sorted(mean(s) for s in scores.values() if len(s) == FOLDS)
        if len(means) < keep:
            continue
        for config, found in scores.items():
            at_most = (sum(found) + FOLDS - len(found)) / FOLDS
            if len(found) < FOLDS and at_most < means[-keep]:
                given_up.add(config)
        for other, config in tasks.items():
            if config in given_up:
                other.cancel("it cannot be among the best")
    whole = [config for config in configs if len(scores[config]) == FOLDS]
    return sorted(whole, key=lambda c: -mean(scores[c]))[:keep], len(given_up)


async def race(data: Any, samples: int, configs: list[Config]) -> Config:
    """Successive halving."""
    rounds = (len(configs) - 1).bit_length()
    for number in range(rounds):
        size = max(samples >> (rounds - 1 - number), min(200, samples))
        keep = (len(configs) + 1) // 2
        configs, given_up = await survivors(data, size, configs, keep)
        print(f"race: {size:5,} samples, {keep} go on, {given_up} were given up")
    return configs[0]


def mean(scores: Iterable[float]) -> float:
    return float(np.mean(list(scores)))


async def main() -> int:
    images, digits = load_digits(return_X_y=True)
    images, digits = images[: args.samples], digits[: args.samples]
    samples = len(digits)
    data = await mosaic.put((images, digits))  # one copy for all workers of a host
    configs = list(product(GRID["C"], GRID["gamma"]))
    begin_s = time.perf_counter()
    means = await grid(data, samples, configs)
    best = max(means, key=means.__getitem__)
    took_s = time.perf_counter() - begin_s
    print(f"grid: C={best[0]:g}, gamma={best[1]:g}: {means[best]:.6f} ({took_s:.1f} s)")
    winner = await race(data, samples, configs)
    print(f"race: C={winner[0]:g}, gamma={winner[1]:g}; {score.cache_info()}")
    if not args.check:
        return 0
    search = GridSearchCV(SVC(), GRID, cv=FOLDS).fit(images, digits)
    wrong = list(means.values()) != search.cv_results_["mean_test_score"].tolist()
    print("check:", "WRONG" if wrong else "equal to GridSearchCV")
    return int(wrong)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--samples", type=int, default=1797, help="at most")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    sys.exit(mosaic.run(main, num_workers=args.workers))
