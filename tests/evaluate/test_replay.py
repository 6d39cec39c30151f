"""Paired differences: the point is exact, the interval covers, and series are resampled whole."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from phenohit.errors import ShapeError
from phenohit.evaluate.enrichment import MEASURES, enrichment
from phenohit.evaluate.entries import Entries
from phenohit.evaluate.replay import average, paired_differences, replay


def two(n=400, T=3, K=3, seed=0, gain=(1.0, 0.2), digits=1):
    """Two methods on the same labels; every compound is in every task."""
    rng = np.random.default_rng(seed)
    compound, task = np.tile(np.arange(n), T), np.repeat(np.arange(T), n)
    fold = np.tile(rng.integers(0, K, n), T)
    y = rng.random(n * T) < 0.2
    out = []
    for g in gain:
        score = np.round(rng.normal(size=n * T) + g * y, digits).astype(np.float32)
        arrays = (task.astype(np.int32), fold.astype(np.int32), y, score, compound.astype(np.int32))
        out.append(Entries(*arrays, [f"t{i}" for i in range(T)], np.full(T, 0.5)))
    return out


def shuffled(e: Entries, keep=1.0, seed=0) -> Entries:
    order = np.random.default_rng(seed).permutation(len(e))[: int(keep * len(e))]
    return Entries(e.task[order], e.fold[order], e.y[order], e.score[order], e.compound[order], e.tasks, e.cut)


def test_the_difference_is_that_of_the_values_whatever_the_order_of_entries():
    a, b = two()
    found = paired_differences(a, shuffled(b), np.arange(400), top=50, replicates=0)
    apart = enrichment(a, top=50)["value"] - enrichment(b, top=50)["value"]
    keys = enrichment(a, top=50)[["task", "measure"]].assign(apart=apart)
    both = found.merge(keys, on=["task", "measure"], validate="1:1")
    assert len(both) == 3 * len(MEASURES)
    np.testing.assert_allclose(both["difference"], both["apart"], atol=1e-12)
    assert found["difference_low"].isna().all()


def test_only_shared_entries_are_compared():
    a, b = two()
    fewer = shuffled(b, keep=0.7)
    found = paired_differences(a, fewer, np.arange(400), top=50, replicates=0)
    kept = set(zip(fewer.task, fewer.compound, strict=True))
    mask = np.array([pair in kept for pair in zip(a.task, a.compound, strict=True)])
    same = Entries(a.task[mask], a.fold[mask], a.y[mask], a.score[mask], a.compound[mask], a.tasks, a.cut)
    again = paired_differences(same, fewer, np.arange(400), top=50, replicates=0)
    pd.testing.assert_frame_equal(found, again)


def test_a_planted_difference_is_found_and_the_same_method_has_none():
    a, b = two(gain=(2.5, 0.0))
    found = replay(a, b, np.arange(400), reference="b", top=50, replicates=200)
    assert (found.loc[found["measure"] != "top 1 %", "difference_low"] > 0).all()  # 4 compounds may be anything
    assert (found["difference_low"] <= found["difference"]).all()
    assert (found["difference"] <= found["difference_high"]).all()
    assert found["reference"].eq("b").all()
    same = replay(a, a, np.arange(400), reference="a", top=50, replicates=50)
    assert np.abs(same[["difference", "difference_low", "difference_high"]].to_numpy()).max() < 1e-12
    alone = replay(a, None, np.arange(400), top=50)
    assert alone["difference"].isna().all()
    assert alone["reference"].eq("").all()


def test_the_interval_covers_no_difference():
    """Two methods of the same quality: 0 lies in about 95 % of the intervals."""
    inside = []
    for seed in range(40):
        a, b = two(n=250, T=3, K=1, seed=seed, gain=(1.0, 1.0), digits=4)
        found = paired_differences(a, b, np.arange(250), top=40, replicates=200, seed=seed)
        inside.append(((found["difference_low"] <= 0) & (found["difference_high"] >= 0)).to_numpy().reshape(3, -1))
    share = np.concatenate(inside).mean(0)
    assert (share[1:] > 0.88).all(), share  # the top 1 % of 250 are 3 compounds: coarse, and covered more often
    assert (share > 0.88).all(), share


def test_series_widen_the_interval():
    """Copies of a compound know no more than one: resampled whole, the interval is that of the distinct ones."""
    rng = np.random.default_rng(3)
    n, copies = 60, 8
    y = np.repeat(rng.random(n) < 0.3, copies)
    at = np.arange(n * copies, dtype=np.int32)
    none = np.zeros(n * copies, np.int32)
    ways = [np.repeat(rng.normal(size=n), copies) + g * y for g in (1.0, 0.0)]
    a, b = (Entries(none, none, y, s.astype(np.float32), at, ["t"], np.array([0.5])) for s in ways)

    def width(group):
        found = paired_differences(a, b, group, top=100, replicates=400).set_index("measure").loc["bedroc"]
        return found["difference_high"] - found["difference_low"]

    assert width(at // copies) > 2 * width(at)
    assert np.isnan(width(none))  # one group cannot be resampled


def test_a_task_does_not_depend_on_the_others():
    a, b = two()
    every = paired_differences(a, b, np.arange(400), top=50, replicates=60)
    keep, none = a.task == 1, np.zeros(400, np.int32)
    parts = [(none, e.fold[keep], e.y[keep], e.score[keep], e.compound[keep]) for e in (a, b)]
    alone = paired_differences(
        *(Entries(*part, ["t1"], np.array([0.5])) for part in parts), np.arange(400), top=50, replicates=60
    )
    pd.testing.assert_frame_equal(every[every["task"] == "t1"].reset_index(drop=True), alone)
    other = Entries(a.task, a.fold, a.y, a.score, a.compound, ["x", "y", "z"], a.cut)
    with pytest.raises(ShapeError, match="same tasks"):
        paired_differences(a, other, np.arange(400))


def test_the_average_over_tasks():
    a, b = two(T=6)
    table = pd.concat(
        [replay(a, b, np.arange(400), reference="b", top=500, replicates=100).assign(method="a"),
         replay(b, None, np.arange(400), top=500).assign(method="b")]
    )  # fmt: skip
    means = average(table).set_index(["method", "measure"])
    for method, e in (("a", a), ("b", b)):
        values = enrichment(e, top=500).pivot(index="task", columns="measure", values=["value", "found", "expected"])
        row = means.loc[(method, "top 5 %")]
        assert row["mean"] == pytest.approx(values["value"]["top 5 %"].mean())
        assert row["low"] < row["mean"] < row["high"]
        assert row["found"] == pytest.approx(values["found"]["top 5 %"].sum())
        assert row["random"] == 1
    assert means.loc[("a", "top n"), "n_tasks"] == 0  # 400 compounds, 500 picks
    assert np.isnan(means.loc[("a", "top n"), "mean"])
    assert np.isnan(means.loc[("a", "bedroc"), "found"])
    one = means.loc[("a", "bedroc")]
    assert one["difference"] == pytest.approx(one["mean"] - means.loc[("b", "bedroc"), "mean"])
    assert one["n_better"] >= 4
    assert means.loc[("b", "bedroc"), "n_better"] == 0
