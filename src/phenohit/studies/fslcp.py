"""The few-shot benchmark of Ha (2024, chapter 2) on a screen: who predicts an assay best from 8 to 96 compounds.

References
----------
Ha, Leuschner, Czodrowski 2025, FSL-CP: a benchmark for small molecule activity few-shot prediction using cell
microscopy images, Digital Discovery, doi:10.1039/d3dd00205e.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.config import Config, FewShotConfig
from phenohit.data.dropped import nothing_dropped
from phenohit.data.labels import Labels
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError
from phenohit.fewshot import find_method
from phenohit.fewshot.benchmark import compare_sizes, gains, score_episodes, summary, task_means
from phenohit.fewshot.episodes import Episodes, draw_tasks
from phenohit.fewshot.inputs import beside, dense, parts_of, prepared, rows_to_scale
from phenohit.fewshot.tasks import split_tasks
from phenohit.files import hash_file, read_json, read_table, write_json, write_table, write_text
from phenohit.labels.overlap import task_overlap
from phenohit.models.contract import cores
from phenohit.progress import track
from phenohit.runs import slug
from phenohit.study import Study
from phenohit.viewing import store_folder

__all__ = ["command", "fslcp"]

log = logging.getLogger("phenohit")

FOLDER = "fewshot"


class Learner(NamedTuple):
    """A few-shot method with its settings on one input, e.g. ``prototypes-profiles``."""

    name: str
    method: str
    input: str
    settings: dict[str, Any]


def command(config: Config) -> None:
    """Compare few-shot methods on a screen: who predicts an assay best from 8 to 96 measured compounds.

    The tasks are split into test and training ones; every method scores the same episodes. The YAML is that of
    `phenohit run`, with a section `fewshot`.
    """
    folder = fslcp(config)
    print((folder / "study.md").read_text(encoding="utf-8"))
    print(f"Report: {folder / 'report.html'}")


def fslcp(config: Config) -> Path:
    """Run the benchmark.

    Parameters
    ----------
    config : Config

    Returns
    -------
    Path
        ``<run folder>/fewshot`` with ``tasks.csv``, ``episodes.csv`` (metrics of every task), ``table.csv``,
        ``compare.csv``, ``gains.csv``, ``costs.csv``, ``dropped.csv``, ``study.md`` and ``report.html``; ``leak.csv``
        where wells were drawn as well.

    Raises
    ------
    PhenoHitError
        For anything the user can mend.
    """
    from phenohit.pipeline import run_study

    learners(config)  # a name that is wrong is found before any work
    return run_study(config, until="labels", then=_benchmark) / FOLDER


def learners(config: Config) -> list[Learner]:
    """Return every method on every input, settings checked.

    Raises
    ------
    ConfigError
        For an unknown method, setting or input.
    """
    how = config.fewshot
    inputs = how.inputs or (["profiles"] if config.profiles.path else ["ecfp"])
    if not how.methods:
        raise ConfigError("fewshot.methods is empty. Name at least one, e.g. fewshot: {methods: {logistic: {}}}.")
    found = []
    for name, given in how.methods.items():
        settings = dict(given or {})
        method = settings.pop("method", name)
        kind = find_method(method)
        kind(**settings)
        seen = ["views"] if kind.sees == "views" else inputs
        if seen == ["views"] and not (config.images.path and config.images.store):
            raise ConfigError(f"Few-shot method '{method}' learns from views. Set images.path and images.store: true.")
        for one in seen:
            if one != "views" and "embedding" in parts_of(one) and not how.embedding:
                raise ConfigError(
                    "fewshot.inputs asks for 'embedding'. Set fewshot.embedding to the file of `phenohit embed`."
                )
            found.append(Learner(f"{name}-{one}", method, one, settings))
    return found


class Bench:
    """What all methods share: rows, labels, the split of tasks, the episodes.

    Parameters
    ----------
    study : Study
    how : FewShotConfig
    rows : Profiles, N rows
        Wells or compounds, without features or with them.
    labels : Labels
        One row per imaged compound.
    tasks : DataFrame
        From `phenohit.fewshot.tasks.split_tasks`.
    """

    def __init__(self, study: Study, how: FewShotConfig, rows: Profiles, labels: Labels, tasks: pd.DataFrame) -> None:
        self.study, self.how, self.rows, self.tasks = study, how, rows, tasks
        self.at = study.row_compound(rows)
        self.labels, self.unseen = labels.take(self.at), nothing_dropped()
        if how is study.config.fewshot and any(learner.input == "views" for learner in learners(study.config)):
            # All methods score the same episodes: rows without a view take part in none.
            from phenohit.fewshot.image_encoder import seen_labels

            self.labels, self.unseen = seen_labels(self.input("views"), self.labels)

    def names(self, role: str) -> list[str]:
        """Return the tasks of a role."""
        return self.tasks["task"][self.tasks["role"] == role].astype(str).tolist()

    def of(self, role: str) -> Labels:
        """Return the labels of the tasks of a role, for every row."""
        return self.labels.take_tasks(np.isin(self.labels.task_names, self.names(role)))

    def series(self) -> NDArray[np.integer]:
        """Return the series of every row."""
        return self.study.compounds["series"].to_numpy()[self.at]

    def episodes(self, unit: str) -> tuple[list[Episodes], pd.DataFrame]:
        """Draw the episodes of the test tasks."""
        apart = self.how.apart == "series" and unit == "compound"
        return draw_tasks(
            self.labels, self.rows.compounds, self.names("test"), sizes=self.how.sizes, query=self.how.query,
            n=self.how.episodes, unit=unit, series=self.series() if apart else None, seed=self.study.config.seed,
        )  # fmt: skip

    def input(self, name: str) -> Any:
        """Return a feature table, prepared, for all rows."""
        if name == "views":
            from phenohit.viewing import image_rows

            return image_rows(self.study, "views")[0]
        fit = rows_to_scale(*(_labelled(self.of(role)) for role in ("train", "test")))
        tables = [self._part(part, fit) for part in parts_of(name)]
        if len(tables) == 1:
            return tables[0]
        names = [f for table in tables for f in table.features]
        return tables[0].with_features(np.hstack([table.X for table in tables]), names, f"{name}[none]")

    def _part(self, kind: str, fit: NDArray[np.intp]) -> Profiles:
        table = self.rows
        if kind == "ecfp":
            found = dense(self.study.input("ecfp"), self.at)
            table = self.rows.with_features(found.X, found.features, "ecfp6[none]")
        elif kind == "embedding":
            table, missing = beside(self.rows, Profiles.load(self.how.embedding))
            if len(missing):
                log.warning("%d of %d rows have no embedding: they get the median", len(missing), len(table))
                fit = np.setdiff1d(fit, missing)
        return prepared(table, fit, kind=kind, clip=self.study.config.profiles.clip)


def _labelled(labels: Labels) -> NDArray[np.bool_]:
    return np.diff(labels.Y.indptr) > 0


def _benchmark(study: Study) -> None:
    """Do the steps that follow the labels."""
    how = study.config.fewshot
    units = ["compound", "well"] if how.leak else [how.unit]
    drawing = {k: v for k, v in asdict(how).items() if k not in ("methods", "inputs", "embedding")}
    chosen = learners(study.config)
    added = {"embedding": {how.embedding: hash_file(how.embedding)} if how.embedding else {}, "views": {}}
    if any(learner.input == "views" for learner in chosen):
        index = store_folder(study) / "views.parquet"
        added["views"] = {"views of the images": hash_file(index) if index.exists() else ""}
    study.run.step(
        "fewshot/tasks", partial(_split, study, how, units), settings=[drawing, study.config.seed],
        after=("labels", "chemistry"), inputs=added["views"],
        outputs=[f"{FOLDER}/{f}" for f in ("tasks.csv", "overlap.parquet", "dropped.csv")],
    )  # fmt: skip
    done = []
    for learner in track(chosen, "few-shot methods"):
        name = f"fewshot/{learner.name}"
        folder = f"{FOLDER}/methods/{slug(learner.name)}"
        done.append(name)
        study.run.step(
            name, partial(_learn, study, learner, units, folder), settings=[learner, drawing, study.config.seed],
            after=("fewshot/tasks", "data"),
            inputs={k: v for kind, files in added.items() if kind in learner.input for k, v in files.items()},
            outputs=[*(f"{folder}/{unit}.parquet" for unit in units), f"{folder}/cost.json"],
        )  # fmt: skip
    names = [learner.name for learner in chosen]
    tables = ("table", "compare", "gains", "costs", "task_means")
    study.run.step(
        "fewshot/tables", partial(_tables, study, names, units), settings=[names, units, how.reference],
        after=tuple(done), outputs=[f"{FOLDER}/{name}.csv" for name in tables],
    )  # fmt: skip
    study.run.step(
        "fewshot/report", partial(_report, study), settings=[study.config.name, study.config.simulated],
        after=("fewshot/tables",), outputs=[f"{FOLDER}/study.md", f"{FOLDER}/report.html"],
    )  # fmt: skip


def _bench(study: Study, tasks: pd.DataFrame) -> Bench:
    return Bench(study, study.config.fewshot, study.profiles, study.labels, tasks)


def _split(study: Study, how: FewShotConfig, units: list[str]) -> dict[str, Any]:
    overlap = task_overlap(study.labels, top=len(study.labels.tasks) ** 2, least=0.0)
    table = split_tasks(
        study.labels, overlap, tests=how.tests, n_tests=how.n_tests, min_compounds=how.min_compounds,
        share=how.share, valid=how.valid, seed=study.config.seed,
    )  # fmt: skip
    bench, folder = _bench(study, table), study.run.folder / FOLDER
    write_table(folder / "tasks.csv", table)
    write_table(folder / "overlap.parquet", overlap[overlap["n_both"] > 0].reset_index(drop=True))
    drawn, lost = zip(*(bench.episodes(unit) for unit in units), strict=True)
    gone = table[table["role"] == "left out"]
    out = pd.DataFrame({"stage": "split tasks", "what": "task", "id": gone["task"], "reason": gone["reason"]})
    write_table(folder / "dropped.csv", pd.concat([out, bench.unseen, *lost], ignore_index=True).drop_duplicates())
    if not any(drawn):
        raise ConfigError(
            f"No episode can be drawn: none of the {len(bench.names('test'))} test tasks has enough compounds; "
            f"'{folder / 'dropped.csv'}' tells why of each. Set smaller fewshot.sizes or fewshot.query."
        )
    roles = table["role"].value_counts()
    return {
        "tests": int(roles.get("test", 0)),
        "train": int(roles.get("train", 0)),
        "valid": int(roles.get("valid", 0)),
    }


def _learn(study: Study, learner: Learner, units: list[str], folder: str) -> dict[str, Any]:
    run = study.run
    bench = _bench(study, pd.read_csv(run.path(FOLDER, "tasks.csv"), keep_default_na=False, dtype={"task": str}))
    data = bench.input(learner.input)
    method = find_method(learner.method)(**learner.settings)
    jobs = cores(study.jobs)
    start = time.perf_counter()
    method.pretrain(
        data, bench.of("train"), valid=bench.of("valid"), sizes=bench.how.sizes, query=bench.how.query,
        seed=study.config.seed, run=study.folder(f"{folder}/checkpoint"), jobs=jobs,
    )  # fmt: skip
    cost: dict[str, Any] = {"pretrain": time.perf_counter() - start, "features": len(data.features)}
    method.save(run.path(folder, "model.safetensors"))
    for unit in units:
        episodes, _ = bench.episodes(unit)
        metrics, seconds = score_episodes(method, data, episodes, seed=study.config.seed, jobs=jobs)
        write_table(run.path(folder, f"{unit}.parquet"), metrics)
        if unit == units[0]:
            cost |= {"score": {str(k): v for k, v in seconds.items()}, "episodes": sum(map(len, episodes))}
    write_json(run.path(folder, "cost.json"), cost)
    return {"pretrain_seconds": round(cost["pretrain"], 1)}


def _tables(study: Study, names: list[str], units: list[str]) -> None:
    run = study.run
    metrics = {
        u: {n: read_table(run.path(FOLDER, "methods", slug(n), f"{u}.parquet"))[0] for n in names} for u in units
    }
    first = metrics[units[0]]
    means = task_means(first)
    folder = run.folder / FOLDER
    write_table(folder / "task_means.csv", means)
    write_table(folder / "table.csv", summary(means, seed=study.config.seed))
    write_table(folder / "compare.csv", compare_sizes(means))
    write_table(folder / "gains.csv", _gains(first, study.config.fewshot.reference))
    costs = {n: read_json(run.path(FOLDER, "methods", slug(n), "cost.json")) for n in names}
    rows = [
        {"method": n, "pretrain_s": c["pretrain"], "score_s": sum(c["score"].values()), "episodes": c["episodes"],
         "features": c["features"]} for n, c in costs.items()
    ]  # fmt: skip
    write_table(folder / "costs.csv", pd.DataFrame(rows))
    (folder / "leak.csv").unlink(missing_ok=True)
    if len(units) == 2:
        from phenohit.fewshot.leak import leak_table

        write_table(folder / "leak.csv", leak_table(task_means(metrics["well"]), means, seed=study.config.seed))


def _gains(metrics: dict[str, pd.DataFrame], reference: str) -> pd.DataFrame:
    """Gains over the reference method, each on its own input."""
    parts = []
    for base in [name for name in metrics if name.rpartition("-")[0] == reference]:
        source = base.rpartition("-")[2]
        parts.append(gains({n: t for n, t in metrics.items() if n.rpartition("-")[2] == source}, base))
    return pd.concat(parts, ignore_index=True) if parts else gains({"": next(iter(metrics.values()))}, "")


def _report(study: Study) -> None:
    from phenohit.fewshot.page import write_page
    from phenohit.studies.fslcp_text import study_text

    folder = study.run.folder / FOLDER
    write_text(folder / "study.md", study_text(folder, study.config))
    write_page(folder, study.config, dropped=pd.read_csv(folder / "dropped.csv", keep_default_na=False))
