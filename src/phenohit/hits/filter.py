"""Leave out candidates that speak against themselves, looking no further down the ranking than needed.

Every filter is one function, named in `FILTERS`. It takes the candidates and an `Evidence`, and returns one
text per row: empty where nothing speaks against the compound, otherwise what it found. Two texts pass as
well: `NO_STRUCTURE` and `NOT_KNOWN` say that there was nothing to judge by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.dropped import dropped
from phenohit.data.labels import Labels
from phenohit.data.predictions import Predictions
from phenohit.files import read_table
from phenohit.registry import resolve

__all__ = [
    "FILTERS",
    "GROUP",
    "NOT_CHECKED",
    "NOT_KNOWN",
    "NO_STRUCTURE",
    "TITLES",
    "Evidence",
    "autofluorescent",
    "cns",
    "evidence_in",
    "findings",
    "flag",
    "list_dropped",
    "pains",
    "reactive",
    "rejected",
    "survivors",
]

# name (also the column) -> function(table, evidence) -> text per row; see above.
FILTERS = {
    "pains": "phenohit.hits.filter:pains",
    "reactive": "phenohit.hits.filter:reactive",
    "promiscuous": "phenohit.hits.promiscuous:promiscuous",
    "autofluorescent": "phenohit.hits.filter:autofluorescent",
    "cns": "phenohit.hits.filter:cns",
    "off_targets": "phenohit.hits.off_targets:off_targets",
}
GROUP = "phenohit.filters"
# How a finding is introduced in a reason.
TITLES = {
    "pains": "PAINS alert",
    "reactive": "reactive or unwanted group",
    "promiscuous": "frequent hitter",
    "autofluorescent": "autofluorescence",
    "cns": "CNS",
    "off_targets": "off-target",
}

NOT_CHECKED = "not checked"  # ranked too low to matter
NO_STRUCTURE = "no structure"  # nothing to check; passes, and the summary counts it
NOT_KNOWN = "not known"  # too little was measured to tell; passes
_REMARKS = ("", NO_STRUCTURE, NOT_KNOWN, NOT_CHECKED)
_BLOCK = 64  # fewest rows per look: one call has a fixed cost


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a filter may look at besides the candidates' own structures.

    Attributes
    ----------
    task : str
        The task hits are chosen for.
    labels : Labels or None
        Everything measured.
    background : DataFrame or None
        How bright the background of each compound's wells was: ``compound, channel, z, reference``
        (see `phenohit.hits.background`).
    off_scores : DataFrame or None
        Predicted scores in the off-target tasks: one row per compound (the index), one column per task.
    off_target_max : float
        Highest score allowed there.
    cns : {"", "keep", "reject"}
        Which compounds are wanted.
    jobs : int
        Processes for the chemistry.
    """

    task: str = ""
    labels: Labels | None = None
    background: pd.DataFrame | None = None
    off_scores: pd.DataFrame | None = None
    off_target_max: float = 0.5
    cns: Literal["", "keep", "reject"] = ""
    jobs: int = 1

    @cached_property
    def activity(self) -> pd.DataFrame:
        """Of every measured compound, in how many of the other assays it was measured and active."""
        from phenohit.hits.promiscuous import activity

        return activity(self.labels, self.task)


def evidence_in(folder: Path, scored: Predictions, off_targets: Sequence[str]) -> Evidence:
    """Gather what the filters may look at besides labels and structures.

    Parameters
    ----------
    folder : Path
        A run folder; reads ``background.parquet`` and ``wells.parquet``, where the first is there.
    scored : Predictions
        Final scores of the run's compounds, in the off-target tasks too.
    off_targets : sequence of str
        Tasks of `scored`.
    """
    from phenohit.hits.background import compound_background

    path, background = folder / "background.parquet", None
    if path.exists():
        background = compound_background(read_table(folder / "wells.parquet")[0], read_table(path)[0])
    at, tasks = [scored.tasks.index(task) for task in off_targets], list(off_targets)
    off = pd.DataFrame(np.asarray(scored.score[:, at]), index=pd.Index(scored.compounds), columns=pd.Index(tasks))
    return Evidence(background=background, off_scores=off if tasks else None)


def pains(table: pd.DataFrame, evidence: Evidence) -> NDArray[np.object_]:
    """Return the names of each row's PAINS alerts, shape (N,).

    Parameters
    ----------
    table : DataFrame
        Column ``smiles``.
    evidence : Evidence

    Notes
    -----
    Alert sets A, B and C of Baell and Holloway 2010 (doi:10.1021/jm901137j).
    """
    from phenohit.chem import alerts

    return _structures(table, lambda smiles: alerts.pains(smiles, jobs=evidence.jobs))


def reactive(table: pd.DataFrame, evidence: Evidence) -> NDArray[np.object_]:
    """Return the names of each row's reactive groups, shape (N,); see `phenohit.chem.alerts.reactive`."""
    from phenohit.chem import alerts

    return _structures(table, lambda smiles: alerts.reactive(smiles, jobs=evidence.jobs))


def autofluorescent(table: pd.DataFrame, evidence: Evidence) -> NDArray[np.object_]:
    """Say which compounds shine by themselves, shape (N,): measured in the screen, or a fluorophore by structure.

    The text begins with ``measured`` or ``structure``. A compound is measured where its wells have background
    intensities (`phenohit.hits.background`). Dark wells do not acquit a fluorophore, they are only mentioned:
    the dim end of a stain's intensity falls where cells die, few channels may have been kept, and what washing
    removed here shines in another assay.
    """
    from phenohit.chem import alerts
    from phenohit.hits.background import BRIGHT

    found = _structures(table, lambda smiles: alerts.fluorophores(smiles, jobs=evidence.jobs))
    hit = rejected(found)
    found[hit] = "structure: " + found[hit]
    if evidence.background is None or not len(evidence.background):
        return found
    seen = evidence.background.set_index("compound")
    at = seen.index.get_indexer(pd.Index(table["compound"].astype(str)))
    z = np.where(at >= 0, seen["z"].to_numpy()[at], np.nan)
    found[(at >= 0) & hit & (z < BRIGHT)] += " (the background of its wells is not raised)"
    found[(at >= 0) & (found == NO_STRUCTURE)] = ""
    for i in np.flatnonzero(z >= BRIGHT):
        row = seen.iloc[at[i]]
        words = f"measured: background of {row['channel']} {z[i]:.1f} robust SD above {row['reference']}"
        found[i] = f"{words}; {found[i]}" if hit[i] else words
    return found


def cns(table: pd.DataFrame, evidence: Evidence) -> NDArray[np.object_]:
    """Say why a compound would not reach the brain (``keep``), or that it would (``reject``), shape (N,).

    A compound reaches the brain if it lies in the yolk of the BOILED-Egg and is no likely substrate of P-gp;
    see `phenohit.chem.cns.cns_properties`.
    """
    from phenohit.chem.cns import cns_properties

    def words(smiles: list[str]) -> NDArray[np.object_]:
        known = cns_properties(smiles, jobs=evidence.jobs)
        out = np.full(len(known), "", dtype=object)
        for i, row in enumerate(known.itertuples(index=False)):
            place = f"logP {row.logp:.1f}, polar surface {row.tpsa:.0f} Å²"
            if evidence.cns == "reject":
                out[i] = f"likely to enter the brain ({place})" if row.yolk and not row.pgp else ""
            elif not row.yolk:
                out[i] = f"unlikely to enter the brain ({place})"
            elif row.pgp:
                out[i] = f"likely pumped out by P-gp ({row.n_o:.0f} N and O, weight {row.weight:.0f})"
        return out

    return _structures(table, words)


def _structures(table: pd.DataFrame, words: Callable[[list[str]], NDArray[np.object_]]) -> NDArray[np.object_]:
    """Judge the rows that have a structure; the others get `NO_STRUCTURE`."""
    found = np.full(len(table), NO_STRUCTURE, dtype=object)
    smiles = table["smiles"].to_numpy(dtype=object)
    known = np.flatnonzero(smiles != "")
    if len(known):
        found[known] = words(smiles[known].tolist())
    return found


def flag(table: pd.DataFrame, name: str, evidence: Evidence) -> NDArray[np.object_]:
    """Run one filter of `FILTERS`; text per row, shape (N,)."""
    return resolve(name, FILTERS, GROUP)(table, evidence)


def rejected(found: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Say which findings of a filter speak against a compound, shape (N,)."""
    return ~np.isin(np.asarray(found, dtype=object), _REMARKS)


def list_dropped(table: pd.DataFrame, drop: Sequence[str], task: str = "") -> pd.DataFrame:
    """List the rows that any of the filters rejects, each once with all that was found.

    Parameters
    ----------
    table : DataFrame
        Column ``compound_id`` and one per filter.
    drop : sequence of str
        Filters whose finding rejects.
    task : str
    """
    out = np.zeros(len(table), dtype=bool)
    for name in drop:
        out |= rejected(table[name].to_numpy(dtype=object))
    lost = table[out]
    stage = f"filter hits for {task}" if task else "filter hits"
    return dropped(stage, "hit", lost["compound_id"], findings(lost, drop))


def findings(table: pd.DataFrame, drop: Sequence[str]) -> list[str]:
    """Join what the filters found for each row, e.g. ``PAINS alert: quinone_A(370); CNS: ...``."""
    said: list[list[str]] = [[] for _ in range(len(table))]
    for name in drop:
        found = table[name].to_numpy(dtype=object)
        for i in np.flatnonzero(rejected(found)):
            said[i].append(f"{TITLES.get(name, name)}: {found[i]}")
    return ["; ".join(one) for one in said]


def survivors(
    table: pd.DataFrame,
    enough: float,
    evidence: Evidence | None = None,
    *,
    drop: Sequence[str] = ("pains",),
    mark: Sequence[str] = (),
) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """Go down the ranking, block by block, until `enough` rows have passed every filter.

    Parameters
    ----------
    table : DataFrame
        Ranked, best first; columns ``compound``, ``compound_id`` and ``smiles``.
    enough : float
        Rows wanted; inf: all. What is below the last of them is never looked at: half a million candidates
        cost no more than the few hundred at the top.
    evidence : Evidence, optional
        What else the filters may look at.
    drop : sequence of str
        Filters whose finding rejects a row.
    mark : sequence of str
        Filters that are run but only mark.

    Returns
    -------
    table : DataFrame
        With one column per filter: what it found, empty where nothing, ``not checked`` below.
    passed : bool array, shape (N,)
        True for the first `enough` rows that passed.
    """
    evidence = Evidence() if evidence is None else evidence
    enough = int(min(enough, len(table)))
    found = {name: np.full(len(table), NOT_CHECKED, dtype=object) for name in dict.fromkeys((*mark, *drop))}
    passed = np.zeros(len(table), dtype=bool)
    start = n = 0
    while start < len(table) and n < enough:
        share = max(n / start, 0.05) if start else 1.0
        stop = min(len(table), start + max(_BLOCK, int(np.ceil((enough - n) / share))))
        ok = np.ones(stop - start, dtype=bool)
        for name, column in found.items():
            column[start:stop] = flag(table.iloc[start:stop], name, evidence)
            if name in drop:
                ok &= ~rejected(column[start:stop])
        passed[start:stop] = ok
        start, n = stop, int(passed[:stop].sum())
    passed[np.flatnonzero(passed)[enough:]] = False
    return table.assign(**found), passed
