"""Methods side by side on one split: a table of assays, what they share, how they agree, and their mean of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.config import EvaluateConfig
from phenohit.data.labels import Labels
from phenohit.evaluate.agreement import LEVELS, UNITS, by_assay, by_task, pair, sets
from phenohit.evaluate.chance import chance_draws
from phenohit.evaluate.ensemble import NEEDS_CUT, HeldOut, gain
from phenohit.evaluate.entries import Entries
from phenohit.evaluate.reading import READINGS, read_tasks
from phenohit.evaluate.scores import score_table
from phenohit.evaluate.summary import summarise
from phenohit.files import write_json, write_table

__all__ = ["OUTPUTS", "SideBySide"]

OUTPUTS = ("assays.csv", "agreement.json")  # what `SideBySide.save` writes

# Every other input makes a baseline.
_GROUPS = {"views": "image", "crops": "image", "profiles": "image", "ecfp": "chemistry"}
_PER_METHOD = ("auroc", "auroc_low", "auroc_high", "average_precision")


class SideBySide:
    """Gathers the methods of one split, one at a time, and says what they share.

    Parameters
    ----------
    labels : Labels
        One row per compound.
    how : EvaluateConfig
    seed : int
    repeated : bool
        Folds are hold-outs drawn anew, see `score_table`.
    """

    def __init__(self, labels: Labels, how: EvaluateConfig, seed: int = 0, *, repeated: bool = False) -> None:
        self.labels, self.how, self.seed, self.repeated = labels, how, seed, repeated
        self.held = HeldOut(labels.task_names)
        self.tables: dict[str, pd.DataFrame] = {}
        self.methods: list[dict[str, Any]] = []
        self._chances: dict[bytes, dict[tuple[str, float], NDArray[np.float64]]] = {}
        self._counts: list[bytes] = []  # of each method in turn: which of the above

    def add(self, name: str, entries: Entries, table: pd.DataFrame, *, model: str, source: str) -> None:
        """Take in one method.

        Parameters
        ----------
        name : str
        entries : Entries
            Its held-out scores.
        table : DataFrame
            What `score_table` gave for them.
        model, source : str
            E.g. ``forest`` and ``profiles``; the sources ``views``, ``crops`` and ``profiles`` are called image,
            ``ecfp`` chemistry, and whatever else a baseline.
        """
        self.held.add(name, entries)
        self.tables[name] = table.reset_index(drop=True)
        kind = _GROUPS.get(source, "baseline")
        self.methods.append({"name": name, "model": model, "input": source, "group": kind, "members": []})
        key = b"".join(np.ascontiguousarray(counts).tobytes() for counts in entries.counts("fold"))
        if self.how.chance and key not in self._chances:  # methods with the same labels and folds have the same chance
            self._chances[key] = self._chance(entries, table)
        self._counts.append(key)

    def groups(self) -> dict[str, list[str]]:
        """Return the methods that are no baseline: ``all``, and ``image`` and ``chemistry`` where both occur.

        Best mean AUROC first.
        """
        mean = {name: float(np.nan_to_num(table["auroc"].mean(), nan=-1.0)) for name, table in self.tables.items()}
        usable = sorted((m for m in self.methods if m["group"] in _GROUPS.values()), key=lambda m: -mean[m["name"]])
        found = {"all": [m["name"] for m in usable]}
        split = {kind: [m["name"] for m in usable if m["group"] == kind] for kind in _GROUPS.values()}
        return found | (split if all(split.values()) else {})

    def save(self, folder: Path) -> None:
        """Write ``assays.csv`` and ``agreement.json``.

        Notes
        -----
        ``assays.csv`` has a row per task: ``task, assay, kind, threshold, n_active, n_inactive``, ``counted`` (enough
        labels for the rule of Simm 2018), ``chance_low, chance_high`` (of the first method), ``best`` and
        ``best_auroc`` (highest AUROC of a method that is no baseline: a choice made on these results, which favours
        luck), ``above_0.9, above_0.7`` (number of such methods), and for every method and mean of ranks
        ``<method>.auroc, .auroc_low, .auroc_high, .average_precision, .reading``.

        ``agreement.json``: ``methods`` (with group and, for means of ranks, members), ``items`` (unit -> names and
        AUROC by method), ``sets`` (one per unit and level, see `agreement.sets`), ``pairs`` (see `agreement.pair`, and
        ``score_spearman``, the median over tasks of `HeldOut.correlation`), ``ensembles`` (``summary`` as by
        `summarise`, ``against`` as by `gain`, ``sets``: what each alone brings above a level, and what it loses).
        """
        groups = self.groups()
        ensembles = [self._ensemble(kind, members) for kind, members in groups.items() if len(members) > 1]
        tables = self.tables | {e["name"]: e.pop("table") for e in ensembles}
        tasks = self.labels.tasks.reset_index(drop=True).assign(**self.labels.counts())
        write_table(folder / "assays.csv", self._assays(tables, tasks, groups["all"]))
        auroc = by_task(tables) if tables else pd.DataFrame(index=pd.Index(self.labels.task_names, name="task"))
        units = {"assay": by_assay(auroc, tasks, simm_min=self.how.simm_min), "task": auroc}
        found = [
            {"unit": unit, **sets(units[unit], level, groups, self._reaching(unit, level), confidence=self._sure())}
            for unit in UNITS
            for level in LEVELS
        ]
        for e in ensembles:
            e["sets"] = [_gained(units[s["unit"]], s, e) for s in found]
        given = [{"name": e["name"], "model": "mean of ranks", "input": "", "group": "ensemble"} for e in ensembles]
        made = {
            "methods": self.methods + [g | {"members": e["members"]} for g, e in zip(given, ensembles, strict=True)],
            "groups": groups,
            "confidence": self._sure(),
            "chance_repeats": self.how.chance,
            "simm_min": self.how.simm_min,
            "items": {unit: {"names": t.index.tolist(), "auroc": t.to_dict("list")} for unit, t in units.items()},
            "sets": found,
            "pairs": self._pairs(auroc),
            "ensembles": ensembles,
        }
        write_json(folder / "agreement.json", _plain(made))

    def _sure(self) -> float:
        return self.how.confidence

    def _chance(self, entries: Entries, table: pd.DataFrame) -> dict[tuple[str, float], NDArray[np.float64]]:
        """Chance that random scores bring each task, and each assay, above each level."""
        drawn = list(chance_draws(entries, repeats=self.how.chance, seed=self.seed))
        task = np.stack(drawn) if drawn else np.zeros((0, self.how.chance))
        counts = self.labels.counts().assign(assay=self.labels.tasks["assay"].astype(str))
        assay = by_assay(task, counts, simm_min=self.how.simm_min).to_numpy(np.float64)
        draws = {"assay": assay, "task": task}
        return {(unit, level): (draws[unit] > level).mean(1) for unit in UNITS for level in LEVELS}

    def _reaching(self, unit: str, level: float) -> NDArray[np.float64] | None:
        """Mean over methods of that chance; it differs only where methods have other folds."""
        if not self._chances:
            return None
        return np.mean([self._chances[key][unit, level] for key in self._counts], axis=0)

    def _ensemble(self, kind: str, members: Sequence[str]) -> dict[str, Any]:
        """Score the mean of ranks of some methods with the functions that score each of them."""
        how, entries = self.how, self.held.mean_of_ranks(members)
        title = f"mean of ranks, {kind}"
        table = score_table(
            self.labels,
            entries,
            bootstrap=how.bootstrap,
            confidence=how.confidence,
            repeated=self.repeated,
            seed=self.seed,
            title=title,
        ).assign(**dict.fromkeys(NEEDS_CUT, np.nan))
        summary = summarise(
            table, self.labels, entries, chance=how.chance, simm_min=how.simm_min, confidence=how.confidence,
            seed=self.seed,
        )  # fmt: skip
        return {
            "name": f"ranks-{kind}",
            "group": kind,
            "members": list(members),
            "n_entries": len(entries),
            "left_out": {m: self.held.n_entries(m) - len(entries) for m in members},
            "summary": summary,
            "against": gain(self.held, table, members),
            "table": table,
        }

    def _assays(self, tables: dict[str, pd.DataFrame], tasks: pd.DataFrame, usable: list[str]) -> pd.DataFrame:
        """One row per task, every method beside the others."""
        how = self.how.simm_min
        columns = [c for c in ("task", "assay", "kind", "threshold", "n_active", "n_inactive") if c in tasks]
        counted = (tasks["n_active"] >= how) & (tasks["n_inactive"] >= how)
        parts = [tasks[columns].assign(counted=counted)]
        if usable:
            first = tables[usable[0]]
            auroc = np.stack([tables[m]["auroc"].to_numpy(np.float64) for m in usable], axis=1)
            known = ~np.isnan(auroc).all(1)
            best = np.where(np.isnan(auroc), -1.0, auroc).argmax(1)
            names = np.where(known, np.array(usable, dtype=object)[best], "")
            top = np.where(known, auroc[np.arange(len(auroc)), best], np.nan)
            parts.append(first[["chance_low", "chance_high"]])
            parts.append(pd.DataFrame({"best": names, "best_auroc": top}))
            parts.append(pd.DataFrame({f"above_{level}": (auroc > level).sum(1) for level in LEVELS}))
        source = {m["name"]: m["input"] for m in self.methods}
        marks = {s: next((tables[n] for n in tables if source.get(n) == s), None) for s in ("cell_count", "plate")}
        words = np.array([reading["name"] for reading in READINGS], dtype=object)
        for name, table in tables.items():
            own = table[list(_PER_METHOD)]
            if _GROUPS.get(source.get(name, "profiles"), ""):  # a baseline is not read against itself
                own = own.assign(reading=words[read_tasks(table, marks["cell_count"], marks["plate"])])
            parts.append(own.add_prefix(f"{name}."))
        return pd.concat(parts, axis=1)

    def _pairs(self, auroc: pd.DataFrame) -> list[dict[str, Any]]:
        """Every pair of methods once: do they predict the same tasks, and rank the same compounds first."""
        rows = []
        for one, other in combinations(self.tables, 2):
            alike = self.held.correlation(one, other)
            known = alike[~np.isnan(alike)]
            scores = {"score_spearman": float(np.median(known)) if len(known) else None, "n_score_tasks": len(known)}
            calls = pair(auroc[one].to_numpy(np.float64), auroc[other].to_numpy(np.float64))
            rows.append({"method": one, "other": other, **calls, **scores})
        return rows


def _gained(auroc: pd.DataFrame, found: dict[str, Any], ensemble: dict[str, Any]) -> dict[str, Any]:
    """Items that a mean of ranks alone brings above a level, and those that its best member does and it does not."""
    member = auroc > found["above"]
    best = found["groups"][ensemble["group"]]["best"]
    own, any_member = member[ensemble["name"]], member[ensemble["members"]].any(axis=1)
    return {
        "unit": found["unit"],
        "above": found["above"],
        "count": int(own.sum()),
        "gained": auroc.index[own & ~any_member].tolist(),
        "best": best,
        "lost": auroc.index[member[best] & ~own].tolist(),
    }


def _plain(value: Any) -> Any:
    """Make ready for JSON: what is undefined becomes None."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
