"""What the evaluate step does for one split: every method per task, against chance, chemistry and each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.config import SplitConfig
from phenohit.data.predictions import Predictions
from phenohit.evaluate import assays
from phenohit.evaluate.calibration import Training, calibration
from phenohit.evaluate.compare import compare
from phenohit.evaluate.entries import Entries
from phenohit.evaluate.replay import replay
from phenohit.evaluate.roc_pairs import choose_pairs, pair_tests
from phenohit.evaluate.scores import score_table
from phenohit.evaluate.summary import summarise
from phenohit.files import write_json, write_table
from phenohit.progress import track
from phenohit.study import Method, Study

__all__ = ["OUTPUTS", "evaluate_split", "is_repeated"]

# What `evaluate_split` writes into the folder of a split.
OUTPUTS = (
    "metrics.parquet",
    "summary.json",
    "compare.csv",
    "calibration.parquet",
    "enrichment.parquet",
    "enrichment.csv",
    "roc_tests.csv",
    *assays.OUTPUTS,
)


def evaluate_split(study: Study, split: str, folder: str) -> None:
    """Score every method on the held-out labels of a split and write `OUTPUTS`.

    Parameters
    ----------
    study : Study
    split : str
        Name of the split.
    folder : str
        Of the split, inside the run folder; holds ``predictions/<method>.parquet``.
    """
    how, seed, labels = study.config.evaluate, study.config.seed, study.labels
    tables, summaries, probabilities, campaigns = {}, {}, [], []
    training = Training.of(labels, study.folds(split, "profiles"))
    series = study.compounds["series"].to_numpy()
    repeated = is_repeated(dict(study.splits())[split])
    beside = assays.SideBySide(labels, how, seed, repeated=repeated)
    for method in track(study.methods, f"evaluate on {split}"):
        scored, entries = _read(study, folder, method)
        table = score_table(
            labels, entries, bootstrap=how.bootstrap, confidence=how.confidence, repeated=repeated, seed=seed
        )
        summaries[method.name] = summarise(
            table, labels, entries, chance=how.chance, simm_min=how.simm_min, confidence=how.confidence, seed=seed
        )
        whose = {"split": split, "method": method.name, "model": method.model, "input": method.input}
        tables[method.name] = table.assign(**whose)
        probabilities.append(calibration(labels, scored, entries=entries, training=training).assign(**whose))
        campaigns.append(_replayed(study, folder, method, entries, series).assign(**whose))
        beside.add(method.name, entries, table, model=method.model, source=method.input)
    write_table(study.run.path(folder, "metrics.parquet"), pd.concat(tables.values(), ignore_index=True))
    write_json(study.run.path(folder, "summary.json"), summaries)
    write_table(study.run.path(folder, "compare.csv"), compare(tables))
    write_table(study.run.path(folder, "calibration.parquet"), pd.concat(probabilities, ignore_index=True))
    replayed = pd.concat(campaigns, ignore_index=True)
    for name in ("enrichment.parquet", "enrichment.csv"):
        write_table(study.run.path(folder, name), replayed)
    write_table(study.run.path(folder, "roc_tests.csv"), _roc_tests(study, split, folder, tables))
    beside.save(study.run.path(folder))


def is_repeated(split: SplitConfig) -> bool:
    """Whether the folds of a split are hold-outs drawn anew, so that a compound is tested several times."""
    return split.folds <= 1 and split.repeats > 1


def _roc_tests(study: Study, split: str, folder: str, tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Test a few pairs of methods task by task; with 0 permutations none."""
    how = study.config.evaluate
    methods = {m.name: m for m in study.methods}
    mean = {name: float(np.nan_to_num(table["auroc"].mean(), nan=-1.0)) for name, table in tables.items()}
    pairs = choose_pairs({m.name: m.input for m in study.methods}, mean) if how.roc_permutations else []
    repeat = {
        name: int(table["interval_repeat"].iloc[0])
        for name, table in tables.items()
        if "interval_repeat" in table and len(table)
    }
    return pair_tests(
        pairs, lambda name: _read(study, folder, methods[name])[1],
        split=split, repeat=repeat, permutations=how.roc_permutations, seed=study.config.seed,
    )  # fmt: skip


def _read(study: Study, folder: str, method: Method) -> tuple[Predictions, Entries]:
    path: Path = study.run.path(folder, "predictions", f"{method.name}.parquet")
    scored = Predictions.load(path)
    return scored, Entries.of(study.labels, scored)


def _replayed(study: Study, folder: str, method: Method, entries: Entries, series: NDArray[np.integer]) -> pd.DataFrame:
    """Replay a campaign, against the same model on chemistry where the method sees images."""
    alike = [m for m in study.methods if (m.model, m.input) == (method.model, "ecfp") and method.input == "profiles"]
    other = _read(study, folder, alike[0])[1] if alike else None
    how = study.config.evaluate
    return replay(
        entries, other, series, reference=alike[0].name if alike else "", top=study.config.hits.n,
        replicates=how.bootstrap, confidence=how.confidence, seed=study.config.seed,
    )  # fmt: skip
