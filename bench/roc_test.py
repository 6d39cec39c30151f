"""The paired test of two ROC curves: how fast permutations are, whether p is uniform, and what differences it sees.

Speed: one permutation swaps the two ranks of a compound on the toss of a coin, ranks each side anew and counts errors
at every cut-off. Ours does that in one pass, O(n). The plain form sorts each side and counts the errors of all n
cut-offs over all n compounds, O(n^2); between the two, errors are cumulated on sorted labels, O(n log n). All three
draw coins of their own for every permutation. Level and power: simulated scores, 30 % active.

    python bench/roc_test.py [simulations]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kstest, norm

from phenohit.evaluate.roc_test import roc_test

SIZES = {250: (20_000, 400, 2_000), 1_000: (5_000, 60, 500), 4_000: (1_500, 8, 120)}  # permutations by n and form
PERMUTATIONS = 2_000


def case(n: int, shift: float, stream: np.random.Generator, active: float = 0.3) -> tuple[NDArray, NDArray, NDArray]:
    """Labels and two scores with a common part, the first `shift` better at telling actives."""
    y = np.arange(n) < active * n
    common = stream.normal(size=n)
    a, b = (common + stream.normal(size=n) + (1.0 + s) * y for s in (shift, 0.0))
    return y, a, b


def permuted_ranks(rank_a: NDArray, rank_b: NDArray, stream: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Swap by coins and sort both sides anew, equal ranks in random order."""
    swap = stream.random(len(rank_a)) < 0.5
    tie = stream.random((2, len(rank_a)))
    sides = np.where(swap, rank_b, rank_a) + tie[0], np.where(swap, rank_a, rank_b) + tie[1]
    return tuple(np.argsort(np.argsort(side)) for side in sides)  # pyright: ignore[reportReturnType]


def statistic_plainly(y: NDArray, rank_a: NDArray, rank_b: NDArray) -> int:
    """Count the errors of every cut-off over all compounds: O(n^2)."""
    cuts = np.arange(len(y))[:, None]
    errors = [(np.where(y, rank <= cuts, rank > cuts)).sum(1) for rank in (rank_a, rank_b)]
    return int(np.abs(errors[0] - errors[1]).sum())


def statistic_by_sums(y: NDArray, rank_a: NDArray, rank_b: NDArray) -> int:
    """Cumulate labels in the order of the ranks: O(n) once they are sorted."""
    at = np.empty((2, len(y)), np.int64)
    at[0, rank_a], at[1, rank_b] = y, y
    ahead = at.cumsum(1)
    return int(2 * np.abs(ahead[0] - ahead[1]).sum())


def seconds(form: Callable[..., int], n: int, permutations: int) -> tuple[float, float]:
    """Seconds per permutation, and p."""
    stream = np.random.default_rng(n)
    y, a, b = case(n, 0.2, stream)
    rank_a, rank_b = (np.argsort(np.argsort(s)) for s in (a, b))
    start = time.perf_counter()
    observed = form(y, rank_a, rank_b)
    drawn = [form(y, *permuted_ranks(rank_a, rank_b, stream)) for _ in range(permutations)]
    return (time.perf_counter() - start) / permutations, (np.array(drawn) >= observed).mean()


def ours(n: int, permutations: int) -> tuple[float, float]:
    """Seconds per permutation, and p, of the package."""
    y, a, b = case(n, 0.2, np.random.default_rng(n))
    start = time.perf_counter()
    p = roc_test(y, a, b, permutations=permutations).p_value
    return (time.perf_counter() - start) / permutations, p


def speed() -> None:
    roc_test([0, 1], [0, 1], [1, 0], permutations=1)  # compiled
    print("microseconds per permutation, least of three (p in brackets)")
    print(f"{'n':>6} {'ours O(n)':>20} {'plain O(n^2)':>20} {'sorting':>20} {'plain/ours':>11} {'sorting/ours':>13}")
    for n, permutations in SIZES.items():
        takes = (
            lambda b, n=n: ours(n, b),
            *(lambda b, n=n, f=f: seconds(f, n, b) for f in (statistic_plainly, statistic_by_sums)),
        )
        found = [min(take(b) for _ in range(3)) for take, b in zip(takes, permutations, strict=True)]
        texts = [f"{1e6 * s:,.1f} ({p:.3f})" for s, p in found]
        mine, plain, sums = (s for s, _ in found)
        print(f"{n:>6} {texts[0]:>20} {texts[1]:>20} {texts[2]:>20} {plain / mine:>10.0f}x {sums / mine:>12.0f}x")


def p_values(n: int, shift: float, simulations: int, seed: int) -> NDArray[np.float64]:
    stream = np.random.default_rng([seed, 2])
    found = [roc_test(*case(n, shift, stream), permutations=PERMUTATIONS, seed=s).p_value for s in range(simulations)]
    return np.array(found)


def level(simulations: int) -> None:
    print(f"\nno difference, {simulations:,} simulations of each size, {PERMUTATIONS:,} permutations")
    print(f"{'n':>6} {'KS':>7} {'KS p':>7} {'p<=0.01':>8} {'p<=0.05':>8} {'p<=0.2':>8}")
    for n in (50, 250, 1_000):
        p = p_values(n, 0.0, simulations, n)
        spread = p - np.random.default_rng([n, 1]).random(simulations) / (PERMUTATIONS + 1)  # p comes in steps
        test = kstest(spread, "uniform")
        below = [(p <= alpha).mean() for alpha in (0.01, 0.05, 0.2)]
        print(f"{n:>6} {test.statistic:>7.4f} {test.pvalue:>7.3f} {below[0]:>8.4f} {below[1]:>8.4f} {below[2]:>8.4f}")


def power(simulations: int) -> None:
    print(
        f"\nshare of p <= 0.05 by true AUROC of the first score (the other: {auroc(0):.3f}), "
        f"{simulations:,} simulations"
    )
    shifts = (0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2)
    print(f"{'n':>6} " + " ".join(f"{auroc(s):>7.3f}" for s in shifts))
    for n in (50, 250, 1_000):
        shares = [(p_values(n, s, simulations, 7 * n) <= 0.05).mean() for s in shifts]
        print(f"{n:>6} " + " ".join(f"{share:>7.3f}" for share in shares))


def auroc(shift: float) -> float:
    """AUROC of normal scores of variance 2 whose classes are 1 + shift apart."""
    return float(norm.cdf((1.0 + shift) / 2))


def main(simulations: int = 2_000) -> None:
    speed()
    level(simulations)
    power(max(simulations // 4, 1))


if __name__ == "__main__":
    main(*(int(a) for a in sys.argv[1:]))
