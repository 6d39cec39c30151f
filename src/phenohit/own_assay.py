"""A user's own assay with a few measured compounds: what can be predicted now, by which method."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from phenohit.config import Config, FewShotConfig
from phenohit.data.labels import Labels
from phenohit.errors import ConfigError, FileError, LabelError, RunError
from phenohit.fewshot import find_method
from phenohit.fewshot.choose import Estimate, estimate, out_of_support
from phenohit.fewshot.contract import Method, check_scores
from phenohit.fewshot.episodes import Episodes, draw_episodes
from phenohit.fewshot.tasks import split_tasks
from phenohit.files import read_json, write_json, write_table, write_text
from phenohit.labels.overlap import task_overlap
from phenohit.models.contract import cores
from phenohit.profiles.aggregate import to_compounds
from phenohit.progress import track
from phenohit.review.results import Columns, Results, read_results
from phenohit.runs import Run
from phenohit.settings import read_config
from phenohit.studies.fslcp import Bench
from phenohit.study import Study

__all__ = ["METHODS", "Answer", "command", "predict_assay"]

log = logging.getLogger("phenohit")

METHODS = ("rate", "neighbours", "logistic", "forest", "multitask", "macau")
FOLDER = "fewshot-assays"
_LEAST = 8  # measured compounds
_SLICE = 4096  # compounds scored at a time


@dataclass(frozen=True, eq=False)
class Answer:
    """What a few labels allow.

    Attributes
    ----------
    estimate : Estimate
    apart : str
        What was kept apart when methods were judged: series, or compound where series are too few.
    n_active, n_inactive : int
        Measured compounds that were imaged.
    n_unjudged : int
        Measured compounds that methods were never judged by, their series being too large to be kept apart.
    n_left_out : int
        Things of the table that could not be used.
    folder : Path
        With ``predictions.csv``, ``methods.csv``, ``dropped.csv`` and ``summary.md``.
    """

    estimate: Estimate
    apart: str
    n_active: int
    n_inactive: int
    n_unjudged: int
    n_left_out: int
    folder: Path


def command(
    assay: str,
    run: str,
    out: str = "",
    methods: list[str] = [],  # noqa: B006
    draws: int = 100,
    id: str = "",
    smiles: str = "",
    inchikey: str = "",
    value: str = "",
    threshold: float | None = None,
) -> None:
    """Predict your own assay from a few measured compounds, with an honest estimate of how well.

    Every method learns from what the run knows of other assays, then from your compounds. They are judged on
    compounds of yours that they did not learn from, of other chemical series where there are enough.

    Parameters
    ----------
    assay : str
        CSV, TSV or Parquet: one row per compound, with active or inactive (or a number and --threshold).
    run : str
        Run folder whose compounds were imaged; `phenohit labels CONFIG.yaml` makes what is needed of it.
    out : str
        Folder to write; empty: one in the run folder, named after the file.
    methods : list[str]
        Few-shot methods to try; empty: rate, neighbours, logistic, forest, multitask, macau.
    draws : int
        Splits of your compounds into those learned from and those scored.
    id, smiles, inchikey : str
        Columns that name the compound; empty: those with a usual name.
    value : str
        Column with the outcome or a number; empty: one with a usual name.
    threshold : float | None
        At or above it a number is active.
    """
    answer = predict_assay(
        assay,
        run,
        out=out,
        methods=methods,
        draws=draws,
        columns=Columns(id, smiles, inchikey, value),
        threshold=threshold,
    )
    print((answer.folder / "summary.md").read_text(encoding="utf-8"))


def predict_assay(
    assay: str,
    run: str,
    *,
    out: str = "",
    methods: list[str] | None = None,
    draws: int = 100,
    columns: Columns | None = None,
    threshold: float | None = None,
) -> Answer:
    """Judge few-shot methods on a user's compounds and score all imaged ones with the best.

    Parameters
    ----------
    assay : str
        Table of measured compounds.
    run : str
        Run folder, done at least up to its labels.
    out : str
    methods : list of str, optional
    draws : int
    columns : Columns, optional
    threshold : float, optional

    Returns
    -------
    Answer

    Raises
    ------
    RunError
        If the folder holds no labels.
    LabelError
        If fewer than 8 compounds, or fewer than 2 of a class, are measured and imaged.
    PhenoHitError
        For a table that cannot be read.
    """
    wanted = list(methods or METHODS)
    for name in wanted:
        find_method(name)()
    if draws < 10:
        raise ConfigError(f"draws is {draws}. At least 10 are needed to judge a method, e.g. --draws 100.")
    study = _open(run)
    name = Path(assay).stem
    results = read_results(
        assay,
        name,
        study.compounds,
        columns=columns,
        threshold=threshold,
        join=study.config.labels.join,
        jobs=study.jobs,
    )
    measured = np.flatnonzero(~np.isnan(results.outcome))
    y = results.outcome[measured] == 1
    _check_enough(assay, y, results)
    folder = Path(out) if out else study.run.folder / FOLDER / name
    bench, lost = _bench(study, name, results)
    data = bench.input("profiles" if study.has_images else "ecfp")
    rows = pd.Index(data.compounds).get_indexer(pd.Index(study.compounds["compound"].to_numpy(object)[measured]))
    episodes, apart = _draws(bench, name, rows, y, draws)
    everything = Episodes(name, rows[None], np.arange(len(data))[None], y[None], np.zeros((1, len(data)), bool))
    place = np.full(len(data), -1)
    place[rows] = np.arange(len(rows))
    held, final = {}, {}
    for method_name in track(wanted, "few-shot methods"):
        method = _pretrained(study, bench, method_name, data, episodes.size)
        jobs = cores(study.jobs)
        judged = method.score(data, [episodes], seed=study.config.seed, jobs=jobs)
        check_scores(method_name, judged, [episodes])
        held[method_name] = out_of_support(place[episodes.query], judged[0], len(rows))[0]
        parts = [_slice(everything, start) for start in range(0, len(data), _SLICE)]
        scored = [method.score(data, [part], seed=study.config.seed, jobs=jobs)[0] for part in parts]
        final[method_name] = np.concatenate([s[0] for s in scored])
    asked = np.isfinite(held[wanted[0]])
    found = estimate(y[asked], {k: v[asked] for k, v in held.items()}, seed=study.config.seed)
    counts = int(y.sum()), int((~y).sum()), int((~asked).sum())
    answer = Answer(found, apart, *counts, len(results.dropped), folder)
    write_table(folder / "methods.csv", found.by_method)
    write_table(folder / "dropped.csv", pd.concat([results.dropped, lost], ignore_index=True))
    write_table(folder / "predictions.csv", _predictions(study, data.compounds, results, held, final, found, rows))
    write_text(folder / "summary.md", _summary(answer, name, len(data), bench, study.config.simulated))
    return answer


def _slice(one: Episodes, start: int) -> Episodes:
    part = slice(start, start + _SLICE)
    return Episodes(one.task, one.support, one.query[:, part], one.y_support, one.y_query[:, part])


def _open(run: str) -> Study:
    folder = Path(run)
    if not (folder / "labels.parquet").exists() or not (folder / "compounds.parquet").exists():
        raise RunError(f"'{run}' holds no labels of a run. Make them first: phenohit labels CONFIG.yaml --out {run}")
    config: Config = read_config([str(folder / "config.yaml")], prog="phenohit fewshot", description="", kind=Config)
    return Study(Run(folder), config)


def _check_enough(assay: str, y: NDArray[np.bool_], results: Results) -> None:
    if len(y) >= _LEAST and y.sum() >= 2 and (~y).sum() >= 2:
        return
    left = results.dropped["reason"].value_counts().head(3)
    why = "; ".join(f"{n} x {reason}" for reason, n in left.items()) or "nothing was left out"
    raise LabelError(
        f"'{assay}' has {int(y.sum())} active and {int((~y).sum())} inactive compounds that were imaged. At least "
        f"{_LEAST} in all and 2 of each class are needed. Left out: {why}."
    )


def _bench(study: Study, name: str, results: Results) -> tuple[Bench, pd.DataFrame]:
    """Rows, and labels with the user's assay as one more task; other tasks that tell its answer are left out."""
    from phenohit.data.dropped import dropped

    known = study.labels
    at = np.flatnonzero(~np.isnan(results.outcome))
    column = sparse.csr_matrix(
        (results.outcome[at].astype(np.float32), (at, np.zeros(len(at), np.intp))), shape=(len(known), 1)
    )
    if name in known.task_names:
        name = f"{name} (yours)"
    own = pd.DataFrame({"task": [name], "assay": [name], "kind": ["binary"], "threshold": [np.nan]})
    tasks = pd.concat([known.tasks, own], ignore_index=True)
    labels = Labels(sparse.hstack([known.Y, column], format="csr"), known.compounds, tasks)
    overlap = task_overlap(labels, top=len(tasks) ** 2, least=0.0)
    table = split_tasks(labels, overlap, tests=[name], valid=0.125, seed=study.config.seed)
    gone = table[table["role"] == "left out"]
    rows = (
        study.profiles
        if study.config.profiles.unit == "compound" or not study.has_images
        else to_compounds(study.profiles, how=study.config.profiles.aggregate)
    )
    bench = Bench(study, FewShotConfig(), rows, labels, table)
    return bench, dropped("few-shot", "task", gone["task"], gone["reason"].tolist())


def _draws(bench: Bench, name: str, rows: NDArray[np.intp], y: NDArray[np.bool_], n: int) -> tuple[Episodes, str]:
    """Split the measured compounds again and again, by series where that leaves enough to learn from."""
    query = max(2, round(len(y) / 5))
    series, compounds = bench.series()[rows], bench.rows.compounds[rows]
    for apart, size in (("series", len(y) - 2 * query), ("compound", len(y) - query)):
        made, _ = draw_episodes(
            name, rows, y, compounds, sizes=(size,), query=query, n=n, series=series if apart == "series" else None,
            seed=bench.study.config.seed,
        )  # fmt: skip
        if made and _judges(made[0], rows, y):
            return made[0], apart
    raise LabelError(
        f"{int(y.sum())} active and {int((~y).sum())} inactive compounds cannot be split into compounds to learn from "
        "and compounds to judge by, with both classes on both sides. Measure more of the rarer class."
    )


def _judges(drawn: Episodes, rows: NDArray[np.intp], y: NDArray[np.bool_]) -> bool:
    """Whether enough compounds of each class are ever scored: one large series can keep its own from it."""
    asked = np.isin(rows, drawn.query)
    return bool((asked & y).sum() >= 2 and (asked & ~y).sum() >= 2)


def _pretrained(study: Study, bench: Bench, name: str, data: Any, size: int) -> Method:
    """Return a method that knows the run's other assays: read from the run folder, or made and kept there."""
    kind = find_method(name)
    method = kind()
    if not kind.pretrains:
        return method.pretrain(data, bench.of("train"), sizes=(size,))
    learned = [sorted(bench.names(role)) for role in ("train", "valid")]
    if not learned[0]:
        raise LabelError(f"The run has no other task that '{name}' could learn from. Leave it out with --methods.")
    content = hashlib.blake2b(np.ascontiguousarray(data.X), digest_size=16).hexdigest()
    key = json.dumps([name, study.config.seed, learned, data.features, content, bench.labels.Y.nnz], sort_keys=True)
    digest = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
    folder = study.run.folder / "fewshot-models" / f"{name}-{digest}"
    model, done = folder / "model.safetensors", folder / "done.json"
    if done.exists():
        try:
            if read_json(done)["size"] == model.stat().st_size:
                return kind.load(model)
        except (FileError, OSError, KeyError):
            log.warning("'%s' cannot be read and is made anew", model)
    folder.mkdir(parents=True, exist_ok=True)
    method.pretrain(
        data, bench.of("train"), valid=bench.of("valid"), seed=study.config.seed, run=folder, jobs=cores(study.jobs),
        sizes=(8, 16, 32, 64, 96), query=32,
    )  # fmt: skip
    method.save(model)
    write_json(done, {"size": model.stat().st_size})
    return method


def _predictions(
    study: Study, compounds: NDArray[np.object_], results: Results, held: dict[str, Any], final: dict[str, Any],
    found: Estimate, rows: NDArray[np.intp],
) -> pd.DataFrame:  # fmt: skip
    """One row per imaged compound, highest score first; measured ones also with the score of models without them."""
    about = study.compounds.set_index("compound").reindex(compounds)
    outcome = pd.Series(results.outcome, index=study.compounds["compound"]).reindex(compounds).to_numpy()
    score = final[found.chosen].astype(np.float64)
    unseen = np.full(len(score), np.nan)
    unseen[rows] = held[found.chosen]
    table = pd.DataFrame(
        {
            "compound": compounds, "compound_id": about["compound_id"].to_numpy(), "smiles": about["smiles"].to_numpy(),
            "score": score, "measured": np.where(np.isnan(outcome), "", np.where(outcome == 1, "active", "inactive")),
            "score_unseen": unseen, **{f"score_{name}": values for name, values in final.items()},
        }
    )  # fmt: skip
    table = table.iloc[np.argsort(-score, kind="stable")].reset_index(drop=True)
    untested = table["measured"].eq("").to_numpy()
    rank = np.full(len(table), np.nan)
    rank[untested] = np.arange(1, untested.sum() + 1)
    table.insert(0, "rank", pd.array(np.where(untested, rank, 0).astype(int), dtype="Int64"))
    table.loc[~untested, "rank"] = pd.NA
    return table


def _summary(answer: Answer, name: str, n: int, bench: Bench, simulated: bool) -> str:
    """Tell what was found, for a person."""
    found, best = answer.estimate, answer.estimate.by_method.iloc[0]
    lines = [f"# {name}: {answer.n_active} active and {answer.n_inactive} inactive compounds", ""]
    if simulated:
        lines += ["SIMULATED data: these figures say nothing about a real screen.", ""]
    verdict = (
        "it ranks better than chance" if found.low > 0.5 else "that may be chance: measure more before you trust it"
    )
    kept = {"series": "of other chemical series", "compound": "not learned from, though maybe of a series that was"}
    lines += [
        f"Best: {found.chosen}. Expected AUROC on compounds {kept[answer.apart]}: {found.auroc:.2f} "
        f"[{found.low:.2f}, {found.high:.2f}] (choosing among {len(found.by_method)} methods is allowed for; the best "
        f"one's own figure is {best['auroc']:.2f}): {verdict}.",
        "",
        f"Other tasks learned from: {len(bench.names('train'))}; left out because they tell the answer: "
        f"{int((bench.tasks['role'] == 'left out').sum())}.",
        "",
        "| method | AUROC [95 % interval] | best in |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {r.method} | {r.auroc:.2f} [{r.low:.2f}, {r.high:.2f}] | "
        f"{100 * float(str(r.times_chosen)):.0f} % of resamples |"
        for r in found.by_method.itertuples()
    ]
    if answer.n_unjudged:
        lines += ["", f"{answer.n_unjudged} of your compounds were learned from, but no method was judged by them: "
                  "their series is too large to be kept apart."]  # fmt: skip
    lines += ["", f"{n:,} compounds are ranked in {answer.folder / 'predictions.csv'}"]
    if answer.n_left_out:
        lines.append(f"{answer.n_left_out} things of your table could not be used: {answer.folder / 'dropped.csv'}")
    return "\n".join(lines) + "\n"
