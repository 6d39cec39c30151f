"""Random scores are drawn from the right distribution, whatever the class sizes."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import kstest

import phenohit.evaluate.chance as module
from phenohit.evaluate.chance import chance_draws, chance_table, null_auroc
from phenohit.evaluate.entries import Entries
from phenohit.evaluate.metrics import METRICS, mean_over_folds


def by_ranking(n_active, n_inactive, size, seed=0):
    """AUROC of random scores, the long way: rank random numbers."""
    stream = np.random.default_rng(seed)
    ranks = stream.random((size, n_active + n_inactive)).argsort(1).argsort(1)[:, :n_active]
    return (ranks.sum(1) - n_active * (n_active - 1) / 2) / (n_active * n_inactive)


@pytest.mark.parametrize(("few", "many"), [(1, 1), (1, 6), (2, 5), (3, 3), (4, 7), (5, 5)])
def test_exact_distribution_equals_counting_all_orders(few, many):
    won = [sum(c) - few * (few - 1) // 2 for c in combinations(range(few + many), few)]
    counted = np.cumsum(np.bincount(won, minlength=few * many + 1)) / len(won)
    np.testing.assert_allclose(module._null_cdf(few, many), counted, atol=1e-12)


@pytest.mark.parametrize(("few", "many"), [(10, 400), (20, 200), (63, 63), (1, 4000)])
def test_exact_distribution_keeps_its_moments_at_size(few, many):
    cdf = module._null_cdf(few, many)
    p, u = np.diff(cdf, prepend=0), np.arange(few * many + 1)
    assert p.min() >= -1e-12
    assert (p * u).sum() == pytest.approx(few * many / 2, rel=1e-9)
    assert (p * (u - few * many / 2) ** 2).sum() == pytest.approx(few * many * (few + many + 1) / 12, rel=1e-8)
    np.testing.assert_allclose(p, p[::-1], atol=1e-12)


@pytest.mark.parametrize(
    ("n_active", "n_inactive"), [(3, 8), (8, 3), (30, 90), (1, 4500), (3, 1500), (1500, 3), (12, 400), (40, 400)]
)
def test_draws_follow_the_distribution_of_ranked_random_scores(n_active, n_inactive):
    drawn = null_auroc(n_active, n_inactive, 4000, np.random.default_rng(1))
    ranked = by_ranking(n_active, n_inactive, 4000)
    edges = np.linspace(0, 1, 41)
    gap = np.abs((drawn[:, None] <= edges).mean(0) - (ranked[:, None] <= edges).mean(0)).max()
    assert gap < 0.045  # two samples of 4,000: Kolmogorov-Smirnov distance beyond this has p < 0.001
    assert drawn.min() >= 0
    assert drawn.max() <= 1


def test_the_approximations_join_the_exact_distribution(monkeypatch):
    # at the border of 4,000 pairs both ways must give the same distribution
    for few, many in ((2, 2000), (10, 400), (40, 100)):
        pairs = few * many
        cdf = module._null_cdf(few, many)
        monkeypatch.setattr(module, "_EXACT_PAIRS", 0)
        drawn = null_auroc(few, many, 20_000, np.random.default_rng(0))
        monkeypatch.undo()
        # half a pair: the exact distribution is discrete, its approximation is not
        smooth = lambda x, cdf=cdf, pairs=pairs: np.interp(x * pairs, np.arange(pairs + 1) + 0.5, cdf)  # noqa: E731
        assert kstest(drawn, smooth).statistic < 0.015


def test_undefined_without_both_classes():
    for sizes in ((0, 5), (5, 0), (0, 0)):
        assert np.isnan(null_auroc(*sizes, 3, np.random.default_rng(0))).all()


def make(names, seed=0, n=60, folds=3):
    stream = np.random.default_rng(seed)
    T = len(names)
    task = np.repeat(np.arange(T, dtype=np.int32), n)
    # what a task looks like depends on its name alone
    y = np.concatenate([np.random.default_rng(ord(name)).random(n) < 0.3 for name in names])
    fold = np.tile(np.arange(n, dtype=np.int32) % folds, T)
    return Entries(task, fold, y, stream.random(n * T), task, list(names), np.full(T, 0.5))


def test_a_task_draws_the_same_in_any_company():
    alone = next(iter(chance_draws(make("b"), repeats=50, seed=3)))
    together = list(chance_draws(make("cba"), repeats=50, seed=3))
    np.testing.assert_array_equal(together[1], alone)
    assert not np.array_equal(together[0], together[2])
    assert not np.array_equal(next(iter(chance_draws(make("b"), repeats=50, seed=4))), alone)


def test_range_covers_random_scores_as_often_as_it_says():
    names = "abcdefghijklmnopqrst"
    inside = []
    for seed in range(20):
        entries = make(names, seed=seed)
        auroc = mean_over_folds(METRICS["auroc"](entries, "fold"))
        table = chance_table(entries, auroc, repeats=2000)
        inside += ((auroc >= table["chance_low"]) & (auroc <= table["chance_high"])).tolist()
    assert 0.92 <= np.mean(inside) <= 0.985  # 400 random AUROCs in central 95 % ranges


def test_p_of_random_scores_is_uniform_and_of_perfect_scores_small():
    names = "abcdefghijklmnopqrst"
    p = []
    for seed in range(20):
        entries = make(names, seed=seed)
        auroc = mean_over_folds(METRICS["auroc"](entries, "fold"))
        p += chance_table(entries, auroc, repeats=500)["p_chance"].tolist()
    assert kstest(p, "uniform").pvalue > 0.001
    perfect = chance_table(entries, np.ones(len(names)), repeats=999)["p_chance"]
    assert (perfect == 0.001).all()


def test_undefined_tasks_have_no_chance_level():
    entries = make("ab")
    one_class = Entries(
        entries.task, entries.fold, entries.y & (entries.task == 1), entries.score, entries.compound, ["a", "b"],
        entries.cut,
    )  # fmt: skip
    table = chance_table(one_class, mean_over_folds(METRICS["auroc"](one_class, "fold")), repeats=20)
    assert table.loc[0].isna().all()
    assert table.loc[1].notna().all()
