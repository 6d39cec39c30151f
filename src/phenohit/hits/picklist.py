"""From picks to liquid handling: which source well goes into which destination well.

The wells of the imaged plates are a stand-in for source wells. Where the compound store keeps its
stock elsewhere, which is the rule, give the store's own table in their place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from string import ascii_uppercase

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.data.dropped import dropped
from phenohit.errors import ColumnError, ConfigError, PlateError, some
from phenohit.hits.choose import lottery

__all__ = ["ECHO_COLUMNS", "LAYOUTS", "Layout", "check_volume", "echo", "pick_list", "source_wells", "to_echo"]

STEP_NL = 2.5  # volume of one acoustic droplet
LAYOUTS = {96: (8, 12), 384: (16, 24), 1536: (32, 48)}  # wells of a plate -> rows, columns

_ROWS = [*ascii_uppercase, "AA", "AB", "AC", "AD", "AE", "AF"]
_NAMES = np.array([[f"{row}{column:02d}" for column in range(1, 49)] for row in _ROWS], dtype=object)

ECHO_COLUMNS = [
    "Source Plate Barcode", "Source Plate Type", "Source Well",
    "Destination Plate Barcode", "Destination Well", "Transfer Volume",
]  # fmt: skip
_LIST_COLUMNS = [
    "pick_order", "compound", "compound_id", "smiles", "source_plate", "source_well",
    "destination_plate", "destination_well", "volume_nl", "concentration_uM",
]  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """Where picks may go on a destination plate.

    Parameters
    ----------
    wells : int
        96, 384 or 1536.
    control_columns : tuple[int, ...] | None
        Columns kept free for controls; None: the first and the last. On a 384-well plate this leaves columns 2
        to 23, 16 x 22 = 352 wells, so that 342 picks fit on one plate.
    barcode : str
        Name of the plates, with the place for their number.
    """

    wells: int = 384
    control_columns: tuple[int, ...] | None = None
    barcode: str = "DEST-{:03d}"

    def free(self) -> list[str]:
        """Return the wells that picks may use, row by row, such as A02.

        Raises
        ------
        ConfigError
            If the plate is of no known size or no well is left.
        """
        if self.wells not in LAYOUTS:
            raise ConfigError(f"A destination plate with {self.wells} wells is not known; take one of {some(LAYOUTS)}.")
        n_rows, n_columns = LAYOUTS[self.wells]
        kept = (1, n_columns) if self.control_columns is None else self.control_columns
        odd = [c for c in kept if not 1 <= c <= n_columns]
        if odd:
            message = (
                f"Control columns {some(odd)} do not exist; a {self.wells}-well plate has columns 1 to {n_columns}."
            )
            raise ConfigError(message)
        columns = [c for c in range(1, n_columns + 1) if c not in kept]
        if not columns:
            raise ConfigError(f"All {n_columns} columns are kept for controls. Leave at least one column to the picks.")
        return [str(_NAMES[row, column - 1]) for row in range(n_rows) for column in columns]


def check_volume(volume_nl: float) -> None:
    """Refuse a volume that cannot be made of whole droplets.

    Raises
    ------
    ConfigError
        Telling the nearest volumes that can.
    """
    steps = volume_nl / STEP_NL
    if math.isfinite(steps) and round(steps) >= 1 and abs(steps - round(steps)) < 1e-6:
        return
    near = {STEP_NL}
    if math.isfinite(steps) and steps > 1:
        near = {math.floor(steps) * STEP_NL, math.ceil(steps) * STEP_NL}
    message = (
        f"hits.volume_nl is {volume_nl} nL, but acoustic transfers come in droplets of {STEP_NL} nL. "
        f"Nearest: {some(f'{v:g} nL' for v in sorted(near))}."
    )
    raise ConfigError(message.replace("'", ""))


def source_wells(table: pd.DataFrame, wells: pd.DataFrame | None) -> pd.DataFrame:
    """Find the source well of each row of `table`: the first by plate, then by well.

    Parameters
    ----------
    table : DataFrame, N rows
        Columns ``compound`` and ``compound_id``.
    wells : DataFrame or None
        Columns ``compound`` or else ``compound_id``, ``plate``, ``well`` and, where known,
        ``concentration_uM`` and ``plate_type``.

    Returns
    -------
    DataFrame, N rows with the index of `table`
        ``plate``, ``well`` (A01; both empty where there is none), ``concentration_uM``,
        ``plate_type``, all text.

    Raises
    ------
    ColumnError, PlateError
        If a column is absent, or a well is not written like A1, A01 or AF48.
    """
    columns = ["plate", "well", "concentration_uM", "plate_type"]
    if wells is None or not len(wells):
        return pd.DataFrame("", index=table.index, columns=columns, dtype=object)
    key = "compound_id" if "compound" not in wells and "compound_id" in wells else "compound"
    absent = [c for c in (key, "plate", "well") if c not in wells]
    if absent:
        raise ColumnError(f"The table of source wells lacks {some(absent)}; it has {some(wells.columns)}.")
    wanted = table[key].astype(str).astype(object)
    # Object columns: text kept by pyarrow is several times slower to search and sort.
    known = pd.DataFrame(
        {c: wells[c].fillna("").astype(str).astype(object) if c in wells else "" for c in [key, *columns]}
    )
    known = known[known[key].isin(wanted) & (known["plate"].str.strip() != "") & (known["well"].str.strip() != "")]
    row, column = _parse(known["well"])
    known = known.assign(well=_NAMES[row, column - 1], _row=row, _column=column)
    known = known.sort_values([key, "plate", "_row", "_column", "concentration_uM"]).drop_duplicates(key).set_index(key)
    return known[columns].reindex(wanted).fillna("").astype(object).set_index(table.index)


def pick_list(
    table: pd.DataFrame,
    wells: pd.DataFrame | None,
    *,
    volume_nl: float = 25.0,
    layout: Layout | None = None,
    seed: int | None = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Assign every pick a source well and a destination well.

    Parameters
    ----------
    table : DataFrame
        Columns ``compound``, ``compound_id``, ``smiles``, ``picked``, ``pick_order``.
    wells : DataFrame or None
        Where the compounds are: the imaged wells or, better, the compound store's own. See
        `source_wells`; of several wells the first by plate, then well is used.
    volume_nl : float, default 25
        A multiple of 2.5 nL.
    layout : Layout, optional
        Default: 384 wells, columns 1 and 24 kept for controls, plates DEST-001, DEST-002, ...
    seed : int or None, default 0
        Picks fill plates in pick order, but within a plate they are shuffled over the wells in use,
        so that a high score does not go with one edge of the plate. None: no shuffling.

    Returns
    -------
    picklist : DataFrame
        In order of destination plate and well: pick_order, compound, compound_id, smiles,
        source_plate, source_well, destination_plate, destination_well, volume_nl, and
        concentration_uM and plate_type of the source (empty if unknown).
    dropped : DataFrame
        Picks without a source well.
    """
    check_volume(volume_nl)
    picks = table[table["picked"].to_numpy(dtype=bool)].sort_values("pick_order")
    found = source_wells(picks, wells)
    has = (found["plate"] != "").to_numpy()
    lost = dropped(
        "pick list", "hit", picks["compound_id"][~has], "picked, but no source well is known: not in the pick lists"
    )
    picks, found = picks[has], found[has]
    plate, well = _destinations(picks["compound"].to_numpy(dtype=object), layout or Layout(), seed)
    out = pd.DataFrame(
        {
            "pick_order": picks["pick_order"].to_numpy(),
            "compound": picks["compound"].to_numpy(),
            "compound_id": picks["compound_id"].to_numpy(),
            "smiles": picks["smiles"].to_numpy(),
            "source_plate": found["plate"].to_numpy(),
            "source_well": found["well"].to_numpy(),
            "destination_plate": plate,
            "destination_well": well,
            "volume_nl": np.full(len(picks), float(volume_nl)),
            "concentration_uM": found["concentration_uM"].to_numpy(),
            "plate_type": found["plate_type"].to_numpy(),
        }
    )
    row, column = _parse(out["destination_well"])
    out = out.iloc[np.lexsort((column, row, plate.astype(str)))].reset_index(drop=True)
    return out[[*_LIST_COLUMNS, "plate_type"]], lost


def to_echo(picklist: pd.DataFrame, *, source_type: str = "") -> pd.DataFrame:
    """Write a pick list as an Echo transfer table, in order of source plate and well.

    Parameters
    ----------
    picklist : DataFrame
        From `pick_list`.
    source_type : str
        Plate type as the instrument names it. Empty: ``plate_type`` of the source where known, else
        1536LDV_DMSO for plates with a well beyond P24 and 384PP_DMSO2 for the others.

    Returns
    -------
    DataFrame
        Columns of `ECHO_COLUMNS`; wells unpadded (A1), ``Transfer Volume`` in nL.
    """
    row, column = _parse(picklist["source_well"])
    large = pd.Series((row >= 16) | (column > 24)).groupby(picklist["source_plate"].to_numpy()).transform("any")
    guessed = np.where(large.to_numpy(dtype=bool), "1536LDV_DMSO", "384PP_DMSO2").astype(object)
    given = picklist["plate_type"].to_numpy(dtype=object) if "plate_type" in picklist else np.full(len(row), "", object)
    kind = np.where(given != "", given, guessed) if not source_type else np.full(len(row), source_type, dtype=object)
    columns = [
        picklist["source_plate"], kind, _unpadded(picklist["source_well"]),
        picklist["destination_plate"], _unpadded(picklist["destination_well"]), picklist["volume_nl"],
    ]  # fmt: skip
    table = pd.DataFrame(dict(zip(ECHO_COLUMNS, columns, strict=True)))
    order = np.lexsort((column, row, picklist["source_plate"].astype(str).to_numpy(dtype=object)))
    return table.iloc[order].reset_index(drop=True)


def echo(
    table: pd.DataFrame,
    wells: pd.DataFrame | None,
    *,
    volume_nl: float = 25.0,
    layout: Layout | None = None,
    seed: int | None = 0,
    source_type: str = "",
) -> pd.DataFrame:
    """Return the Echo transfer table of the picks: `pick_list`, then `to_echo`."""
    made, _ = pick_list(table, wells, volume_nl=volume_nl, layout=layout, seed=seed)
    return to_echo(made, source_type=source_type)


def _destinations(
    keys: NDArray[np.object_], layout: Layout, seed: int | None
) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """Return plate and well of each pick; the picks come in their order."""
    free = np.array(layout.free(), dtype=object)
    plates, wells = np.empty(len(keys), dtype=object), np.empty(len(keys), dtype=object)
    for number, start in enumerate(range(0, len(keys), len(free)), start=1):
        part = slice(start, start + len(free))
        here = keys[part]
        order = np.arange(len(here)) if seed is None else np.argsort(lottery(here, seed), kind="stable")
        plates[part] = layout.barcode.format(number)
        wells[part] = free[np.argsort(order)]  # the pick drawn first gets the first well
    return plates, wells


def _parse(wells: pd.Series) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return row (from 0) and column (from 1) of wells such as A1, A01, AF48, at most 1536-well plates."""
    code, different = pd.factorize(wells.astype(str))
    names = pd.Series(different, dtype=object).astype(str)
    parts = names.str.strip().str.upper().str.extract(r"^([A-Z]|A[A-F])0*([1-9][0-9]?)$")
    column = pd.to_numeric(parts[1], errors="coerce").fillna(99).to_numpy(dtype=np.int64)
    bad = parts[0].isna().to_numpy() | (column > LAYOUTS[1536][1])
    if bad.any():
        message = f"These are no wells: {some(names[bad])}. Expected a row and a column such as A1, P24 or AF48."
        raise PlateError(message)
    row = np.array([ord(name[-1]) - 65 + 26 * (len(name) - 1) for name in parts[0]], dtype=np.int64)
    return row[code], column[code]


def _unpadded(wells: pd.Series) -> list[str]:
    """Write A01 as A1."""
    row, column = _parse(wells)
    return [f"{_ROWS[r]}{c}" for r, c in zip(row, column, strict=True)]
