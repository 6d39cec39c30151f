"""A run folder as the pipeline leaves it: checked plates, two splits, seven methods, 26 tasks and two hit lists."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from phenohit.config import ChecksConfig, EvaluateConfig, Step
from phenohit.data.dropped import dropped
from phenohit.data.labels import Labels
from phenohit.data.predictions import Predictions
from phenohit.data.profiles import Profiles
from phenohit.evaluate.assays import SideBySide
from phenohit.evaluate.calibration import Training, calibration
from phenohit.evaluate.compare import compare
from phenohit.evaluate.entries import Entries
from phenohit.evaluate.replay import replay
from phenohit.evaluate.roc_pairs import choose_pairs, pair_tests
from phenohit.evaluate.scores import score_table
from phenohit.evaluate.splits import Folds
from phenohit.evaluate.summary import summarise
from phenohit.files import read_table, write_json, write_table, write_text
from phenohit.labels.overlap import label_statistics, task_overlap
from phenohit.labels.rules import FATES, REASONS, USED
from phenohit.profiles.checks import Checks, check_plates
from phenohit.profiles.checks_map import COLUMNS as MAP_COLUMNS
from phenohit.profiles.steps import do_steps
from phenohit.report.build import build_report

N = 640
ACIDS = """
    c1ccc(Cl)cc1 c1ccc2ncccc2c1 c1cc(F)cc(F)c1 c1cnc2[nH]ccc2c1 c1ccc(S(N)(=O)=O)cc1 Cc1ccc(OC)c(OC)c1
    c1csc(-c2ccccn2)n1 CN1CCN(c2ccccc2)CC1 c1ccc(-c2nc(N)ncc2)cc1 C1CCC(O)CC1 c1ccc(Br)c(C(F)(F)F)c1
    COc1cc2ncnc(Nc3cccc(Cl)c3)c2cc1 c1ccc2c(c1)oc(=O)cc2C CC(C)(C)c1ccc(O)cc1 c1c[nH]c(=O)n(C)c1=O
    Cn1cnc2c1c(=O)n(C)cn2
"""
AMINES = """
    N1CCOCC1 NCc1ccccc1 Nc1ccc(F)cc1 NCCN(C)C N1CCN(C)CC1 Nc1nccs1 NC1CCCCC1 Nc1ccc2[nH]ncc2c1
    N[C@@H](C)c1ccccc1 NCCc1c[nH]c2ccccc12 Nc1ccc(N2CCOCC2)cc1 NS(=O)(=O)c1ccc(C)cc1 Nc1cccc(C#N)c1 N1CCC(O)CC1
    NOCC Nc1cc(C)on1 NCC(F)(F)F Nc1ccncc1 NC1CC1 Nc1ccc(Cl)c(Cl)c1
"""
LINKS = ["O=C({a}){b}", "O=C(C{a}){b}"]
# (name of the task, actives, inactives, AUROC aimed at by images, chemistry, cell count)
TASKS = [
    ("mitochondrial toxicity", 92, 311, 0.86, 0.66, 0.71),
    ("tubulin inhibitor", 61, 340, 0.95, 0.72, 0.83),
    ("DNA damage response", 74, 290, 0.83, 0.70, 0.62),
    ("cytotoxicity 48 h", 130, 300, 0.84, 0.60, 0.88),
    ("proteasome inhibitor", 26, 250, 0.94, 0.80, 0.80),
    ("glucocorticoid receptor", 43, 280, 0.80, 0.88, 0.51),
    ("HDAC inhibitor", 38, 260, 0.91, 0.85, 0.66),
    ("Aurora kinase B pIC50 6", 55, 240, 0.88, 0.81, 0.74),
    ("Aurora kinase B pIC50 7", 28, 240, 0.90, 0.84, 0.73),
    ("Na/K-ATPase", 19, 300, 0.89, 0.62, 0.85),
    ("hERG pIC50 5", 95, 200, 0.58, 0.79, 0.52),
    ("hERG pIC50 6", 33, 262, 0.55, 0.83, 0.50),
    ("CYP3A4 inhibition", 110, 210, 0.56, 0.74, 0.53),
    ("BSEP inhibition", 48, 170, 0.64, 0.72, 0.57),
    ("aqueous solubility", 140, 140, 0.52, 0.81, 0.50),
    ("phospholipidosis", 35, 160, 0.87, 0.75, 0.60),
    ("beta-2 adrenoceptor", 24, 210, 0.53, 0.86, 0.51),
    ("5-HT2A", 41, 190, 0.49, 0.84, 0.47),
    ("ER stress ATF4 reporter", 22, 180, 0.76, 0.58, 0.72),
    ("p53 activation", 30, 210, 0.81, 0.63, 0.55),
    ("NF-kB reporter", 27, 240, 0.68, 0.61, 0.59),
    ("autophagy LC3", 17, 160, 0.74, 0.57, 0.54),
    ("carbonic anhydrase II", 12, 90, 0.55, 0.90, 0.50),
    ("tight junction TEER", 10, 24, 0.62, 0.55, 0.60),
    ("orphan GPCR 12", 10, 11, 0.66, 0.60, 0.52),
    ("single fold only", 10, 30, 0.60, 0.60, 0.50),
]
METHODS = {
    "forest-profiles": 0.0,
    "network-profiles": -0.012,
    "forest-ecfp": 0.0,
    "network-ecfp": -0.02,
    "logistic-cell_count": 0.0,
    "rate-plate": 0.0,
    "rate-base": 0.0,
}


def real_smiles() -> list[str]:
    """More than 600 distinct amides, all valid."""
    return [link.format(a=a, b=b) for link, a, b in product(LINKS, ACIDS.split(), AMINES.split())][:N]


def make_labels(rng: np.random.Generator, tasks: list[tuple] | None = None) -> Labels:
    """Labels with the counts of TASKS; the last task has all its actives in one place."""
    tasks = TASKS if tasks is None else tasks
    Y = sparse.lil_matrix((N, len(tasks)), dtype=np.float32)
    rows, values, columns = [], [], []
    for t, (_, n_active, n_inactive, *_rest) in enumerate(tasks):
        chosen = rng.permutation(N)[: n_active + n_inactive]
        rows.append(chosen)
        columns.append(np.full(len(chosen), t))
        values.append(np.r_[np.ones(n_active), np.zeros(n_inactive)])
    Y = sparse.csr_matrix(
        (np.concatenate(values).astype(np.float32), (np.concatenate(rows), np.concatenate(columns))), (N, len(tasks))
    )
    names = [t[0] for t in tasks]
    table = pd.DataFrame({"task": names, "assay": [n.split(" pIC50 ")[0] for n in names], "kind": "binary"})
    table["threshold"] = [float(n.split(" pIC50 ")[1]) if " pIC50 " in n else np.nan for n in names]
    table["kind"] = np.where(table["threshold"].notna(), "threshold", "binary")
    return Labels(Y, pd.DataFrame({"compound": [f"K{i:04d}" for i in range(N)]}), table)


def make_predictions(
    labels: Labels, method: str, fold: np.ndarray, rng: np.random.Generator, tasks: list[tuple], penalty: float
) -> Predictions:
    """Scores whose expected AUROC is what TASKS says: two normal distributions at the right distance."""
    from scipy.special import expit, ndtri

    source = method.split("-")[1]
    column = {"profiles": 3, "ecfp": 4, "cell_count": 5}.get(source)
    aim = np.array([t[column] if column else 0.5 for t in tasks]) + METHODS.get(method, 0.0) - penalty * (column == 3)
    if method == "rate-plate":
        aim = np.full(len(tasks), 0.56)
    shift = np.sqrt(2) * ndtri(np.clip(aim, 0.4, 0.98))
    dense = labels.Y.toarray() * shift + rng.normal(size=labels.Y.shape)
    if method == "rate-base":
        dense = np.zeros_like(dense)
    score = expit(dense).astype(np.float32)
    return Predictions(
        score, labels.compounds["compound"].to_numpy(object), labels.task_names, method, fold=fold.astype(np.int32)
    )


def write_split(
    folder: Path,
    name: str,
    kind: str,
    labels: Labels,
    tasks: list[tuple],
    penalty: float,
    methods: list[str],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    k = 3
    fold = rng.integers(0, k, N)
    # All actives of the task 'single fold only' lie where no inactive is: its AUROC is undefined.
    last = labels.Y[:, len(tasks) - 1].tocoo()
    fold[last.row] = np.where(last.data > 0, 0, 1)
    part = np.zeros((N, k), dtype=np.int8)
    for s in range(k):
        part[:, s] = np.where(fold == s, 2, np.where(rng.random(N) < 0.1, 1, 0))
    here = folder / "splits" / name
    rows = pd.DataFrame({"compound": labels.compounds["compound"], "group": np.arange(N), "plate": ""})
    folds = Folds(part, rows, [str(s) for s in range(k)], list(range(k)), kind)
    folds.save(here / "folds.parquet")
    tables, summary, probabilities, campaigns = {}, {}, [], []
    entries = {}
    training = Training.of(labels, folds)
    beside = SideBySide(labels, EvaluateConfig(bootstrap=60, chance=50))
    for method in methods:
        scored = make_predictions(labels, method, fold, rng, tasks, penalty)
        table = score_table(labels, scored, bootstrap=60, chance=200)
        summary[method] = summarise(table, labels, scored, chance=50)
        model, source = method.split("-")
        whose = {"split": name, "method": method, "model": model, "input": source}
        tables[method] = table.assign(**whose)
        probabilities.append(calibration(labels, scored, training=training).assign(**whose))
        entries[method] = Entries.of(labels, scored)
        beside.add(method, entries[method], table, model=model, source=source)
    for method, mine in entries.items():
        model, source = method.split("-")
        other = f"{model}-ecfp" if source == "profiles" and f"{model}-ecfp" in methods else ""
        replayed = replay(mine, entries.get(other), np.arange(N) // 2, reference=other, top=100, replicates=40)
        campaigns.append(replayed.assign(split=name, method=method, model=model, input=source))
    write_table(here / "metrics.parquet", pd.concat(tables.values(), ignore_index=True))
    write_json(here / "summary.json", summary)
    write_table(here / "compare.csv", compare(tables))
    inputs = {method: method.split("-")[1] for method in methods}
    pairs = choose_pairs(inputs, {method: table["auroc"].mean() for method, table in tables.items()})
    tested = pair_tests(pairs, entries.__getitem__, split=name, repeat={}, permutations=99)
    write_table(here / "roc_tests.csv", tested)
    write_table(here / "calibration.parquet", pd.concat(probabilities, ignore_index=True))
    for ending in ("parquet", "csv"):
        write_table(here / f"enrichment.{ending}", pd.concat(campaigns, ignore_index=True))
    write_table(here / "leaks.csv", leak_table(k, name))
    beside.save(here)


def leak_table(k: int, name: str) -> pd.DataFrame:
    rows = []
    for s in range(k):
        rows += [
            (s, "shared compound", 0, 640, True, ""),
            (s, "shared skeleton", 0, 640, True, ""),
            (s, "shared series", 0, 212, True, ""),
            (s, "empty part", 0, 3, True, ""),
            (
                s,
                "shared scaffold",
                14 + s,
                180,
                None,
                f"{14 + s} of 180 scaffolds occur in both, e.g. 'c1ccccc1', 'c1ccc2ncccc2c1'",
            ),
            (s, "shared plate", 12, 12, None, "every plate has test and training wells"),
            (
                s,
                "largest similarity",
                0.68 + s / 100 + (0.05 if name == "compound" else 0),
                213,
                True if name == "series" else None,
                "0 of 213 different test fingerprints have a fitted neighbour at >= 0.7; nearest: 'K7' ~ 'K9' (0.680)",
            ),
            (s, "sibling tasks", 4, 26, None, "Aurora kinase B (2 tasks), hERG (2 tasks)"),
        ]
    return pd.DataFrame(rows, columns=["split", "check", "value", "n", "passed", "detail"])


def write_progress(folder: Path, n_steps: int = 300, n_burn: int = 100, n_chains: int = 2, n_entries: int = 12) -> None:
    """Write what a sampler would tell: errors that fall, precisions, entries of which the first wanders."""
    rng, step = np.random.default_rng(5), np.arange(1, n_steps + 1)
    names = ["held-out RMSE", "held-out AUC", "link precision", "noise precision"]
    names += [f"K{i:04d} in {TASKS[i % len(TASKS)][0]}" for i in range(n_entries)]
    parts, rows = [], []
    for j, what in enumerate(names):
        for chain in range(n_chains):
            value = rng.normal(j, 1, n_steps) + 30 * np.exp(-step / 10)
            if j == 4:
                value += 3 * chain
            columns = {"series": chain + 1, "step": step, "what": what, "value": value.astype(np.float32)}
            parts.append(pd.DataFrame(columns | {"used": step > n_burn}))
        if j > 1:
            rows.append((what, 1.62 if j == 4 else 1.0 + j / 1000, 3.0 if j == 4 else 150.0 + j))
    write_table(folder / "models/final/progress.parquet", pd.concat(parts, ignore_index=True))
    write_table(folder / "models/final/diagnostics.csv", pd.DataFrame(rows, columns=["what", "rhat", "ess"]))


def hits_table(task: str, seed: int, smiles: list[str], n: int = 400, n_picked: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    order = rng.permutation(N)[:n]
    score = np.sort(rng.beta(2, 5, n))[::-1]
    picked = np.zeros(n, dtype=bool)
    picked[np.sort(rng.permutation(150)[:n_picked])] = True
    known = [smiles[i] for i in rng.permutation(N)[:40]]
    near = rng.integers(0, 40, n)
    similarity = np.where(np.arange(n) % 17 == 0, np.nan, rng.uniform(0.2, 0.85, n)).astype(np.float32)
    new = np.array([None, True, False], dtype=object)[rng.integers(0, 3, n)]
    text = [
        f"Score {s:.2f}, top {100 * (i + 1) / n:.1f} % of {n} candidates; task AUROC 0.86 [0.80, 0.91] (chance 0.5, "
        f"cell count 0.71); nearest known active is {v:.2f} similar: new scaffold."
        for i, (s, v) in enumerate(zip(score, similarity, strict=True))
    ]
    return pd.DataFrame(
        {
            "task": task,
            "rank": np.arange(1, n + 1),
            "picked": picked,
            "pick_order": np.where(picked, np.cumsum(picked), 0),
            "compound": [f"K{i:04d}" for i in order],
            "compound_id": [f"PH-{i:06d}" for i in order],
            "smiles": [smiles[i] for i in order],
            "score": score.astype(np.float32),
            "percentile": 100 * (1 - np.arange(1, n + 1) / n),
            "pains": np.where(np.arange(n) < 200, "", "not checked"),
            "series": order // 4,
            "cluster": np.where(np.arange(n) < 150, np.arange(n) // 3, -1),
            "scaffold": "c1ccccc1",
            "new_scaffold": new,
            "nearest_active": [f"PH-{j:06d}" for j in near],
            "nearest_active_smiles": [known[j] for j in near],
            "nearest_similarity": similarity,
            "plate": [f"BR0011{i % 12:04d}" for i in order],
            "well": [f"{'ABCDEFGH'[i % 8]}{i % 24 + 1:02d}" for i in order],
            "reason": text,
        }
    )


def write_hits(folder: Path, table: pd.DataFrame, slug: str) -> None:
    here = folder / "hits" / slug
    write_table(here / "hits.parquet", table)
    for name in ("hits.csv", "picklist.csv", "echo.csv"):
        write_table(here / name, table.head(3))
    write_text(here / "hits.sdf", "$$$$\n")
    write_json(
        here / "summary.json",
        {
            "task": str(table["task"].iloc[0]),
            "n_candidates": len(table),
            "n_known_actives": 92,
            "n_pains": 7,
            "warnings": [],
            "notes": ["Source wells are those of the imaged plates: replace them where the store's own differ."],
        },
    )


def dropped_table() -> pd.DataFrame:
    parts = [
        dropped("read profiles", "feature", ["Cells_Empty", "Nuclei_Empty"], "no value in any well"),
        dropped(
            "read profiles",
            "well",
            [f"BR00117035 {r}{c:02d}" for r in "AB" for c in range(1, 11)],
            [f"'Cells_Count' is infinite in row {i}" for i in range(20)],
        ),
        dropped(
            "identify",
            "compound",
            [f"row {i}" for i in range(8)],
            [f"SMILES 'C1CC({i}' cannot be read" for i in range(8)],
        ),
        dropped(
            "join labels",
            "activity",
            [f"CHEMBL{4_000 + i}" for i in range(180)],
            "compound is labelled but was not imaged",
        ),
        dropped(
            "join labels", "activity", [f"CHEMBL{9_000 + i}" for i in range(24)], "active and inactive equally often"
        ),
        dropped(
            "choose tasks",
            "task",
            [f"assay {i}" for i in range(66)],
            [f"{i % 10} active, at least 10 are needed" for i in range(66)],
        ),
    ]
    return pd.concat(parts, ignore_index=True)


PLATES, ROWS, COLUMNS = 14, 8, 12
N_CONTROLS, N_POSITIVE = 16, 2


def simulated_wells(n_plates: int = PLATES) -> Profiles:
    """96-well plates in three batches: plate 2 has a gradient, 4 a bad control, 7 few cells, 11 no controls."""
    rng, truth, n = np.random.default_rng(0), np.random.default_rng(1), ROWS * COLUMNS
    row, column = np.divmod(np.arange(n), COLUMNS)
    names = [f"{chr(65 + r)}{c + 1:02d}" for r, c in zip(row, column, strict=True)]
    layouts = [rng.permutation(n) for _ in range(2)]
    n_treated = n - N_CONTROLS - N_POSITIVE
    effects = truth.normal(size=(2, n_treated, 20)) * (truth.random((2, n_treated, 1)) < 0.6) * 1.5
    X, tables = [], []
    for p in range(n_plates):
        order = layouts[p % 2]
        controls, positive, treated = np.split(order, [N_CONTROLS, N_CONTROLS + N_POSITIVE])
        values = rng.normal(size=(n, 20)) + rng.normal(size=20) * 0.5
        values[treated] += effects[p % 2]
        cells = rng.poisson(820 - 20 * (p % 4), n).astype(float)
        cells[positive] *= 0.3
        kind = np.full(n, "trt", dtype=object)
        kind[controls], kind[positive] = "negcon", "poscon"
        if p == 2:
            cells *= 1.25 - 0.6 * column / COLUMNS
            values += np.outer(column - 5.5, np.ones(20)) * 0.5
        if p == 4:
            values[controls[0]] += 12
            cells[controls[1]] = 40
        if p == 7:
            cells *= 0.3
        if p == 11:
            kind[controls] = "empty"
        count = np.round(cells).astype(int).astype(str).astype(object)
        count[treated[:3]] = "" if p == 4 else count[treated[:3]]
        compound = np.full(n, "DMSO", dtype=object)
        compound[treated] = [f"PH-{1000 * (p % 2) + i:06d}" for i in range(n_treated)]
        columns = {"Plate": f"BR{117000 + p}", "Batch": f"batch {5 * p // n_plates}", "Well": names, "pert_type": kind}
        columns |= {"compound_id": compound, "concentration_uM": np.where(kind == "trt", "5", ""), "cell_count": count}
        X.append(values)
        tables.append(pd.DataFrame({f"Metadata_{name}": value for name, value in columns.items()}))
    table = pd.concat(tables, ignore_index=True).astype(str)
    return Profiles(np.vstack(X).astype(np.float32), table, [f"Cells_{i}" for i in range(20)])


def simulated_checks(n_plates: int = PLATES) -> Checks:
    """Check the simulated plates; mean average precision is made up, as it needs an extra."""
    raw = simulated_wells(n_plates)
    control = raw.rows["Metadata_pert_type"].eq("negcon")
    known = control.groupby(raw.rows["Metadata_Plate"]).transform("any").to_numpy()
    after, _ = do_steps(raw.take(known), [Step("normalise", "standardize")])
    checks = check_plates(raw, after, ChecksConfig())
    table = checks.replicates[["compound_id", "concentration", "n_wells"]].copy()
    table["map"] = checks.replicates["median_r"].clip(0, 1).to_numpy()
    table["normalised_map"] = table["map"]
    table["p_value"] = table["corrected_p_value"] = np.where(table["map"] > 0.3, 0.001, 0.4)
    return replace(checks, map=table[MAP_COLUMNS])


def write_checks(folder: Path, checks: Checks) -> None:
    checks.save(folder / "checks")
    write_table(folder / "checks" / "flags.csv", checks.flags)


def write_statistics(folder: Path, labels: Labels) -> None:
    """Write what the report shows of labels: statistics, fates of records, overlap of tasks."""
    rng = np.random.default_rng(3)
    n = rng.geometric(0.7, 3000).clip(1, 14)
    low = rng.normal(6, 1, 3000)
    values = pd.DataFrame({"n": n, "low": low, "high": low + np.where(n > 1, rng.exponential(0.3, 3000), 0)})
    for name, table in label_statistics(labels, values).items():
        write_table(folder / "statistics" / f"{name}.parquet", table)
    write_table(folder / "tasks.overlap.parquet", task_overlap(labels))
    counts = {"value": 4821, "bound": 512, "comment": 221, "assay": 61200, "type": 40231, "not imaged": 182013}
    fates = [("screens/chembl.db", f, REASONS[f], FATES.index(f) < USED, counts[f]) for f in FATES if f in counts]
    fates.append(("own.csv", "value", REASONS["value"], True, 300))
    write_table(folder / "labels.fates.csv", pd.DataFrame(fates, columns=["source", "fate", "reason", "used", "n"]))


CONFIG = """name: Demo screen
out: run
simulated: true
profiles:
  path: simulated_profiles.parquet
  unit: compound
models:
  forest: {n_trees: 200}
  network: {width: 512, depth: 2}
splits:
- name: series
  kind: series
  folds: 3
- name: compound
  kind: compound
  folds: 3
seed: 0
"""


def write_run(
    folder: Path,
    *,
    tasks: list[tuple] | None = None,
    simulated: bool = True,
    methods: list[str] | None = None,
    hits: bool = True,
) -> Path:
    """Write everything the report reads."""
    rng = np.random.default_rng(7)
    tasks = TASKS if tasks is None else tasks
    labels, smiles = make_labels(rng, tasks), real_smiles()
    labels = Labels(labels.Y, labels.compounds, pd.concat([labels.tasks, labels.counts()], axis=1))
    labels.save(folder / "labels.parquet")
    keys = labels.compounds["compound"].to_numpy(object)
    compounds = pd.DataFrame(
        {"compound": keys, "compound_id": keys, "smiles": smiles, "inchikey": keys, "skeleton": keys}
    )
    compounds["series_0.7"], compounds["scaffold"], compounds["n_wells"] = np.arange(N) // 3, "c1ccccc1", 4
    write_table(folder / "compounds.parquet", compounds)
    Profiles(
        rng.normal(size=(N, 5)).astype(np.float32),
        pd.DataFrame({"Metadata_compound": keys}),
        [f"Cells_{i}" for i in range(5)],
    ).save(folder / "profiles.parquet")
    write_checks(folder, simulated_checks())
    write_statistics(folder, labels)
    write_text(folder / "config.yaml", CONFIG)
    dropped_table().to_csv(folder / "dropped.csv", index=False)
    write_table(
        folder / "match.csv",
        pd.DataFrame({"source": ["assays.csv"], "pass": ["full InChIKey"], "matched": [598], "not_matched": [180]}),
    )
    for i, (name, kind) in enumerate([("series", "series (ECFP6 Tanimoto >= 0.7)"), ("compound", "compound")]):
        write_split(folder, name, kind, labels, tasks, 0.03 * (i == 0), methods or list(METHODS), seed=i)
    write_progress(folder)
    if hits:
        for i, task in enumerate([tasks[0][0], tasks[1][0]]):
            write_hits(folder, hits_table(task, i, smiles), f"task-{i}")
    write_json(
        folder / "manifest.json",
        {
            "phenohit_run": 1,
            "name": "Demo screen, U2OS, 640 compounds",
            "simulated": simulated,
            "seed": 0,
            "started": "2026-11-21T08:00:00+00:00",
            "platform": "Linux-6.1-x86_64",
            "peak_memory_gib": 1.42,
            "versions": {
                "phenohit": "0.1.0",
                "python": "3.12.4",
                "numpy": "2.3.1",
                "torch": "2.9.0",
                "rdkit": "2026.09.1",
            },
            "counts": {"data": {"wells": 2560, "compounds": 640, "seconds": 1.5}, "labels": {"tasks": 26}},
            "steps": {
                "read": {"seconds": 2.1},
                "labels": {"seconds": 0.8},
                "chemistry": {"seconds": 6.4},
                **{
                    f"fit/{split}/{m}/{k}": {"seconds": 3.0 + 4 * m.startswith("network")}
                    for split in ("series", "compound")
                    for m in METHODS
                    for k in range(3)
                },
                "evaluate/series": {"seconds": 4.2},
                "hits": {"seconds": 3.3},
            },
        },
    )
    return folder


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def report(run_folder: Path) -> Path:
    """Path of the report of that run."""
    return build_report(run_folder)


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "</script><script>alert(3)</script>",
    "' onmouseover='alert(4)",
    "{{ 7 * 7 }}",
    "<!--",
    "<svg/onload=alert(5)>",
    "javascript:alert(6)",
    "%{x} <b>bold</b> &amp;",
]


@pytest.fixture(scope="session")
def hostile_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which every name that a user can give is an attack."""
    folder = tmp_path_factory.mktemp("hostile")
    named = [(HOSTILE[i % len(HOSTILE)] + f" {i}", *task[1:]) for i, task in enumerate(TASKS[:12])]
    write_run(folder, tasks=named, simulated=False)
    spread_hostility(folder)
    return build_report(folder)


def spread_hostility(folder: Path) -> None:
    for path in folder.glob("hits/*/hits.parquet"):
        table, _ = read_table(path)
        for column in ("compound_id", "compound", "nearest_active", "reason", "plate", "well", "pains", "smiles"):
            table[column] = [HOSTILE[i % len(HOSTILE)] for i in range(len(table))]
        write_table(path, table)
        write_json(
            path.with_name("summary.json"), {"task": table["task"].iloc[0], "notes": HOSTILE, "warnings": HOSTILE}
        )
    for path in [folder / "dropped.csv", folder / "match.csv", *folder.glob("splits/*/leaks.csv")]:
        text = path.read_text(encoding="utf-8")
        columns = "stage,what,id,reason" if path.name == "dropped.csv" else None
        if columns:
            cells = [[h.replace('"', '""') for h in HOSTILE[i:] + HOSTILE[:i]][:4] for i in range(len(HOSTILE))]
            path.write_text(
                columns + "\n" + "".join(",".join(f'"{c}"' for c in row) + "\n" for row in cells), encoding="utf-8"
            )
        else:
            path.write_text(
                text.replace("shared compound", HOSTILE[2]).replace("assays.csv", HOSTILE[0]), encoding="utf-8"
            )
    spread_hostility_to_plates_and_labels(folder)
    for name in ("progress.parquet", "diagnostics.csv"):
        path = folder / "models" / "final" / name
        table = read_table(path)[0] if name.endswith("parquet") else pd.read_csv(path)
        place = pd.factorize(table["what"])[0]
        write_table(path, table.assign(what=[HOSTILE[i % len(HOSTILE)] + f" in {i}" for i in place]))
    write_json(folder / "hits" / "plan.json", {"model": HOSTILE[0], "input": HOSTILE[1], "tasks": HOSTILE})
    for path in folder.glob("splits/*/calibration.parquet"):
        table, _ = read_table(path)
        words = {"grouped_by": HOSTILE[1], "reference": HOSTILE[0]}
        skipped = table["method"].where(table["method"] == "rate-plate", "").replace("rate-plate", HOSTILE[2])
        write_table(path, table.assign(skipped=skipped, **words))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {
        "name": HOSTILE[2],
        "platform": HOSTILE[0],
        "versions": {HOSTILE[1]: HOSTILE[0]},
        "counts": {HOSTILE[0]: HOSTILE[1]},
    }
    write_json(folder / "manifest.json", manifest)
    (folder / "config.yaml").write_text("name: " + HOSTILE[2], encoding="utf-8")
    for path in folder.glob("splits/*/metrics.parquet"):
        table, _ = read_table(path)
        write_table(path, table.assign(split=HOSTILE[2], model=HOSTILE[0]))


def spread_hostility_to_plates_and_labels(folder: Path) -> None:
    named = {f"BR{117000 + p}": HOSTILE[p % len(HOSTILE)] + f" {p}" for p in range(PLATES)}
    free = ("batch", "rule", "rules", "text", "compound_id", "concentration", "target_type", "assay_type", "kind")
    for path in [*folder.glob("checks/*.parquet"), *folder.glob("statistics/*.parquet")]:
        table, meta = read_table(path)
        if "plate" in table:
            table["plate"] = table["plate"].map(named)
        for column in [c for c in free if c in table and path.name != "cells.parquet"]:
            table[column] = [HOSTILE[i % len(HOSTILE)] for i in range(len(table))]
        write_table(path, table, meta=meta)
    tasks, _ = read_table(folder / "labels.tasks.parquet")
    hostile = [HOSTILE[i % len(HOSTILE)] for i in range(len(tasks))]
    write_table(folder / "labels.tasks.parquet", tasks.assign(target_type=hostile, assay_type=hostile, kind=hostile))
    fates = pd.read_csv(folder / "labels.fates.csv")
    for column in ("source", "fate", "reason"):
        fates[column] = [HOSTILE[i % len(HOSTILE)] for i in range(len(fates))]
    write_table(folder / "labels.fates.csv", fates)


@pytest.fixture
def checks() -> Checks:
    """Plate checks of the simulated wells."""
    return simulated_checks()


@pytest.fixture(scope="session")
def attacks() -> list[str]:
    return HOSTILE
