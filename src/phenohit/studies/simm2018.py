"""The study of Simm et al. 2018 on a screen: nested cross-validation, three methods, both hit campaigns, one table.

Everything but the campaigns is an ordinary run. What the paper did twice, picking for an oncology project by rank and
for a CNS project by predicted potency with filters, is done here on the same fitted models, one recipe after the other.

References
----------
Simm et al. 2018, Cell Chemical Biology 25, 611, doi:10.1016/j.chembiol.2018.01.015.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from phenohit.config import Config, HitsConfig, SplitConfig, TuneConfig
from phenohit.evaluate.agreement import unit_of
from phenohit.files import read_json, read_table, write_table, write_text
from phenohit.runs import slug
from phenohit.studies.simm2018_counts import recount

__all__ = ["MODELS", "PAPER_ASSAYS", "campaigns", "command", "presets", "simm2018"]

log = logging.getLogger("phenohit")

MODELS: dict[str, dict[str, Any]] = {
    "forest": {"n_trees": 250},
    "network": {"preset": "simm2018"},
    "macau": {"preset": "simm2018"},
}
# Assays that Macau brought above an AUROC, and those that all three methods did (Venn diagrams of the supplement).
PAPER_ASSAYS = {0.9: {"Macau": 34, "all three": 11}, 0.7: {"Macau": 225, "all three": 182}}
_RECIPES = ("expansion", "potency")


def command(config: Config) -> None:
    """Repeat the study of Simm et al. 2018 on a screen: what the YAML leaves open is set as in the paper."""
    folder = simm2018(config)
    print((folder / "study.md").read_text(encoding="utf-8"))


def presets(config: Config) -> Config:
    """Set what a config leaves as it comes to what the paper used.

    Returns
    -------
    Config
        Three folds over series; forests, networks and Macau of the paper's size; the grids of Tables S1 and S2.
        Whatever the config says itself stands.
    """
    plain = Config()
    changed: dict[str, Any] = {}
    if config.splits == plain.splits:
        changed["splits"] = [SplitConfig(name="series", kind="series", folds=3)]
    if config.models == plain.models:
        changed["models"] = {name: dict(settings) for name, settings in MODELS.items()}
    if not config.tune.grids:
        grids = {name: "simm2018" for name in ("forest", "network") if name in changed.get("models", config.models)}
        changed["tune"] = replace(config.tune or TuneConfig(), grids=grids)
    return replace(config, **changed)


def simm2018(config: Config) -> Path:
    """Run the study and write what it found beside what the paper found.

    Parameters
    ----------
    config : Config
        See `presets` for what is filled in.

    Returns
    -------
    Path
        ``<run folder>/simm2018`` with ``study.md``, ``assays.csv``, ``campaigns.csv`` and a folder of picks per recipe.
        The run folder itself ends as `phenohit run` would leave it.

    Raises
    ------
    PhenoHitError
        For anything the user can mend.
    """
    from phenohit.pipeline import run_study

    config = presets(config)
    own = config.hits.recipe
    folder = Path(config.out) / "simm2018"
    tables = []
    for recipe in sorted(_RECIPES, key=lambda name: name == own):  # the config's own comes last and stays
        log.info("campaign: %s", recipe)
        run_study(replace(config, hits=_of_recipe(config.hits, recipe)), until="hits")
        tables.append(campaigns(Path(config.out), recipe))
        _keep(Path(config.out) / "hits", folder / recipe)
    run_study(config)
    found = pd.concat(tables, ignore_index=True)
    assays = _assays(read_json(_first_split(Path(config.out)) / "agreement.json"))
    write_table(folder / "assays.csv", assays)
    write_table(folder / "campaigns.csv", found)
    write_text(folder / "study.md", _text(config, assays, found))
    return folder


def _of_recipe(hits: HitsConfig, recipe: str) -> HitsConfig:
    """Return the settings with another recipe; the bar, filters and pool of the config are its own recipe's."""
    if hits.recipe in ("", recipe):
        return replace(hits, recipe=recipe)  # type: ignore[arg-type]
    own = {"pool": None, "per_cluster": None, "fill": None, "min_score": None, "filters": None}
    return replace(hits, recipe=recipe, **own)  # type: ignore[arg-type]


def _keep(picked: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if picked.is_dir():
        shutil.copytree(picked, folder)


def campaigns(run: Path, recipe: str) -> pd.DataFrame:
    """Sum up the picks of a run, task by task.

    Parameters
    ----------
    run : Path
        Run folder with hits.
    recipe : str
        Written into the table.

    Returns
    -------
    DataFrame, one row per task
        ``recipe, task, method, picked, clusters, candidates, promised`` (sum of the scores: hits, if the probabilities
        are right; NaN where scores are no probabilities), ``known_rate`` (actives among the measured compounds),
        ``promised_fold``; ``replay_taken, replay_found, replay_fold``: the first 5 % of the measured compounds, ranked
        by models that never saw them, with ``replay_random_low, replay_random_high`` hits of random picks.
    """
    plan = read_json(run / "hits" / "plan.json")
    rows = []
    for task in plan["tasks"]:
        folder = run / "hits" / slug(task)
        summary, hits = read_json(folder / "summary.json"), read_table(folder / "hits.parquet")[0]
        picked = hits[hits["picked"]]
        metrics = summary["metrics"]
        rate = metrics["n_active"] / max(metrics["n_active"] + metrics["n_inactive"], 1)
        promised = float(picked["score"].sum()) if picked["score"].between(0, 1).all() else float("nan")
        share = promised / max(len(picked), 1)
        rows.append(
            {
                "recipe": recipe, "task": task, "method": plan["method"], "picked": len(picked),
                "clusters": summary["n_picked_clusters"], "candidates": summary["n_candidates"], "promised": promised,
                "known_rate": rate, "promised_fold": share / rate if len(picked) and rate else float("nan"),
                **_replayed(run, plan["method"], task),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _replayed(run: Path, method: str, task: str) -> dict[str, float]:
    """Read what the replayed campaign found in the first split; NaN where the whole assay would be picked."""
    table = read_table(_first_split(run) / "enrichment.parquet")[0]
    own = table[(table["method"] == method) & (table["task"] == task) & (table["measure"] == "top 5 %")].iloc[0]
    return {
        "replay_taken": own["n_taken"], "replay_found": own["found"], "replay_fold": own["value"],
        "replay_random_low": own["random_low"], "replay_random_high": own["random_high"],
    }  # fmt: skip


def _first_split(run: Path) -> Path:
    return run / "splits" / slug(read_json(run / "manifest.json")["splits"][0])


def _assays(agreement: dict[str, Any]) -> pd.DataFrame:
    """Count what each method brings above 0.9 and 0.7, what any and all of them do, and what random scores do."""
    sizes = {found["unit"]: found["n"] for found in agreement["sets"]}
    unit, rows = unit_of(sizes["assay"], sizes["task"]), []
    for found in agreement["sets"]:
        if found["unit"] != unit:
            continue
        chance = found["chance"]["union"][0]["expected"] if found["chance"] else float("nan")
        counts = dict(found["counts"])
        for group, of in found["groups"].items():
            counts |= {f"any of {group}": of["union"], f"all of {group}": of["common"]}
        rows += [
            {"above": found["above"], "unit": unit, "methods": name, "count": n, "of": found["n"], "chance": chance}
            for name, n in counts.items()
        ]
    return pd.DataFrame(rows)


def _text(config: Config, assays: pd.DataFrame, found: pd.DataFrame) -> str:
    """Write both tables as Markdown, the paper's numbers beside them."""
    lines = [f"# {config.name}: the study of Simm et al. 2018", ""]
    if config.simulated:
        lines += ["SIMULATED data: these figures say nothing about a real screen.", ""]
    levels = sorted(assays["above"].unique(), reverse=True)
    unit = assays["unit"].iloc[0]
    lines += [
        f"## {unit.capitalize()}s predicted",
        "",
        "| methods | " + " | ".join(f"AUROC above {v:g}" for v in levels) + " |",
    ]
    lines.append("| --- |" + " --- |" * len(levels))
    for name, counts in assays.groupby("methods", sort=False):
        by = counts.set_index("above")
        lines.append(f"| {name} | " + " | ".join(f"{by.loc[v, 'count']} of {by.loc[v, 'of']}" for v in levels) + " |")
    chance = assays.groupby("above")["chance"].first()
    lines.append("| random scores | " + " | ".join(f"{chance[v]:.1f}" for v in levels) + " |")
    for name in ("Macau", "all three"):
        counts = " | ".join(str(PAPER_ASSAYS[v][name]) if v in PAPER_ASSAYS else "–" for v in levels)
        lines.append(f"| *the paper, {name}* | {counts} |")
    rule = f"its best threshold, mean over folds, {config.evaluate.simm_min} actives and as many inactives."
    few = "The paper counts assays; too few here have labels enough for its rule: "
    lines += ["", ("An assay counts by the paper's rule: " if unit == "assay" else few) + rule, "", "## Campaigns", ""]
    lines.append("| campaign | picked | hits | rate before | times |")
    lines.append("| --- | --- | --- | --- | --- |")
    for row in found.itertuples():
        lines.append(
            f"| {row.recipe}: {row.task} ({row.method}) | {row.picked} | {row.promised:.1f} promised, not measured "
            f"| {row.known_rate:.2%} of the measured | {row.promised_fold:.1f} promised; "
            f"{row.replay_fold:.1f} in replay: {row.replay_found:.3g} of {row.replay_taken}, random picks "
            f"{row.replay_random_low:.0f} to {row.replay_random_high:.0f} |"
        )
    for row in recount().itertuples():
        lines.append(
            f"| *the paper, {row.campaign}* | {row.tested} | {row.hits} measured | {row.primary:.3%} of the screen "
            f"| {row.fold:.0f} [{row.fold_low:.0f}, {row.fold_high:.0f}] measured; printed {row.printed_fold} |"
        )
    lines += ["", "Promised: the sum of the picks' probabilities. Replay: the first 5 % of the measured compounds, "
              "ranked by models that never saw them.", ""]  # fmt: skip
    return "\n".join(lines)
