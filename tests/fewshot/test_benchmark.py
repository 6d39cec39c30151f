import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon
from sklearn import metrics as sk

from phenohit.errors import ShapeError
from phenohit.fewshot.benchmark import compare_sizes, episode_metrics, gains, score_episodes, summary, task_means
from phenohit.fewshot.contract import check_scores
from phenohit.fewshot.episodes import Episodes
from phenohit.fewshot.leak import leak_table


def made(task, size, E=6, Q=20, seed=0):
    rng = np.random.default_rng([seed, size])
    y = np.arange(Q)[None, :] < np.full((E, 1), 8)
    support = np.arange(size)[None, :] < size // 2
    return Episodes(task, rng.integers(0, 99, (E, size)), rng.integers(0, 99, (E, Q)), np.repeat(support, E, 0), y)


def test_metrics_are_those_of_scikit_learn():
    episodes = [made("a", 8), made("b", 8, E=4, Q=30), made("a", 16)]
    scores = [np.random.default_rng(i).random(one.query.shape).round(1) for i, one in enumerate(episodes)]
    table = episode_metrics(episodes, scores)
    assert len(table) == 16
    for one, score in zip(episodes, scores, strict=True):
        part = table[(table["task"] == one.task) & (table["size"] == one.size)]
        for e, row in enumerate(part.itertuples()):
            y, s = one.y_query[e], score[e]
            assert row.auroc == pytest.approx(sk.roc_auc_score(y, s))
            assert row.delta_auprc == pytest.approx(sk.average_precision_score(y, s) - y.mean())
            assert row.balanced_accuracy == pytest.approx(sk.balanced_accuracy_score(y, s >= 0.5))
            assert row.f1 == pytest.approx(sk.f1_score(y, s >= 0.5))
            assert row.kappa == pytest.approx(sk.cohen_kappa_score(y, s >= 0.5))


class Calls:
    """A method that returns calls."""

    name = "calls"

    def score(self, data, episodes, *, seed, jobs):
        return [(np.zeros(one.query.shape) + one.y_query).astype(np.float32) for one in episodes]


def test_calls_in_the_place_of_probabilities_are_refused():
    with pytest.raises(ShapeError, match=r"'calls' gave calls .* soft scores"):
        score_episodes(Calls(), None, [made("a", 8)], seed=0, jobs=1)
    with pytest.raises(ShapeError, match="no probabilities"):
        check_scores("m", [np.full((6, 20), 1.2)], [made("a", 8)])
    with pytest.raises(ShapeError, match="shape"):
        check_scores("m", [np.full((6, 19), 0.2)], [made("a", 8)])
    check_scores("m", [np.full((6, 20), 0.5)], [made("a", 8)])  # the base rate is a soft score


def tables(n_tasks=30, seed=0):
    """Metrics of a better and a worse method; the first task has one support size only."""
    rng = np.random.default_rng(seed)
    rows = [(f"t{t}", size, e) for t in range(n_tasks) for size in ((8,) if t == 0 else (8, 32)) for e in range(20)]
    base = pd.DataFrame(rows, columns=["task", "size", "episode"])
    level = base["task"].map({f"t{t}": v for t, v in enumerate(rng.normal(0.6, 0.1, n_tasks))})
    out = {}
    for method, ahead in (("good", 0.05), ("plain", 0.0)):
        score = level + ahead + rng.normal(0, 0.02, len(base))
        out[method] = base.assign(**dict.fromkeys(("auroc", "delta_auprc", "f1", "balanced_accuracy", "kappa"), score))
    return out


def test_the_summary_is_of_task_means_with_intervals_over_tasks():
    metrics = tables()
    means = task_means(metrics)
    table = summary(means, seed=0).set_index(["method", "size", "tasks"])
    per_task = metrics["good"].query("size == 32").groupby("task")["auroc"].mean()
    row = table.loc[("good", 32, "all")]
    assert row["auroc"] == pytest.approx(per_task.mean())
    assert row["auroc_sd"] == pytest.approx(per_task.std())
    half = 1.96 * per_task.std() / np.sqrt(len(per_task))
    assert row["auroc_high"] - row["auroc_low"] == pytest.approx(2 * half, rel=0.15)
    assert table.loc[("good", 8, "all"), "n_tasks"] == 30
    assert table.loc[("good", 8, "every size"), "n_tasks"] == 29


def test_methods_are_compared_over_tasks_at_every_size():
    means = task_means(tables())
    table = compare_sizes(means)
    row = table.query("method == 'good' and other == 'plain' and size == 32 and metric == 'auroc'").iloc[0]
    wide = means[means["size"] == 32].pivot(index="task", columns="method", values="auroc")
    assert row["p_value"] == pytest.approx(wilcoxon(wide["good"], wide["plain"], alternative="greater").pvalue)
    assert row["p_holm"] < 0.001


def test_gains_are_paired_over_episodes():
    metrics = tables()
    table = gains(metrics, "plain")
    assert set(table["method"]) == {"good"}
    one = table[(table["task"] == "t3") & (table["size"] == 8)].iloc[0]
    pick = [metrics[m].query("task == 't3' and size == 8")["auroc"].to_numpy() for m in ("good", "plain")]
    ahead = pick[0] - pick[1]
    assert one["gain"] == pytest.approx(ahead.mean())
    assert one["high"] - one["gain"] == pytest.approx(1.96 * ahead.std(ddof=1) / np.sqrt(20))
    assert (table["low"] > 0).mean() > 0.9
    assert gains({"plain": metrics["plain"]}, "plain").empty


def test_the_leak_is_the_difference_on_common_tasks():
    good, plain = (t.assign(method="m") for t in (task_means({"m": m}) for m in tables().values()))
    table = leak_table(good, plain[plain["task"] != "t5"], seed=0)
    row = table[(table["size"] == 32) & (table["metric"] == "auroc")].iloc[0]
    assert row["n_tasks"] == 28
    assert row["difference"] == pytest.approx(0.05, abs=0.01)
    assert row["low"] < row["difference"] < row["high"]
