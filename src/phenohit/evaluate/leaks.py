"""Does a split keep its promise? Checks on any fold table, whoever made it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.chem.similarity import bit_counts, common_bits, different, nearest, needed_common
from phenohit.errors import ShapeError, some
from phenohit.evaluate.splits import TEST, TRAIN, VALID, Folds
from phenohit.progress import track

__all__ = ["LEAK_COLUMNS", "MOST_PAIRS", "check"]

LEAK_COLUMNS = ["split", "check", "value", "n", "passed", "detail"]
MOST_PAIRS = 200_000_000  # pairs of fingerprints compared in full per split: a few seconds on two cores


def check(
    folds: Folds,
    *,
    skeletons: NDArray[Any] | None,
    scaffolds: NDArray[Any] | None,
    fingerprints: NDArray[np.uint8] | None,
    series: NDArray[Any] | None,
    similarity: float = 0.7,
    tasks: pd.DataFrame | None = None,
    n_sample: int = 2_000,
    most_pairs: int = MOST_PAIRS,
    seed: int = 0,
) -> pd.DataFrame:
    """Look for everything that test rows share with rows that were fitted on.

    Fitted on are training *and* validation rows: early stopping sees the latter.

    Parameters
    ----------
    folds : Folds, R rows
        From `phenohit.evaluate.splits`, or `Folds.from_numbers` for folds made elsewhere.
    skeletons : text, shape (R,), or None
        First InChIKey block; '' where there is no structure. None: not checked; so for the others.
    scaffolds : text, shape (R,), or None
        Murcko scaffolds, '' for acyclic compounds, which share nothing.
    fingerprints : uint8 array, shape (R, B), or None
        Packed, 2048-bit ECFP6.
    series : int array, shape (R,), or None
        Negative: none.
    similarity : float, default 0.7
        Bound a series split promises.
    tasks : DataFrame or None
        Columns ``task``, ``assay``.
    n_sample : int, default 2,000
        Different test fingerprints compared where a split has more than `most_pairs` pairs.
    most_pairs : int
        See above.
    seed : int
        Of that sample.

    Returns
    -------
    DataFrame
        One row per split and check, then those of the whole table (split ''):

        ``value``
            number shared; or the largest similarity; or a share of rows.
        ``n``
            how many were looked at: different compounds (skeletons, ...) in the test part, or
            fingerprints compared.
        ``passed``
            True, False, or None where it is information only.
        ``detail``
            up to ten offenders.

    Notes
    -----
    A shared compound or skeleton is a leak in every split. A shared series, and a neighbour at or above
    `similarity`, is one where ``folds.kind`` says *series*; a shared scaffold where it says *scaffold*;
    a shared plate where it says *plate*. Elsewhere these are information. Whether a neighbour is at the
    bound is decided in integers.
    """
    names = folds.rows["compound"].to_numpy(dtype=object)
    keys: list[tuple[str, NDArray[Any] | None, str]] = [
        ("shared compound", names, ""),
        ("shared skeleton", skeletons, ""),
        ("shared series", series, "series"),
        ("shared scaffold", scaffolds, "scaffold"),
    ]
    for name, values, _ in (*keys, ("fingerprints", fingerprints, "")):
        if values is not None and len(values) != len(folds.rows):
            raise ShapeError(f"'{name}' is checked on {len(values)} values, but the folds have {len(folds.rows)} rows.")
    kind = folds.kind.lower()
    coded = [(name, *_factorise(v), not word or word in kind) for name, v, word in keys if v is not None]
    found: list[dict[str, Any]] = []
    compounds = coded[0][1:3]
    # A compound's row may lie on several plates, written "P1;P2": each counts.
    plate = folds.rows["plate"].astype(str).str.split(";").explode()
    plate_codes, plates = _factorise(plate.to_numpy(dtype=object))
    which = None if fingerprints is None else different(fingerprints)[1]
    for s, split in enumerate(track(folds.names, "leak check")):
        train, valid, test = (folds.rows_of(s, part) for part in (TRAIN, VALID, TEST))
        fitted = np.concatenate([train, valid])
        rows = [_empty_parts(len(train), len(valid), len(test))]
        rows += [_shared(name, codes, values, fitted, test, required) for name, codes, values, required in coded]
        on = [np.flatnonzero(np.isin(plate.index, part)) for part in (fitted, test)]
        rows.append(_shared("shared plate", plate_codes, plates, *on, "plate" in kind))
        rows.append(_shared("compound in train and validation", *compounds, train, valid, True))
        if fingerprints is not None and which is not None:
            bound, most = (similarity, "series" in kind), (n_sample, most_pairs, seed)
            rows.append(_largest_similarity(fingerprints, which, names, fitted, test, *bound, most))
        found += [{"split": split, **row} for row in rows]
    found.append({"split": "", **_largest_group(folds)})
    if tasks is not None:
        found.append({"split": "", **_siblings(tasks)})
    table = pd.DataFrame(found, columns=LEAK_COLUMNS)
    return table.astype({"value": float, "n": int, "passed": object})


def _row(check: str, value: float, n: int, passed: bool | None, detail: str) -> dict[str, Any]:
    return {"check": check, "value": value, "n": n, "passed": passed, "detail": detail}


def _factorise(values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return codes (-1: no value) and the different values."""
    values = np.asarray(values)
    codes, names = pd.factorize(values)
    empty = values < 0 if values.dtype.kind in "if" else values == ""
    return np.where(empty, -1, codes), np.asarray(names)


def _shared(
    name: str, codes: NDArray[np.int64], values: NDArray[Any], fitted: NDArray[Any], test: NDArray[Any], required: bool
) -> dict[str, Any]:
    """Count the values that occur among both fitted and test rows."""
    seen = np.zeros((2, len(values) + 1), dtype=bool)  # the last column takes the code -1
    seen[0, codes[fitted]] = True
    seen[1, codes[test]] = True
    both = np.flatnonzero(seen[0, :-1] & seen[1, :-1])
    passed = not len(both) if required else None
    return _row(name, len(both), int(seen[1, :-1].sum()), passed, some(values[both].tolist()))


def _empty_parts(train: int, valid: int, test: int) -> dict[str, Any]:
    """Check that there is something to train on and something to test."""
    empty = (not train) + (not test)
    detail = f"{train:,} train, {valid:,} validation and {test:,} test rows"
    return _row("empty train or test", empty, train + valid + test, not empty, detail)


def _largest_group(folds: Folds) -> dict[str, Any]:
    """Say how much of the table one group holds: above 1 / folds, folds cannot be equal."""
    counts = folds.rows["group"].value_counts()
    n = int(counts.iloc[0]) if len(counts) else 0
    share = n / max(len(folds.rows), 1)
    detail = (
        f"largest group holds {100 * share:.1f} % of the rows ({n:,} of {len(folds.rows):,}; {len(counts):,} groups)"
    )
    return _row("largest group", share, n, None, detail)


def _siblings(tasks: pd.DataFrame) -> dict[str, Any]:
    """Name tasks that share an assay (other cut-offs): to be kept together where tasks are split."""
    sizes = tasks.groupby("assay", sort=False)["task"].agg(list)
    families = [names for names in sizes if len(names) > 1]
    detail = "; ".join(" = ".join(str(n) for n in names) for names in families[:10])
    if len(families) > 10:
        detail += f"; and {len(families) - 10} more assays"
    return _row("sibling tasks", sum(map(len, families)), len(tasks), None, detail)


def _largest_similarity(
    packed: NDArray[np.uint8],
    which: NDArray[np.int64],
    names: NDArray[Any],
    fitted: NDArray[np.int64],
    test: NDArray[np.int64],
    bound: float,
    required: bool,
    most: tuple[int, int, int],
) -> dict[str, Any]:
    """Find the nearest fitted neighbour of every different test fingerprint, or of a sample of them."""
    title = "largest similarity"
    n_sample, most_pairs, seed = most
    # Every different fingerprint once, with a row of its own part that carries it.
    of_test, row = np.unique(which[test], return_index=True)
    of_fitted, fitted_row = np.unique(which[fitted], return_index=True)
    test, fitted, n_test = test[row], fitted[fitted_row], len(of_test)
    if not n_test or not len(of_fitted):
        return _row(title, np.nan, 0, None, "nothing to compare")
    scope = f"{n_test:,} different test fingerprints"
    if n_test * len(of_fitted) > most_pairs and n_sample < n_test:
        test = test[np.sort(np.random.default_rng(seed).choice(n_test, n_sample, replace=False))]
        scope = f"a random {n_sample:,} of {scope}"
    index, value = nearest(packed[test], packed[fitted])
    near = fitted[index]
    bits = bit_counts(packed[test]) + bit_counts(packed[near])
    reached = common_bits(packed[test], packed[near]) >= needed_common(bound, 8 * packed.shape[1])[bits]
    worst = np.argsort(-value, kind="stable")[: 10 if reached.any() else 1]
    pairs = "; ".join(f"'{names[test[i]]}' ~ '{names[near[i]]}' ({value[i]:.3f})" for i in worst)
    detail = f"{int(reached.sum()):,} of {scope} have a fitted neighbour at >= {bound:g}; nearest: {pairs}"
    return _row(title, float(value.max()), len(test), not reached.any() if required else None, detail)
