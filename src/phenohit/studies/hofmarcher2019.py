"""The benchmark of Hofmarcher et al. 2019 on a screen: networks on images beside one on profiles, and its tables.

Everything but the tables is an ordinary run, set where the config is silent as in the paper, or as in its released
code.

References
----------
Hofmarcher et al. 2019, Journal of Chemical Information and Modeling 59, 1163, doi:10.1021/acs.jcim.8b00670.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phenohit.config import Config, SplitConfig
from phenohit.errors import ConfigError, nearest
from phenohit.files import read_json, write_table, write_text
from phenohit.runs import slug
from phenohit.studies.hofmarcher2019_paper import FIGURE_4
from phenohit.studies.hofmarcher2019_tables import costs, gapnet_against_fnn, pairs, performance

__all__ = ["SETTINGS", "command", "hofmarcher2019", "presets", "published_files", "text"]

log = logging.getLogger("phenohit")

SETTINGS = ("paper", "released")
_VIEWS = ("gapnet", "milnet", "mcnn", "resnet101", "densenet121")
_TRAINING = ("learning_rate", "momentum", "weight_decay", "clip", "batch", "epochs")


def command(config: Config, settings: str = "paper", index: str = "") -> None:
    """Repeat the benchmark of Hofmarcher et al. 2019 on a screen: what the YAML leaves open is set as in the paper.

    --settings released takes the settings of the released code where they differ (SC-CNN, FNN); --index TABLE is
    the published index of views, which tells the compound of every well.
    """
    folder = hofmarcher2019(published_files(config, index), settings=settings)
    print((folder / "study.md").read_text(encoding="utf-8"))


def presets(config: Config, settings: str = "paper") -> Config:
    """Set what a config leaves as it comes to what the paper used, or what its released code has.

    Parameters
    ----------
    config : Config
    settings : {"paper", "released"}

    Returns
    -------
    Config
        Three splits of compounds, 70, 10 and 20 %; the six networks (SC-CNN where there are crops), and the network of
        Simm et al. 2018 on profiles at a constant dropout, the paper's FNN. Whatever the config says itself stands.

    Raises
    ------
    ConfigError
        If `settings` is neither.
    """
    if settings not in SETTINGS:
        raise ConfigError(
            f"--settings is '{settings}'. Expected {' or '.join(SETTINGS)}. {nearest(settings, SETTINGS)}"
        )
    plain = Config()
    changed: dict[str, Any] = {}
    if config.splits == plain.splits:
        changed["splits"] = [SplitConfig(name="compound", kind="compound", folds=1, repeats=3)]
    models: dict[str, dict[str, Any]] = {name: {} for name in (*_VIEWS, "network")}
    if config.images.measure.crops:
        models["sccnn"] = {}
    known = _training(settings)
    if config.models == plain.models:
        changed["models"] = {name: known[name] for name in models}
    elif settings == "released":
        changed["models"] = {name: {**known.get(name, {}), **own} for name, own in config.models.items()}
    return replace(config, **changed)


def _training(settings: str) -> dict[str, dict[str, Any]]:
    """Return the settings that are not our models' defaults already."""
    from phenohit.models.vision import PRESETS, RELEASED

    table = {**PRESETS, **(RELEASED if settings == "released" else {})}
    as_they_are = {"flips": False, "rotations": False}  # neither paper nor code turns images about
    known: dict[str, dict[str, Any]] = {name: dict(as_they_are) for name in (*_VIEWS, "sccnn")}
    known["sccnn"] |= {"momentum": table["sccnn"].momentum, "subset": table["sccnn"].subset}
    fnn = {name: getattr(table["fnn"], name) for name in _TRAINING}
    return known | {"network": {"preset": "simm2018", "dropout_schedule": False, **fnn}}


def published_files(config: Config, index: str = "") -> Config:
    """Bring the published index files into a form that a run reads; the written ones are put beside its folder.

    Parameters
    ----------
    config : Config
    index : str
        See `phenohit.studies.hofmarcher2019_files.platemaps_of_index`; empty: the profiles tell their compounds.

    Returns
    -------
    Config
        With ``profiles.platemaps``, and tables of tasks that name every column of a label matrix once.
    """
    from phenohit.studies.hofmarcher2019_files import platemaps_of_index, tasks_of_index

    out = Path(config.out)
    folder = out.with_name(f"{out.name}-files")
    sources = [
        replace(a, tasks=str(tasks_of_index(a.tasks, folder / f"tasks-{i}.csv")))
        if a.format == "matrix_market" and a.tasks
        else a
        for i, a in enumerate(config.activities)
    ]
    profiles = config.profiles
    if index:
        profiles = replace(profiles, platemaps=str(platemaps_of_index(index, folder / "platemaps")))
    return replace(config, activities=sources, profiles=profiles)


def hofmarcher2019(config: Config, *, settings: str = "paper") -> Path:
    """Run the benchmark and write what it found beside what the paper found.

    Parameters
    ----------
    config : Config
        See `presets` for what is filled in.
    settings : {"paper", "released"}

    Returns
    -------
    Path
        ``<run folder>/hofmarcher2019`` with ``study.md``, ``table1.csv`` (performance), ``table2.csv`` (pairs of
        methods), ``table3.csv`` (costs) and ``gapnet_against_fnn.csv``; of the first split. The run folder itself ends
        as `phenohit run` would leave it.

    Raises
    ------
    PhenoHitError
        For anything the user can mend.
    """
    from phenohit.pipeline import run_study

    config = presets(config, settings)
    run = run_study(config)
    split = run / "splits" / slug(read_json(run / "manifest.json")["splits"][0])
    folder = run / "hofmarcher2019"
    tests = gapnet_against_fnn(run, split, permutations=config.evaluate.roc_permutations, seed=config.seed)
    tables = [performance(split), pairs(split), costs(split)]
    for number, table in enumerate(tables, start=1):
        write_table(folder / f"table{number}.csv", table)
    (folder / "gapnet_against_fnn.csv").unlink(missing_ok=True)
    if tests is not None:
        write_table(folder / "gapnet_against_fnn.csv", tests)
    write_text(folder / "study.md", text(config, tables, tests, settings=settings))
    return folder


def text(config: Config, tables: Sequence[pd.DataFrame], tests: pd.DataFrame | None, *, settings: str) -> str:
    """Write the tables as Markdown, the paper's numbers in italics."""
    first = config.splits[0]
    lines = [f"# {config.name}: the benchmark of Hofmarcher et al. 2019", ""]
    if config.simulated:
        lines += ["SIMULATED data: these figures say nothing about a real screen.", ""]
    how = "given" if first.kind == "given" else f"by {first.kind}"
    lines += [
        f"Split {how}; training settings of the {'paper' if settings == 'paper' else 'released code'} where the config "
        "names none. Numbers of the paper, on its own images, in italics.",
        "",
    ]
    lines += [*_performance(tables[0]), *_pairs(tables[1]), *_costs(tables[2]), *_tests(tests)]
    return "\n".join(lines)


def _performance(table: pd.DataFrame) -> list[str]:
    lines = ["## Table 1: performance", "", "| method | tasks | AUROC | F1 | above 0.9 | above 0.8 | above 0.7 |"]
    lines.append("| --- |" + " --- |" * 6)
    for row in table.to_dict("records"):
        cells = [_spread(row, ""), _spread(row, "", "f1"), *(_above(row, level) for level in ("0.9", "0.8", "0.7"))]
        if row["tasks"]:
            name = f"{row['paper']} (`{row['method']}`)" if row["paper"] else f"`{row['method']}`"
            lines.append(f"| {name} | {row['tasks']} | " + " | ".join(cells) + " |")
        if row["paper"]:
            printed = [f"*{_spread(row, 'paper_')}*", f"*{_spread(row, 'paper_', 'f1')}*"]
            printed += [f"*{row[f'paper_above_{level}']:.0f}*" for level in ("0.9", "0.8", "0.7")]
            lines.append(f"| *{row['paper']}, the paper* | *209* | " + " | ".join(printed) + " |")
    note = (
        "Mean and standard deviation over tasks of the mean over splits; in brackets what random scores reach on these "
        "labels and splits, with the central 95 %. A task without both classes in the test part of a split has no "
        "AUROC there. On the paper's own labels random scores bring 0.2, 1.3 and 7.9 of 209 tasks above 0.9, 0.8 and "
        "0.7 (mean of three splits of 20 %)."
    )
    return [*lines, "", note, ""]


def _spread(row: dict[str, Any], whose: str, name: str = "auroc") -> str:
    mean, sd = row[f"{whose}{name}"], row[f"{whose}{name}_sd"]
    digits = 2 if whose else 3
    return "–" if pd.isna(mean) else f"{mean:.3f}" + ("" if pd.isna(sd) else f" ± {sd:.{digits}f}")


def _above(row: dict[str, Any], level: str) -> str:
    count, chance, low, high = (row[f"above_{level}{end}"] for end in ("", "_chance", "_chance_low", "_chance_high"))
    if pd.isna(count):
        return "–"
    return f"{count:.0f}" + ("" if pd.isna(chance) else f" ({chance:.1f}; {low:.0f} to {high:.0f})")


def _pairs(table: pd.DataFrame) -> list[str]:
    lines = ["## Table 2: p that the column's method is better than the row's", ""]
    columns = list(dict.fromkeys(table["paper_method"]))
    lines += ["| | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    cells = {(r["paper_method"], r["paper_other"]): r for r in table.to_dict("records")}
    for other in dict.fromkeys(table["paper_other"]):
        found = [cells.get((method, other)) for method in columns]
        shown = ["" if c is None else f"{_p(c['p_value'])} *{c['paper_p_value']:.2e}*" for c in found]
        lines.append(f"| {other} | " + " | ".join(shown) + " |")
    note = (
        "One-sided paired Wilcoxon test over tasks, not corrected, read at 0.01 as in the paper; table2.csv has Holm's."
    )
    return [*lines, "", note, ""]


def _p(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.2e}"


def _costs(table: pd.DataFrame) -> list[str]:
    head = ["parameters here", "GMAC here", "s per epoch here", "parameters as published", "GMAC as published"]
    lines = ["## Table 3: cost", "", "| network | " + " | ".join(head) + " |", "| --- |" + " --- |" * len(head)]
    for row in table.to_dict("records"):
        here = [_number(row["parameters"], ",.0f"), _number(row["gmac"], ".3f"), _number(row["seconds_epoch"], ".1f")]
        here[2] += f" *{row['paper_seconds_epoch']:,.0f}*" if not np.isnan(row["paper_seconds_epoch"]) else ""
        ours = [f"{row['published_parameters']:,}", f"{row['published_gmac']:.3f}"]
        if not np.isnan(row["paper_gmac"]):
            ours = [f"{ours[0]} *{row['paper_parameters']:,.0f}*", f"{ours[1]} *{row['paper_gmac']:.2f}*"]
        lines.append(f"| {row['paper']} | " + " | ".join([*here, *ours]) + " |")
    note = (
        "Here: on this run's images, tasks and machine. As published: 209 tasks, 5 x 520 x 692 pixels (SC-CNN 96 x "
        "96), multiply-adds of convolutions and linear layers. *The paper's* count adds biases, activations, pooling "
        "and normalisation at 696 pixels, up to 2.3 % more; its seconds are of one GTX 1080 Ti and 284,035 views in "
        "all parts."
    )
    return [*lines, "", note, ""]


def _number(value: float, form: str) -> str:
    return "–" if np.isnan(value) else format(value, form)


def _tests(tests: pd.DataFrame | None) -> list[str]:
    lines = ["## GapNet against the FNN, task by task", ""]
    if tests is None:
        return [*lines, "Not tested: it takes gapnet, network (on profiles) and evaluate.roc_permutations.", ""]
    counts, printed = tests["verdict"].value_counts(), FIGURE_4
    both = tests[["auroc_a", "auroc_b"]].astype(float).dropna()
    varied = len(both) > 2 and bool((np.ptp(both.to_numpy(), axis=0) > 0).all())
    r = f"{np.corrcoef(both.to_numpy().T)[0, 1]:.2f}" if varied else "–"
    tested = int(len(tests) - counts.get("undefined", 0))
    lines += ["| | better | worse | not different | r of AUROCs |", "| --- | --- | --- | --- | --- |"]
    lines.append(f"| here | {' | '.join(str(int(counts.get(v, 0))) for v in ('better', 'worse', 'same'))} | {r} |")
    lines.append(
        f"| *the paper* | *{printed['better']}* | *{printed['worse']}* | *{printed['same']}* | *{printed['r']}* |"
    )
    repeat = int(tests["repeat"].iloc[0]) if len(tests) else -1
    where = "first split" if repeat >= 0 else "all folds"
    note = (
        f"Venkatraman's paired permutation test of ROC curves on the {where}, {tested} tasks, p at most 0.05, not "
        f"corrected: {0.05 * tested:.1f} differ by chance alone. The paper does not state its level."
    )
    return [*lines, "", note, ""]
