"""Enrichment against RDKit, enumeration of ties, and simulated random picks."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rdkit.ML.Scoring import Scoring

from phenohit.errors import ConfigError, LabelError, ShapeError
from phenohit.evaluate.enrichment import FRACTIONS, MEASURES, bedroc, enrichment, enrichment_factor, n_taken
from phenohit.evaluate.entries import Entries


def entries(y, score, fold=None, task=None, compound=None, n_tasks=1) -> Entries:
    y, n = np.asarray(y, bool), len(y)
    fold = np.zeros(n, np.int32) if fold is None else np.asarray(fold, np.int32)
    task = np.zeros(n, np.int32) if task is None else np.asarray(task, np.int32)
    compound = np.arange(n, dtype=np.int32) if compound is None else np.asarray(compound, np.int32)
    names = [f"t{i}" for i in range(n_tasks)]
    return Entries(task, fold, y, np.asarray(score, np.float32), compound, names, np.full(n_tasks, 0.5))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("alpha", [0.5, 20.0, 160.0])
def test_equals_rdkit(seed, alpha):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(20, 700))
    y = np.zeros(n, int)
    y[rng.choice(n, int(rng.integers(1, n // 2)), replace=False)] = 1
    score = rng.permutation(n) + 0.8 * n * y * rng.random()
    score += rng.random(n) * 1e-3  # no ties: RDKit leaves them in the order of the list
    ranked = [[score[i], y[i]] for i in np.argsort(-score)]
    assert bedroc(y, score, alpha=alpha) == pytest.approx(Scoring.CalcBEDROC(ranked, 1, alpha), rel=1e-9, abs=1e-12)
    theirs = Scoring.CalcEnrichment(ranked, 1, list(FRACTIONS))
    assert [enrichment_factor(y, score, f) for f in FRACTIONS] == pytest.approx(theirs)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=2, max_size=5),
    st.sampled_from([0.1, 0.3, 0.5, 0.9]),
)
def test_ties_are_the_mean_over_all_their_orders(pairs, fraction):
    score, y = (np.array(v, float) for v in zip(*pairs, strict=True))
    orders = [order for order in permutations(range(len(y))) if (np.diff(score[list(order)]) <= 0).all()]
    if not 0 < y.sum() < len(y):
        assert np.isnan(bedroc(y, score))
        assert np.isnan(enrichment_factor(y, score, fraction))
        return
    broken = np.arange(len(y), 0, -1.0)
    every = [bedroc(y[list(order)], broken) for order in orders]
    assert bedroc(y, score) == pytest.approx(np.mean(every))
    every = [enrichment_factor(y[list(order)], broken, fraction) for order in orders]
    assert enrichment_factor(y, score, fraction) == pytest.approx(np.mean(every), nan_ok=True)


def many(n=900, T=7, K=3, seed=0):
    rng = np.random.default_rng(seed)
    task, fold = rng.integers(0, T, n), rng.integers(0, K, n)
    y = rng.random(n) < 0.05 + 0.4 * task / T
    score = np.round(rng.normal(size=n) + y, 1)  # ties
    return entries(y, score, fold, task, n_tasks=T)


def part(e: Entries, keep) -> Entries:
    none = np.zeros(keep.sum(), np.int32)
    return Entries(none, e.fold[keep], e.y[keep], e.score[keep], e.compound[keep], ["t0"], np.array([0.5]))


def test_all_tasks_at_once_equal_one_by_one():
    e = many()
    table = enrichment(e, top=40)
    assert len(table) == 7 * len(MEASURES)
    assert table["measure"].unique().tolist() == list(MEASURES)
    for t in range(7):
        alone = enrichment(part(e, e.task == t), top=40).drop(columns="task")
        pd.testing.assert_frame_equal(
            table[table["task"] == f"t{t}"].drop(columns="task").reset_index(drop=True), alone
        )


def test_folds_need_no_common_scale_and_share_the_picks():
    """Scores of another fold may be shifted and stretched; folds of a size give their best in turn."""
    e = many()
    stretched = np.where(e.fold == 1, 100 + 7 * e.score, np.where(e.fold == 2, e.score / 9 - 50, e.score))
    other = Entries(e.task, e.fold, e.y, stretched.astype(np.float32), e.compound, e.tasks, e.cut)
    pd.testing.assert_frame_equal(enrichment(e, top=40), enrichment(other, top=40))
    y = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    two = entries(y + y[::-1], [*range(10, 0, -1), *range(1010, 1000, -1)], fold=[0] * 10 + [1] * 10)
    # Best of fold 0 is active, best of fold 1 is not: they tie for the first place.
    row = enrichment(two, fractions=(0.05,), top=2).set_index("measure")
    assert row.loc["top 5 %", ["n_taken", "found"]].tolist() == [1, 0.5]
    assert row.loc["top n", ["n_taken", "found", "value"]].tolist() == [2, 1, 5.0]


def test_random_scores_find_what_is_said():
    """Expected hits, their hypergeometric range and random BEDROC, over random orders."""
    rng = np.random.default_rng(1)
    y = np.zeros(300, bool)
    y[:45] = True
    drawn = [enrichment(entries(y, rng.random(300)), top=50).set_index("measure") for _ in range(600)]
    for measure in MEASURES[:-1]:
        row = drawn[0].loc[measure]
        found = np.array([d.loc[measure, "found"] for d in drawn])
        assert found.mean() == pytest.approx(row["expected"], rel=0.07)
        assert np.mean((found >= row["random_low"]) & (found <= row["random_high"])) >= 0.94
        assert np.mean([d.loc[measure, "value"] for d in drawn]) == pytest.approx(1, rel=0.07)
    scaled = [d.loc["bedroc", "value"] for d in drawn]
    assert np.mean(scaled) == pytest.approx(drawn[0].loc["bedroc", "random"], abs=4 * np.std(scaled) / np.sqrt(600))


def test_the_best_and_the_worst_order():
    y = np.arange(200) < 30
    best = enrichment(entries(y, -np.arange(200.0)), top=60)
    np.testing.assert_allclose(best["value"], best["best"])
    assert best["value"].tolist() == pytest.approx([200 / 30] * 3 + [200 / 60, 1])
    worst = enrichment(entries(y, np.arange(200.0)), top=60)
    assert worst["value"].tolist() == pytest.approx([0] * 5, abs=1e-12)


def test_what_has_no_value():
    e = entries([1, 1, 1, 0, 1], [5, 4, 3, 2, 1], task=[0, 0, 1, 1, 3], n_tasks=4)
    table = enrichment(e, top=1).set_index(["task", "measure"])
    assert table["value"].notna().groupby("task").any().tolist() == [False, True, False, False]
    assert table.loc[("t1", "top n"), "value"] == 2
    assert table.loc[("t2", "top n"), ["n_scored", "n_taken", "found"]].tolist() == [0, 0, 0]
    assert enrichment(e, top=2).set_index(["task", "measure"]).loc[("t1", "top n")].isna()["value"]  # all are picked
    assert len(enrichment(entries([], []), top=1)) == len(MEASURES)


def test_shares_are_rounded_up_and_not_by_a_rounding_error():
    assert n_taken([100, 250, 29, 0], 0.1).tolist() == [10, 25, 3, 0]
    assert n_taken(700, 0.07) == 49  # 700 * 0.07 is 49.00000000000001


def test_what_cannot_be():
    for bad in ({"top": 0}, {"fractions": (0.0,)}, {"fractions": (1.5,)}, {"alpha": 0.0}, {"confidence": 1.0}):
        with pytest.raises(ConfigError, match="needed are"):
            enrichment(many(), **bad)
    with pytest.raises(LabelError, match="must be 0"):
        bedroc([0, 2], [1.0, 2.0])
    with pytest.raises(ShapeError, match="two equal lists"):
        enrichment_factor([0, 1], [1.0], 0.1)
