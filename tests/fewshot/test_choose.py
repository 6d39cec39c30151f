import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from phenohit.errors import ShapeError
from phenohit.fewshot.choose import estimate, out_of_support


def test_scores_are_averaged_over_the_draws_that_asked_a_compound():
    mean, times = out_of_support(np.array([[0, 1], [1, 2]]), np.array([[0.2, 0.4], [0.6, 0.9]]), 4)
    np.testing.assert_allclose(mean, [0.2, 0.5, 0.9, np.nan])
    assert times.tolist() == [1, 2, 1, 0]


def test_the_auroc_of_a_method_is_scikit_learns():
    rng = np.random.default_rng(0)
    y = rng.random(40) < 0.4
    scores = {"a": rng.random(40).round(1), "b": rng.random(40) + 0.3 * y}
    table = estimate(y, scores).by_method.set_index("method")
    for name, values in scores.items():
        assert table.loc[name, "auroc"] == pytest.approx(roc_auc_score(y, values))


def test_the_luck_of_the_best_of_many_is_not_counted_as_skill():
    """Twenty methods that know nothing: the best looks good, the estimate does not (mean over 40 tables)."""
    naive, honest, covered = [], [], 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        y = np.arange(30) < 12
        found = estimate(y, {f"m{i}": rng.random(30) for i in range(20)}, replicates=400, seed=seed)
        naive.append(found.by_method["auroc"].max())
        honest.append(found.auroc)
        covered += found.low <= 0.5 <= found.high
    assert np.mean(naive) > 0.65
    assert abs(np.mean(honest) - 0.5) < 0.05
    assert covered >= 36


def test_a_method_that_knows_is_found():
    rng = np.random.default_rng(1)
    y = np.arange(60) < 24
    scores = {f"m{i}": rng.random(60) for i in range(5)} | {"knows": rng.normal(size=60) + 2 * y}
    found = estimate(y, scores)
    assert found.chosen == "knows"
    assert found.low > 0.7
    assert found.by_method["times_chosen"].iloc[0] > 0.95


def test_too_few_or_unscored_compounds_are_refused():
    with pytest.raises(ShapeError, match="1 and 9"):
        estimate(np.arange(10) < 1, {"a": np.zeros(10)})
    with pytest.raises(ShapeError, match="1 without a score"):
        estimate(np.arange(10) < 5, {"a": np.append(np.zeros(9), np.nan)})
