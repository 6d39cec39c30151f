"""Which tasks are tested, which are learned from, and which must not be because they would tell the answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from phenohit.data.labels import Labels
from phenohit.errors import ConfigError, LabelError, nearest
from phenohit.evaluate.seeds import task_stream
from phenohit.labels.overlap import near_duplicates

__all__ = ["UNKNOWN_TARGETS", "split_tasks"]

# ChEMBL's target for assays whose target nobody has looked up, and targets that are not molecules.
UNKNOWN_TARGETS = {"", "nan", "none", "unchecked", "unknown", "non-molecular", "no target", "chembl612545"}


_AGREE = 0.2  # kappa below which labels of common compounds agree little more than by chance


def split_tasks(
    labels: Labels,
    overlap: pd.DataFrame,
    *,
    tests: Sequence[str] = (),
    n_tests: int = 0,
    min_compounds: int = 96,
    share: tuple[float, float] = (0.3, 0.7),
    valid: float = 0.125,
    seed: int = 0,
) -> pd.DataFrame:
    """Split tasks into test, validation and training ones.

    Parameters
    ----------
    labels : Labels, one row per compound
        Binary tasks; those of values are left out.
    overlap : DataFrame
        From `phenohit.labels.overlap.task_overlap`, with every pair that shares labels.
    tests : sequence of str
        Test tasks by name; empty: all that fit the following rules.
    n_tests : int
        Most test tasks; 0: no limit. Drawn at random.
    min_compounds : int
        Measured compounds of a test task.
    share : pair of float
        Lowest and highest active share of a test task.
    valid : float
        Share of the other tasks set apart to stop by. Tasks of one assay and tasks that repeat each other stay
        together; where they are too many, they are learned from.
    seed : int

    Returns
    -------
    DataFrame, T rows
        ``task``, ``role`` (test, valid, train or left out), ``reason`` (why it is not a test, or is left out),
        ``n_active``, ``n_inactive``.

    Raises
    ------
    ConfigError
        If no task can be a test, or a number is impossible.
    LabelError
        If a named task is not there.

    Notes
    -----
    The rule of Ha (2024, chapter 2): a test task has 96 compounds or more, an active share of 0.3 to 0.7, and a target
    that no training task has, unless it is unknown. Beyond it, no task is learned from that is of the same assay as a
    test task, repeats its labels (`near_duplicates` whose kappa is 0.2 or more: tasks of half actives agree on half of
    their compounds by chance; the published split has repeats on both sides), or is another class of the same table,
    where being in one class tells that a compound is in no other.
    """
    if not 0 <= share[0] <= share[1] <= 1 or not 0 <= valid < 1 or n_tests < 0:
        raise ConfigError(
            f"fewshot.share {list(share)}, valid {valid} and n_tests {n_tests} must be shares and a number."
        )
    counts = labels.counts()
    names = labels.task_names
    n = counts.sum(axis=1).to_numpy()
    active = np.divide(counts["n_active"], n, out=np.full(len(n), np.nan), where=n > 0)
    table = pd.DataFrame({"task": names, "role": "train", "reason": "", **{c: counts[c].to_numpy() for c in counts}})
    binary = (labels.tasks["kind"] != "value").to_numpy()
    _mark(table, ~binary, "left out", "holds values, not classes")
    one_class = binary & ((counts["n_active"] == 0) | (counts["n_inactive"] == 0)).to_numpy()
    _mark(table, one_class, "left out", "has one class only")
    usable = binary & ~one_class
    if tests:
        absent = [t for t in tests if t not in set(names)]
        if absent:
            raise LabelError(f"fewshot.tests names '{absent[0]}', which is no task. {nearest(absent[0], names)}")
        chosen = np.isin(names, list(tests)) & usable
    else:
        small, beyond = n < min_compounds, (active < share[0]) | (active > share[1])
        chosen = usable & ~small & ~beyond
        _mark(table, usable & small, "train", [f"{k} compounds, fewer than {min_compounds}" for k in n])
        why = [f"active share {a:.2f} is not within {share[0]:g} and {share[1]:g}" for a in active]
        _mark(table, usable & ~small & beyond, "train", why)
        chosen = _apart_by_target(labels, table, chosen, usable)
    chosen = _fullest_of_assay(labels, table, chosen, n)
    chosen = _draw(table, chosen, n_tests, seed)
    if not chosen.any():
        raise ConfigError(
            f"None of the {len(names)} tasks can be a test: each needs {min_compounds} compounds and an active share "
            f"within {share[0]:g} and {share[1]:g}. Set fewshot.min_compounds, fewshot.share or fewshot.tests."
        )
    _mark(table, chosen, "test", "")
    _keep_answers_out(labels, table, overlap)
    _set_apart(labels, table, overlap, valid, seed)
    return table


def _mark(table: pd.DataFrame, which: NDArray[np.bool_], role: str, reason: str | Sequence[str]) -> None:
    table.loc[which, "role"] = role
    table.loc[which, "reason"] = reason if isinstance(reason, str) else np.asarray(reason, dtype=object)[which]


def _targets(labels: Labels) -> NDArray[np.object_]:
    """Target of every task, '' where nobody knows it."""
    tasks = labels.tasks
    target = tasks["target"].astype(str) if "target" in tasks else pd.Series("", index=tasks.index)
    unknown = target.str.casefold().isin(UNKNOWN_TARGETS)
    for column in ("target_type", "target_name"):
        if column in tasks:
            unknown |= tasks[column].astype(str).str.casefold().isin(UNKNOWN_TARGETS - {"", "nan", "none"})
    return target.mask(unknown, "").to_numpy(object)


def _apart_by_target(
    labels: Labels, table: pd.DataFrame, chosen: NDArray[np.bool_], usable: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Candidates whose target no other task has that is learned from."""
    target = _targets(labels)
    trained = set(target[usable & ~chosen]) - {""}
    shared = chosen & np.isin(target, list(trained))
    _mark(table, shared, "train", [f"target {t} is that of training tasks" for t in target])
    return chosen & ~shared


def _fullest_of_assay(
    labels: Labels, table: pd.DataFrame, chosen: NDArray[np.bool_], n: NDArray[np.integer]
) -> NDArray[np.bool_]:
    """Keep one test task of an assay, that with the most labels: thresholds of one assay are not two results."""
    at = np.flatnonzero(chosen)
    order = at[np.lexsort((at, -n[at]))]
    repeated = labels.tasks["assay"].iloc[order].duplicated().to_numpy()
    siblings = np.zeros(len(n), bool)
    siblings[order[repeated]] = True
    _mark(table, siblings, "left out", "same assay as a test task with more labels")
    return chosen & ~siblings


def _draw(table: pd.DataFrame, chosen: NDArray[np.bool_], n_tests: int, seed: int) -> NDArray[np.bool_]:
    at = np.flatnonzero(chosen)
    if not n_tests or len(at) <= n_tests:
        return chosen
    kept = np.zeros(len(chosen), bool)
    kept[task_stream(seed, "", "test tasks").permutation(at)[:n_tests]] = True
    _mark(table, chosen & ~kept, "train", f"could be a test; {n_tests} others were drawn")
    return kept


def _keep_answers_out(labels: Labels, table: pd.DataFrame, overlap: pd.DataFrame) -> None:
    """Leave out what is of a test task's assay, or repeats its labels."""
    assay = labels.tasks["assay"].to_numpy(object)
    test = (table["role"] == "test").to_numpy()
    trained = (table["role"] == "train").to_numpy()
    sibling = trained & np.isin(assay, assay[test])
    _mark(table, sibling, "left out", [f"same assay as a test task: {a}" for a in assay])
    place = {task: i for i, task in enumerate(table["task"])}
    for pairs, why in ((_repeats(overlap), "repeats the labels of"), (_exclusive(overlap), "is a class beside")):
        alike = overlap[pairs]
        for a, b in zip(alike["task_a"].map(place), alike["task_b"].map(place), strict=True):
            for one, other in ((a, b), (b, a)):
                if table["role"].iloc[one] == "test" and table["role"].iloc[other] == "train":
                    at = np.arange(len(table)) == other
                    _mark(table, at, "left out", f"{why} test task '{table['task'].iloc[one]}'")


def _repeats(overlap: pd.DataFrame) -> pd.Series:
    """Tell which pairs repeat each other's labels, more than by chance."""
    return near_duplicates(overlap) & ~(overlap["kappa"] < _AGREE)


def _exclusive(overlap: pd.DataFrame) -> pd.Series:
    """Tell which pairs are classes of one table: the same compounds, and none active in both."""
    return (overlap["jaccard"] == 1) & (overlap["hits_iou"] == 0) & (overlap["n_both"] >= 20)


def _set_apart(labels: Labels, table: pd.DataFrame, overlap: pd.DataFrame, valid: float, seed: int) -> None:
    """Turn a share of the training tasks into validation tasks, together with all that are of one assay or repeat."""
    trained = np.flatnonzero(table["role"] == "train")
    wanted = round(valid * len(trained))
    place = pd.Series(np.arange(len(trained)), index=table["task"].iloc[trained])
    alike = overlap[_repeats(overlap)]
    pairs = np.stack([place.reindex(alike[side]).to_numpy() for side in ("task_a", "task_b")])
    pairs = pairs[:, np.isfinite(pairs).all(axis=0)].astype(np.intp)
    first = labels.tasks["assay"].iloc[trained].reset_index(drop=True)
    of_assay = first.groupby(first, sort=False).transform(lambda s: s.index[0]).to_numpy()
    row, column = np.append(pairs[0], np.arange(len(trained))), np.append(pairs[1], of_assay)
    graph = sparse.csr_matrix((np.ones(len(row)), (row, column)), shape=(len(trained), len(trained)))
    n, family = connected_components(graph, directed=False)
    size, taken = np.bincount(family, minlength=n), 0
    for one in task_stream(seed, "", "validation tasks").permutation(n):
        if taken + size[one] <= wanted:  # a family that is larger stays with those that are learned from
            table.loc[trained[family == one], "role"] = "valid"
            taken += int(size[one])
