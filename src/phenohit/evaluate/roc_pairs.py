"""Which pairs of methods get the paired test of ROC curves, and the table of its results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from phenohit.evaluate.entries import Entries
from phenohit.evaluate.roc_test import roc_tests, verdicts

__all__ = ["COLUMNS", "PAIRS", "choose_pairs", "pair_tests"]

PAIRS = 6  # pairs tested of each split
MOST = 20_000  # entries of a task that the test looks at

COLUMNS = (
    "split", "task", "method_a", "method_b", "repeat", "n_active", "n_inactive", "n_tested", "only_a", "only_b",
    "auroc_a", "auroc_b", "difference", "statistic", "p_value", "p_holm", "verdict", "permutations",
)  # fmt: skip

# What a method sees, first what is read out before the rest. An input that is not named stands for itself.
_SEES = {
    "views": "images", "crops": "images", "profiles": "profiles", "ecfp": "structures",
    "cell_count": "baseline", "plate": "baseline",
}  # fmt: skip
_LOOKS = ("images", "profiles")


def choose_pairs(inputs: Mapping[str, str], mean: Mapping[str, float], *, most: int = PAIRS) -> list[tuple[str, str]]:
    """Choose the pairs of methods that are worth a test of every task.

    Parameters
    ----------
    inputs : mapping of method to its input
        E.g. ``profiles``, ``views``. Methods on ``base``, whose scores are all equal, are never tested.
    mean : mapping of method to its mean AUROC
    most : int
        Pairs at most; those named first below are kept.

    Returns
    -------
    list of (method, other)
        The leading method (best mean AUROC of those that see images or profiles; else structures; else a baseline)
        against the best of every other kind of input (images, profiles, structures, baselines); every other
        method that sees images or profiles against the best that sees something else; the leading method
        against the others that see the same. No pair occurs twice.
    """
    sees = {name: _SEES.get(source, source) for name, source in inputs.items() if source != "base"}
    best = sorted(sees, key=lambda name: -mean[name])
    looks = [name for name in best if sees[name] in _LOOKS]
    if len(best) < 2:
        return []
    lead = (looks or [n for n in best if sees[n] != "baseline"] or best)[0]

    def first(kind: str) -> str:
        return next(name for name in best if sees[name] == kind)

    pairs = [(lead, first(kind)) for kind in dict.fromkeys([*_SEES.values(), *sees.values()]) if kind in sees.values()]
    for name in looks[1:]:
        pairs += [(name, other) for other in best if sees[other] != sees[name]][:1]
    pairs += [(lead, name) for name in best if sees[name] == sees[lead]]
    chosen: dict[frozenset[str], tuple[str, str]] = {}
    for pair in pairs:
        if pair[0] != pair[1]:
            chosen.setdefault(frozenset(pair), pair)
    return list(chosen.values())[:most]


def pair_tests(
    pairs: Sequence[tuple[str, str]],
    read: Callable[[str], Entries],
    *,
    split: str,
    repeat: Mapping[str, int],
    permutations: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Test pairs of methods task by task.

    Parameters
    ----------
    pairs : sequence of (method, other)
    read : function
        Gives the held-out scores of a method; two methods are held at a time.
    split : str
    repeat : mapping of method to fold number
        Of methods on hold-outs drawn anew: the one repeat that is tested, that of the first of a pair. Repeats share
        compounds, so that a test over all would take them for more than they are.
    permutations : int
    seed : int

    Returns
    -------
    DataFrame, one row per pair and task
        `COLUMNS`: of `roc_tests`, with ``repeat`` (-1: all folds) and ``verdict`` as of `verdicts`: at p of at most
        0.05, not corrected. Of a task with more than 20,000 entries so many are drawn: ``n_tested``.
    """
    parts: list[pd.DataFrame] = []
    held: tuple[str, Entries | None] = ("", None)
    for method, other in pairs:
        a = held[1] if held[0] == method and held[1] is not None else read(method)
        held, b, fold = (method, a), read(other), repeat.get(method, -1)
        if fold >= 0:
            a, b = ((e.take((e.fold == fold).nonzero()[0])) for e in (a, b))
        found = roc_tests(a, b, permutations=permutations, seed=seed, most=MOST, title=f"{method} against {other}")
        named = {"split": split, "method_a": method, "method_b": other, "repeat": fold, "permutations": permutations}
        parts.append(found.assign(**named, verdict=verdicts(found).astype(str)))
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))
    return table[list(COLUMNS)]
