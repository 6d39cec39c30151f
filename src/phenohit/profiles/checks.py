"""What is wrong with plates and wells, seen before and after the steps.

The arithmetic is in `checks_layout`, `checks_replicates` and `checks_map`; here the results are put
together, flagged, kept on disk and, where the user asks for it, acted on.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.config import ChecksConfig
from phenohit.data.dropped import dropped, nothing_dropped
from phenohit.data.profiles import Profiles
from phenohit.errors import ColumnError, ConfigError, FileError, nearest
from phenohit.files import read_table, write_table
from phenohit.profiles import checks_map
from phenohit.profiles.checks_flags import RULES, flag
from phenohit.profiles.checks_history import KEPT
from phenohit.profiles.checks_layout import (
    Layout,
    cell_map,
    control_distance,
    each,
    explained_by_place,
    leading_components,
    neighbour_shares,
    plate_position,
    position_map,
)
from phenohit.profiles.checks_reference import References, check_references
from phenohit.profiles.checks_replicates import Replicates, replicate_checks
from phenohit.profiles.controls import well_names

__all__ = ["Checks", "check_plates", "drop_flagged"]

log = logging.getLogger("phenohit")

_COMPONENTS = 5  # of the control wells, for position effects
_SHUFFLES = 199  # their mean and variance are used, not their tail
_MOST_CONTROLS = 4000  # compared with each other: a matrix of 64 MB
_MOST_TREATMENTS = 20_000


@dataclass(frozen=True, eq=False)
class Checks:
    """Small tables about the plates of a screen; numbers are NaN where undefined.

    Attributes
    ----------
    plates : DataFrame, one row per plate
        ``plate, batch, n_wells, n_negcon, n_poscon, n_trt, n_empty``; ``control_cells`` (median cell
        count of its negative controls) and ``control_cells_cv`` (SD / mean);
        ``position_share, position_expected, position_excess, position_p`` (variance of the control
        wells' leading components, plate mean removed, explained by slopes and bends along rows and
        columns and the plate's edge; the share expected under random placement, exactly;
        (share - expected) / (1 - expected); p by permutation) and the same with ``cells_`` before, for
        log cell counts; ``replicate_r`` (median over its treated wells of
        the mean correlation with their replicates); ``n_outliers`` (control wells flagged so);
        ``n_reference, n_reference_off`` (reference wells compared with their history; those off);
        ``rules`` (rules that flag the plate, joined by ';').
    cells : DataFrame, one row per well
        ``plate, well, row, column, pert_type, cell_count``; row and column count from 1, 0 if unknown.
    positions : DataFrame, one row per position
        ``row, column, n_wells, n_control``; means over plates of ``cells`` (count over the median
        control of the plate, all wells), ``control_cells`` (the same, controls only) and
        ``control_pc1`` (first component of the controls, in SD).
    separation : DataFrame
        ``stage`` (before, after the steps), ``what`` (plate, batch, position), ``share``,
        ``expected``, ``n``, ``n_plates``: share of control wells whose nearest other control is of the
        same plate; or, among controls of other plates, of the same batch, at the same position.
        `expected` is the share of the candidates. A position share above it: controls cluster by layout.
    replicates : DataFrame, one row per treatment with at least two wells
        ``compound_id, concentration, n_wells, median_r, null_q95, replicating, same_position``: median
        Pearson r of its pairs of wells; 95th percentile of that for unrelated wells; whether it is
        above; share of its pairs at the same position of their plates (if 1, layout may be what
        replicates).
    map : DataFrame, one row per treatment, empty unless asked for
        ``compound_id, concentration, n_wells, map, normalised_map, p_value, corrected_p_value``.
    flags : DataFrame, one row per flag
        ``what`` (plate, well), ``plate, well, rule, value, limit, text``.
    summary : DataFrame
        ``name, value, text``: one number each, with what it means; notes have no value.
    history : Profiles or None
        Reference wells that are as expected, with controls: ``checks.history`` of later runs. `load` leaves
        them on disk.
    """

    plates: pd.DataFrame
    cells: pd.DataFrame
    positions: pd.DataFrame
    separation: pd.DataFrame
    replicates: pd.DataFrame
    map: pd.DataFrame
    flags: pd.DataFrame
    summary: pd.DataFrame
    history: Profiles | None = None

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write one Parquet file per table, e.g. ``plates.parquet``."""
        for name in _tables():
            write_table(Path(folder) / f"{name}.parquet", getattr(self, name), meta={"kind": "checks"})
        if self.history is not None:
            self.history.save(Path(folder) / KEPT)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        FileError
            If a table is absent, damaged or not one of ours.
        """
        tables = {}
        for name in _tables():
            path = Path(folder) / f"{name}.parquet"
            tables[name], meta = read_table(path)
            if meta.get("kind") != "checks":
                raise FileError(f"'{path}' is no table of plate checks. Check the plates again.")
        return cls(**tables)


def _tables() -> list[str]:
    return [field.name for field in fields(Checks) if field.name != "history"]


def check_plates(before: Profiles, after: Profiles, config: ChecksConfig, *, seed: int = 0) -> Checks:
    """Check plates and wells.

    Parameters
    ----------
    before : Profiles
        All wells as they were read, controls included.
    after : Profiles
        The wells that the steps left, normalised. The same object where there are no steps.
    config : ChecksConfig
    seed : int
        Of permutations, of the unrelated wells and of what is drawn where there is too much: more
        than 4,000 control wells (whole plates are drawn for `separation`) or 20,000 treatments.

    Raises
    ------
    ColumnError
        If the rows lack Metadata_Plate or Metadata_pert_type.
    ConfigError
        If `config` names an unknown rule, or asks for mAP where copairs is not installed.
    PhenoHitError
        If reference wells or their history are not there; `check_references` says which.
    """
    _known_rules(config)
    for name in ("Metadata_Plate", "Metadata_pert_type"):
        if name not in before.rows or name not in after.rows:
            raise ColumnError(f"Plates cannot be checked without '{name}'. Name it in profiles.columns.")
    wells, left = Layout.of(before), Layout.of(after)
    controls = np.flatnonzero(left.control & ~np.isnan(after.X).all(axis=1))
    scores, share = leading_components(after.X[controls], _COMPONENTS, left.plate[controls])
    position = plate_position(left, scores, controls, shuffles=_SHUFFLES, seed=seed)
    replicates = replicate_checks(after, left, most=_MOST_TREATMENTS, seed=seed)
    position["replicate_r"] = replicates.per_plate
    position.index = pd.Index(left.plates)
    plates = _plates(before, wells).join(position, on="plate")
    distance = np.full(len(after), np.nan)
    distance[controls] = control_distance(after.X[controls], left.plate[controls])
    references = check_references(before, after, config, seed=seed)
    flags, plates = flag(plates, wells, before, after, distance, config, references)
    stages = [("before", before, wells), ("after", after, left)][1 if before is after else 0 :]
    found = [neighbour_shares(p, lay, name, most=_MOST_CONTROLS, seed=seed) for name, p, lay in stages]
    found = [f for f in found if len(f)] or found[:1]
    table, note = checks_map.mean_average_precision(after, left, seed=seed) if config.map else (None, "")
    summary = _summary(replicates, plates, _everywhere(left, scores, controls, seed), share, table, note, references)
    log.info("plate checks: %d flags on %d plates", len(flags), flags["plate"].nunique())
    return Checks(
        plates=plates,
        cells=cell_map(before, wells),
        positions=position_map(left, scores, controls),
        separation=pd.concat(found, ignore_index=True),
        replicates=replicates.treatments,
        map=pd.DataFrame(columns=checks_map.COLUMNS) if table is None else table,
        flags=flags,
        summary=summary,
        history=references.history,
    )


def drop_flagged(profiles: Profiles, checks: Checks, config: ChecksConfig) -> tuple[Profiles, pd.DataFrame]:
    """Leave out the wells, and all wells of the plates, that rules in ``config.drop`` flag.

    Returns
    -------
    profiles : Profiles
    dropped : DataFrame
        One line per well, with the flag's text. Flagged wells without a name are kept, as they cannot be told from
        others of their plate: one line per plate and rule says so.

    Raises
    ------
    ConfigError
        For an unknown rule; names the nearest.
    """
    _known_rules(config)
    flags = checks.flags[checks.flags["rule"].isin(config.drop)]
    if not len(flags):
        return profiles, nothing_dropped()
    plate = profiles.rows["Metadata_Plate"].astype(str)
    well = (
        profiles.rows["Metadata_Well"].astype(str) if "Metadata_Well" in profiles.rows else pd.Series("", plate.index)
    )
    of_plate = flags[flags["what"] == "plate"].drop_duplicates("plate").set_index("plate")
    of_well = flags[flags["what"] == "well"]
    nameless = of_well[of_well["well"] == ""]
    of_well = of_well.drop(nameless.index).drop_duplicates(["plate", "well"]).set_index(["plate", "well"])
    reason = plate.map(of_plate["rule"] + ": " + of_plate["text"])
    place = pd.MultiIndex.from_arrays([plate, well])
    single = (of_well["rule"] + ": " + of_well["text"]).reindex(place).to_numpy()
    reason = reason.astype(object).where(reason.notna(), pd.Series(single, index=reason.index, dtype=object))
    gone = reason.notna().to_numpy()
    lost = dropped("plate checks", "well", well_names(profiles, np.flatnonzero(gone)), reason[gone].astype(str))
    nameless = nameless[~nameless["plate"].isin(list(of_plate.index))].groupby(["plate", "rule"], sort=False).size()
    reasons = [f"{rule}: {n} flagged wells have no name, so they are kept" for (_, rule), n in nameless.items()]  # pyright: ignore[reportGeneralTypeIssues]
    kept = dropped("plate checks", "plate", nameless.index.get_level_values("plate"), reasons)
    return profiles.take(~gone), pd.concat([lost, kept], ignore_index=True)


def _known_rules(config: ChecksConfig) -> None:
    for rule in config.drop:
        if rule not in RULES:
            raise ConfigError(f"checks.drop: rule '{rule}' is not known. {nearest(rule, RULES)}")


def _plates(profiles: Profiles, layout: Layout) -> pd.DataFrame:
    """Count the wells of every plate, and describe its control cell counts."""
    n = len(layout.plates)
    kind = profiles.rows["Metadata_pert_type"].astype(str).to_numpy()
    table = pd.DataFrame({"plate": layout.plates})
    batch = profiles.rows["Metadata_Batch"].astype(str) if "Metadata_Batch" in profiles.rows else None
    first = np.unique(layout.plate, return_index=True)[1]
    table["batch"] = "" if batch is None else batch.to_numpy()[first]
    table["n_wells"] = np.bincount(layout.plate, minlength=n)
    for name in ("negcon", "poscon", "trt", "empty"):
        table[f"n_{name}"] = np.bincount(layout.plate[kind == name], minlength=n)
    counts = pd.Series(np.where(layout.control, layout.cells, np.nan)).groupby(layout.plate)
    table["control_cells"] = counts.median().reindex(range(n)).to_numpy(dtype=np.float64)
    table["control_cells_cv"] = (counts.std() / counts.mean()).reindex(range(n)).to_numpy(dtype=np.float64)
    return table


def _everywhere(
    layout: Layout, scores: NDArray[np.float64], controls: NDArray[np.intp], seed: int
) -> tuple[float, float, float]:
    """Position effect over all plates together, plate means removed."""
    known = layout.row[controls] > 0
    rows = controls[known]
    if len(rows) > _MOST_CONTROLS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, _MOST_CONTROLS, replace=False))
    Y = scores[np.searchsorted(controls, rows)]
    if len(rows) < 4 or not Y.shape[1]:
        return np.nan, np.nan, np.nan
    rng = np.random.default_rng(seed)
    return explained_by_place(Y, each(layout.row[rows], layout.column[rows]), shuffles=_SHUFFLES, rng=rng)


def _summary(
    replicates: Replicates,
    plates: pd.DataFrame,
    place: tuple[float, float, float],
    share: float,
    table: pd.DataFrame | None,
    note: str,
    references: References,
) -> pd.DataFrame:
    found = replicates.treatments
    lines: list[tuple[str, float, str]] = [
        ("n_plates", len(plates), "plates"),
        ("n_replicated", len(found), "treatments with at least two wells that were compared"),
        ("components_share", share, f"of the control wells' variance is on their {_COMPONENTS} leading components"),
        ("position_share", place[0], "of that is explained by row + column over all plates, plate means removed"),
        ("position_expected", place[1], "of it would be if wells were placed at random"),
        ("position_p", place[2], "permutation p of the position effect over all plates"),
    ]
    if len(found):
        lines += [
            (
                "percent_replicating",
                100 * float(found["replicating"].mean()),
                "% of treatments above the null; 5 expected",
            ),
            ("replicate_r", float(found["median_r"].median()), "median over treatments of their replicate correlation"),
            (
                "null_r",
                float(np.median(replicates.null)) if len(replicates.null) else np.nan,
                "the same, unrelated wells",
            ),
            ("same_position", float(found["same_position"].mean()), "of the replicate pairs are at the same position"),
        ]
    if table is not None and len(table):
        lines.append(("map", float(table["map"].mean()), "mean average precision of replicates against controls"))
        shown = float((table["corrected_p_value"] < 0.05).mean())
        lines.append(("map_significant", shown, "share of treatments with corrected p below 0.05"))
    notes = {"note_replicates": replicates.note, "note_map": note, "note_reference": references.note}
    for name, text in notes.items():
        if text:
            lines.append((name, np.nan, text))
    return pd.DataFrame(lines, columns=["name", "value", "text"])
