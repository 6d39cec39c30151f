"""The page of a few-shot benchmark, from made-up (simulated) tables."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from phenohit.config import Config, FewShotConfig
from phenohit.data.dropped import dropped
from phenohit.data.labels import Labels
from phenohit.fewshot import page
from phenohit.fewshot.benchmark import SHOWN, compare_sizes, gains, summary, task_means
from phenohit.fewshot.findings import headline, overlap_facts
from phenohit.fewshot.leak import leak_table
from phenohit.fewshot.tasks import split_tasks
from phenohit.files import write_table
from phenohit.labels.overlap import task_overlap

SIZES = (8, 64, 96)
# Simulated mean AUROC at 96; what is missing at 8.
SKILL = {
    "rate": 0.5, "logistic": 0.66, "singletask": 0.65, "multitask": 0.69, "prototypes": 0.72,
}  # fmt: skip
NAMES = [*(f"{m}-profiles" for m in SKILL), "logistic-ecfp", "prototypes-ecfp"]
NASTY = "<b>&\"'</b>"


@pytest.fixture(autouse=True, scope="module")
def registry():
    """No network code is loaded to ask whether a method learns from other tasks."""
    known = {"multitask", "prototypes", "maml", "macau"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "find_method", lambda name: SimpleNamespace(pretrains=name in known))
        yield


def simulated(tasks, sizes, methods, *, seed=0, lift=0.0):
    """Metrics of 12 episodes a task, method and size: skill grows with the support size; tasks differ."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(0, 0.05, len(tasks))
    found = {}
    for name in methods:
        alias, _, source = name.rpartition("-")
        rows = []
        for i, task in enumerate(tasks):
            for size in sizes:
                if size == 96 and i == len(tasks) - 1 and len(tasks) > 1:
                    continue  # one task is too small for the largest support
                rise = np.log2(size / 4) / np.log2(24)
                skill = SKILL.get(alias, 0.6) - 0.5 + 0.01 * (source == "ecfp")
                for episode in range(12):
                    auroc = (
                        0.5 + lift if alias == "rate" else 0.5 + rise * (skill + ease[i]) + lift + rng.normal(0, 0.03)
                    )
                    rest = (auroc - 0.5, auroc - 0.1, auroc - 0.02, 2 * (auroc - 0.5))
                    rows.append((task, size, episode, auroc, *rest))
        found[name] = pd.DataFrame(rows, columns=["task", "size", "episode", *SHOWN])
    return found


def labels_of(n_tasks, seed=0):
    """Tasks of 60 to 200 compounds out of 400; the second repeats most of the first."""
    rng = np.random.default_rng(seed)
    parts = []
    for t in range(n_tasks):
        at = rng.choice(400, int(rng.integers(110, 200)), replace=False)
        parts.append(pd.DataFrame({"compound": at, "task": t, "value": rng.integers(0, 2, len(at))}))
    if n_tasks > 1:
        parts[1] = parts[0].assign(task=1).iloc[:-10]
    table = pd.concat(parts)
    names = [NASTY, *(f"CHEMBL{1000 + t} IC50 of a simulated enzyme, class {t}" for t in range(1, n_tasks))]
    Y = sparse.csr_matrix((table["value"].astype(np.float32), (table["compound"], table["task"])), (400, n_tasks))
    tasks = pd.DataFrame({"task": names, "assay": names, "kind": "binary", "threshold": np.nan})
    return Labels(Y, pd.DataFrame({"compound": [f"c{i}" for i in range(400)]}), tasks)


def write_folder(folder, *, n_tasks=18, sizes=SIZES, names=None, reference="singletask", leak=True):
    """Tables as a benchmark writes them; returns the metrics."""
    names = names or NAMES
    some = labels_of(n_tasks + 8 * (n_tasks > 1))
    task_names = some.tasks["task"].tolist()
    counts = some.counts()
    roles = ["test"] * n_tasks + ["train", "valid", "left out", "train"] * 2
    reasons = [""] * n_tasks + ["60 compounds, fewer than 96", "", f"repeats the labels of test task '{NASTY}'", ""] * 2
    table = pd.DataFrame(
        {"task": task_names, "role": roles[: len(task_names)], "reason": reasons[: len(task_names)],
         "n_active": counts["n_active"], "n_inactive": counts["n_inactive"]}
    )  # fmt: skip
    write_table(folder / "tasks.csv", table)
    overlap = task_overlap(some, top=10_000, least=0.0)
    write_table(folder / "overlap.parquet", overlap[overlap["n_both"] > 0].reset_index(drop=True))
    metrics = simulated(task_names[:n_tasks], sizes, names)
    means = task_means(metrics)
    write_table(folder / "task_means.csv", means)
    write_table(folder / "table.csv", summary(means, seed=0))
    write_table(folder / "compare.csv", compare_sizes(means))
    parts = []
    for base in [n for n in names if n.rpartition("-")[0] == reference]:
        source = base.rpartition("-")[2]
        parts.append(gains({n: t for n, t in metrics.items() if n.rpartition("-")[2] == source}, base))
    write_table(folder / "gains.csv", pd.concat(parts) if parts else gains({"": metrics[names[0]]}, ""))
    costs = [
        {"method": n, "pretrain_s": 1.5 * i, "score_s": 2.0 + i, "episodes": 9000, "features": 993}
        for i, n in enumerate(names)
    ]
    write_table(folder / "costs.csv", pd.DataFrame(costs))
    if leak:
        wells = task_means(simulated(task_names[:n_tasks], sizes, names, lift=0.04))
        write_table(folder / "leak.csv", leak_table(wells, means, seed=0))
    return metrics


def config_of(names=None, **given):
    names = names or [f"{m}-profiles" for m in SKILL]
    methods = {n.rpartition("-")[0]: {} for n in names}
    return Config(name="A simulated screen", simulated=True, fewshot=FewShotConfig(methods=methods, **given))


def lost():
    return dropped("draw episodes", "task", [f"{NASTY} at 96"], "118 compounds, fewer than 96 and 32")


class Page(HTMLParser):
    """Tables as lists of rows of text, and every element met."""

    def __init__(self, words):
        super().__init__(convert_charrefs=True)
        self.tables, self.tags, self.words, self.sections = [], [], [], {}
        self._cell = self._section = None
        self.feed(words)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self._section = dict(attrs)["id"]
            self.sections[self._section] = []
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._cell = []

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.tables[-1][-1].append(" ".join("".join(self._cell).split()))
            self._cell = None

    def handle_data(self, data):
        self.words.append(data)
        if self._cell is not None:
            self._cell.append(data)
        if self._section:
            self.sections[self._section].append(data)

    def text(self, section=None):
        return " ".join("".join(self.words if section is None else self.sections[section]).split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("fewshot")
    write_folder(where)
    return where


@pytest.fixture(scope="module")
def made(folder, registry):
    path = page.write_page(folder, config_of(), dropped=lost())
    assert path == folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def test_the_headline_names_leader_interval_and_plain_methods(made, folder):
    table = pd.read_csv(folder / "table.csv")
    at = table[(table["tasks"] == "all") & (table["size"] == 96)].set_index("method")
    best = at.loc[at["auroc"].idxmax()]
    assert best.name == "prototypes-ecfp"
    head = next(t for t in made.tables if "Leads" in t[0])
    assert [row[0] for row in head[1:]] == [str(s) for s in SIZES]
    last = head[-1]
    assert last[1] == "Prototypical network, ECFP"
    assert last[2] == f"{best['auroc']:.3f} [{best['auroc_low']:.3f}, {best['auroc_high']:.3f}]"
    assert last[3] == "17"
    plain = max(at.loc["logistic-profiles", "auroc"], at.loc["logistic-ecfp", "auroc"])
    assert last[4].startswith(f"{plain:.3f}")
    assert last[5] == "0.500"
    assert last[-1] == "more than noise"
    words = made.text()
    assert f"mean AUROC {best['auroc']:.3f}" in words or f"{best['auroc']:.3f} at 96" in words
    assert re.search(r"(compounds|every support size) the lead over logistic regression is more than noise\.", words)


def test_tables_hold_the_numbers_of_table_csv(made, folder):
    table = pd.read_csv(folder / "table.csv")
    shown = [t for t in made.tables if len(t[0]) == 4 and t[0][1].startswith("8 compounds")]
    assert len(shown) == 10  # five metrics, for all tasks and for those drawn at every size
    for found, (which, metric) in zip(shown, [(w, m) for w in ("all", "every size") for m in SHOWN], strict=True):
        rows = table[(table["tasks"] == which) & (table["method"] == "multitask-profiles")].set_index("size")
        assert found[0][-1] == f"96 compounds{rows.loc[96, 'n_tasks']} tasks"
        mine = next(r for r in found if r[0] == "Multitask network, profiles")
        for cell, size in zip(mine[1:], SIZES, strict=True):
            at = rows.loc[size]
            value, low, high, sd = (at[metric + end] for end in ("", "_low", "_high", "_sd"))
            assert cell.replace("−", "-") == f"{value:.3f} [{low:.3f}, {high:.3f}]sd {sd:.3f}"
    best = [r for r in shown[0][1:] if r[0] == "Prototypical network, ECFP"]
    assert shown[0][1] == best[0]  # from the best mean down
    means = [float(r[-1].split()[0]) for r in shown[0][1:]]
    assert max(means) == means[0]


def test_p_values_and_gains_are_those_of_the_tables(made, folder):
    compared = pd.read_csv(folder / "compare.csv")
    matrices = [t for t in made.tables if "row better than column" in t[0][0]]
    assert len(matrices) == 2 * len(SIZES)
    first = matrices[0]
    assert first[0][0] == "AUROC, 8 compounds, 18 tasks: row better than column"
    names = [row[0] for row in first[1:]]
    i, j = names.index("Base rate, profiles"), names.index("Prototypical network, ECFP")
    at = (compared["metric"] == "auroc") & (compared["size"] == 8)
    row = compared[at & (compared["method"] == "rate-profiles") & (compared["other"] == "prototypes-ecfp")].iloc[0]
    assert first[i + 1][j + 1].startswith(f"{row['p_value']:.2f}")
    counted = [t for t in made.tables if t[0][0] == "Method, 64 compounds"]
    all_gains = pd.read_csv(folder / "gains.csv")
    mine = all_gains[(all_gains["method"] == "prototypes-profiles") & (all_gains["size"] == 64)]
    told = next(r for r in counted[0] if r[0].startswith("Prototypical network, profiles"))
    won = ((mine["p_holm"] <= 0.05) & (mine["gain"] > 0)).sum()
    fell = ((mine["p_holm"] <= 0.05) & (mine["gain"] < 0)).sum()
    assert told[1:] == ["18", f"{mine['gain'].mean():+.3f}", str(won), str(fell)]
    shown = {row[0].split("against")[0] for row in counted[0][1:]}
    assert shown == {"Prototypical network, profiles", "Multitask network, profiles"}
    assert "reference was not run on the same input: Prototypical network, ECFP." in made.text("gains")


def test_bars_are_sorted_and_boxes_stand_at_64(made, folder):
    titles = re.findall(r"<title>(.*?)</title>", (folder / "report.html").read_text(encoding="utf-8"))
    assert any(re.match(r"Multitask network, profiles, CHEMBL1005.*: 0\.\d{3}$", t) for t in titles)
    assert "AUROC of 18 tasks with 64 measured compounds" in made.text("spread")
    chart = (folder / "report.html").read_text(encoding="utf-8").split('<svg class="chart gains"')[1]
    drawn = [float(v) for v in re.findall(r"<title>[^<]*\(n \d+\): ([+-]\d\.\d{3})", chart)]
    assert len(drawn) == 18
    assert all(a >= b for a, b in pairwise(drawn))


def test_near_duplicates_are_listed_and_roles_counted(made, folder):
    words = made.text("alike")
    assert "1 pair of tasks of different assays is nearly the same. Of 1 both are test tasks" in words
    assert "No such pair lets a method learn from the labels of a test task." in words
    listed = next(t for t in made.tables if t[0][0] == "Task" and t[0][1] == "and")
    assert len(listed) == 2
    assert "All 26 tasks, the 18 test tasks first" in words
    told = made.text("tasks")
    assert "26 tasks: 18 tested, 4 learned from, 2 set apart to stop by, 2 left out" in told
    assert "60 compounds, fewer than 96" in told
    assert "118 compounds, fewer than 96 and 32" in told
    tests = next(t for t in made.tables if t[0] == ["Task", "Compounds", "Active", "Share"])
    tasks = pd.read_csv(folder / "tasks.csv")
    assert tests[1][0] == NASTY
    assert tests[1][1] == str(tasks["n_active"][0] + tasks["n_inactive"][0])


def test_costs_and_leak(made, folder):
    costs = next(t for t in made.tables if t[0][0] == "Method" and t[0][1] == "Features")
    assert ["Base rate, profiles", "993", "0.0", "2.0", "9,000", "0.2"] in costs
    leak = pd.read_csv(folder / "leak.csv")
    at = leak[(leak["metric"] == "auroc") & (leak["method"] == "rate-profiles") & (leak["size"] == 8)].iloc[0]
    shown = next(t for t in made.tables if t[0][:2] == ["AUROC", "Support"])
    row = next(r for r in shown if r[:2] == ["Base rate, profiles", "8"])
    assert row[2:] == ["0.540", "0.500", "+0.040 [+0.040, +0.040]", "18"]
    assert at["difference"] == pytest.approx(0.04)  # as the made-up wells have it
    assert "recognised the compound" in made.text("leak")


def test_the_page_fetches_nothing_and_data_cannot_act(made, folder):
    words = (folder / "report.html").read_text(encoding="utf-8")
    assert NASTY not in words
    assert "<b>" not in words
    assert "&lt;b&gt;&amp;" in words
    assert not [tag for tag, _ in made.tags if tag in ("script", "link", "iframe", "b")]
    assert not [a for _, a in made.tags if any(k.startswith("on") for k in a)]
    meta = next(a for tag, a in made.tags if tag == "meta" and "http-equiv" in a)
    assert meta["content"].startswith("default-src 'none'")
    assert not re.search(r"(src|href)=\"(https?:)?//", words)
    assert "Simulated data." in made.text()


@pytest.mark.parametrize(
    ("n_tasks", "sizes", "names", "leak"),
    [
        (1, (16,), ["logistic-profiles"], False),
        (1, (8, 16), ["logistic-profiles", "prototypes-profiles"], True),
        (3, (96,), ["rate-ecfp", "prototypes-ecfp"], False),
        (18, (8,), ["prototypes-profiles", "singletask-ecfp"], False),
    ],
)
def test_small_benchmarks(tmp_path, n_tasks, sizes, names, leak):
    write_folder(tmp_path, n_tasks=n_tasks, sizes=sizes, names=names, leak=leak)
    words = Page(page.write_page(tmp_path, config_of(names), dropped=lost().iloc[:0]).read_text(encoding="utf-8"))
    for value in ("nan", "None", "inf"):
        assert not re.search(rf"\b{value}\b", words.text())
    assert "Nothing was left out." in words.text("tasks")
    if n_tasks == 1:
        assert "With one task there is nothing to compare." in words.text("alike")
    if not leak:
        assert "Only compounds were drawn." in words.text("leak")
    told = words.text("gains")
    if names == ["logistic-profiles"]:
        assert "No method that learns from other assays was run." in told
        assert "nothing is better on average than logistic regression" in words.text()
        assert "One method alone cannot be compared." in words.text("tests")
    elif "singletask-ecfp" in names:
        assert "was not run on the same input" in told
    else:
        assert "The reference method ‘singletask’, which sees no other assay, was not run" in told


def test_too_few_tasks_are_said_to_be_too_few():
    labels = {"a": "A, x", "logistic": "L, x"}
    methods = [{"name": f"{m}-x", "method": m, "label": label} for m, label in labels.items()]
    row = {"tasks": "all", "size": 8, "n_tasks": 3, "auroc_low": 0.55, "auroc_high": 0.7}
    table = pd.DataFrame([row | {"method": "a-x", "auroc": 0.6}, row | {"method": "logistic-x", "auroc": 0.58}])
    pair = {"metric": "auroc", "size": 8, "method": "a-x", "other": "logistic-x", "n_tasks": 3}
    for p, code in ((np.nan, "untested"), (0.2, "noise"), (0.01, "sure")):
        compared = pd.DataFrame([pair | {"p_value": p, "p_holm": p}])
        found = headline(table, compared, methods)
        assert found["rows"][0]["verdict"][0] == code
        assert found["told"][0].startswith("With 8 measured compounds A, x leads: mean AUROC 0.600 (95 % interval 0.5")
        assert "logistic regression reaches 0.580" in found["told"][0]
        assert ("may be noise" in found["told"][-1]) == (code == "noise")
    guess = headline(table.assign(auroc_low=0.49), compared, methods)
    assert guess["rows"][0]["verdict"][0] == "guessing"


def test_names_that_look_like_numbers_or_nothing_stay(tmp_path):
    names = ["logistic-profiles", "prototypes-profiles"]
    write_folder(tmp_path, n_tasks=3, sizes=(8,), names=names, leak=False)
    for file in ("tasks", "task_means"):
        table = pd.read_csv(tmp_path / f"{file}.csv", keep_default_na=False)
        other = {t: n for t, n in zip(pd.unique(table["task"]), ("007", "NA", "1e5"), strict=False)}
        write_table(tmp_path / f"{file}.csv", table.assign(task=table["task"].replace(other)))
    overlap = pd.DataFrame(columns=["task_a", "task_b", "same_assay", "n_a", "n_b", "n_both", "jaccard", "n_equal",
                                    "equal_share", "equal_jaccard", "hits_iou"])  # fmt: skip
    write_table(tmp_path / "overlap.parquet", overlap)
    found = Page(page.write_page(tmp_path, config_of(names), dropped=lost()).read_text(encoding="utf-8"))
    tests = next(t for t in found.tables if t[0] == ["Task", "Compounds", "Active", "Share"])
    assert [row[0] for row in tests[1:]] == ["007", "NA", "1e5"]


def test_an_alias_shows_its_method(tmp_path):
    names = ["published-profiles", "logistic-profiles+embedding"]
    write_folder(tmp_path, n_tasks=3, sizes=(8,), names=names, leak=False)
    config = config_of(names)
    config.fewshot.methods["published"] = {"method": "maml", "preset": "fslcp"}
    words = Page(page.write_page(tmp_path, config, dropped=lost()).read_text(encoding="utf-8")).text()
    assert "MAML (published), profiles" in words
    assert "Logistic regression, profiles + embedding" in words


def test_the_map_takes_sixty_tasks_tests_first():
    names = [f"t{i}" for i in range(80)]
    tasks = pd.DataFrame({"task": names, "role": ["train"] * 70 + ["test"] * 10, "n_active": 30, "n_inactive": 30})
    pair = {"same_assay": False, "n_a": 60, "n_b": 60, "n_both": 40, "jaccard": 0.5, "n_equal": 40, "equal_share": 0.67,
            "equal_jaccard": 0.5, "hits_iou": 0.5}  # fmt: skip
    overlap = pd.DataFrame([{"task_a": "t69", "task_b": "t75"} | pair])
    found = overlap_facts(overlap, tasks)
    assert found["map"]["tasks"][:11] == [*names[70:], "t69"]
    assert len(found["map"]["tasks"]) == 60
    at = found["map"]["tasks"].index
    assert found["map"]["jaccard"][at("t69"), at("t75")] == found["map"]["equal"][at("t75"), at("t69")] == 0.5
    assert found["map"]["jaccard"].sum() == 1.0
    assert found["n_alike"] == found["n_told"] == 1  # t69 is learned from


def test_columns_are_those_that_the_benchmark_writes():
    """The made-up tasks.csv above has the columns of the real one."""
    some = labels_of(6)
    table = split_tasks(some, task_overlap(some, top=100, least=0.0), min_compounds=50, share=(0.1, 0.9))
    assert list(table) == ["task", "role", "reason", "n_active", "n_inactive"]
