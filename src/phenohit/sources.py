"""Settings of what goes in: profiles with their steps and checks, structures, activities with their curation.

Part of `phenohit.config`, which says how settings work. Nothing heavy is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["ActivitySource", "ChecksConfig", "CurateConfig", "Join", "ProfileSource", "Step", "StructureSource"]


@dataclass
class Join:
    """A table with more about the rows: compounds, doses, annotations.

    Parameters
    ----------
    path : str
        CSV, TSV or Parquet, optionally compressed.
    by : str
        Column of the profiles (after the plate maps are joined) that names what the table describes.
    key : str
        Column of the table with the same names; empty: the one called as `on`.
    """

    path: str
    by: str
    key: str = ""


@dataclass
class Step:
    """One step that is done to the wells before anything else; it learns from controls or a whole plate.

    Parameters
    ----------
    step : {"normalise", "sphere", "tvn"}
        Normalise (centre and scale each feature), sphere (remove the correlations that the controls
        show), tvn (typical-variation normalisation: principal components of the controls, then centre and
        scale per batch).
    method : str
        For normalise: standardize (mean, SD), mad_robustize (median, MAD) or robust_z (median, SD); for
        sphere: ZCA-cor, ZCA, PCA or PCA-cor. Empty: mad_robustize, ZCA-cor.
    by : {"plate", "batch", "all"}
        Rows that are fitted together; empty: plate for normalise, all for sphere, batch for tvn.
    reference : {"negcon", "plate"}
        Negcon fits on the negative controls of each group; plate on all its wells.
    min_controls : int
        A group with fewer reference wells is refused.
    epsilon : float
        Added to spreads by mad_robustize, and to singular values by sphere.
    limit : float
        A feature whose spread among the reference wells is so small that a well would lie further than
        this many units away is refused in that group and listed: a blow-up, not a phenotype.
    """

    step: Literal["normalise", "sphere", "tvn"]
    method: str = ""
    by: Literal["", "plate", "batch", "all"] = ""
    reference: Literal["negcon", "plate"] = "negcon"
    min_controls: int = 4
    epsilon: float = 1e-6
    limit: float = 1e6


@dataclass
class ProfileSource:
    """The features: a table, or the files of the program that measured them.

    Parameters
    ----------
    path : str
        File, folder, or address of an object store (s3://...). Empty: there are no images and the features
        are ECFP6 fingerprints of the structures (a chemistry model; the report says so).
    format : {"auto", "table", "gallery", "cellprofiler", "deepprofiler", "anndata"}
        Table (Parquet, CSV, CSV.gz, TSV: one row per well or compound), gallery (a Cell Painting Gallery
        project folder), cellprofiler (per-object CSV folders or SQLite), deepprofiler (.npz or Parquet
        embeddings), anndata (.h5ad; needs the extra `interop`). Auto: by what is found at `path`.
    level : str
        For gallery: which file of each plate, by what follows the plate in its name (augmented,
        normalized_negcon, ...), or cells (single cells of the backend), or the name of an assembled
        Parquet file; empty: the only one there is.
    batches : list[str]
        Only batches that match one of these patterns; empty: all.
    plates : list[str]
        Only plates that match one of these patterns; empty: all.
    platemaps : str
        Folder with barcode_platemap.csv and the plate maps; empty: the gallery's own place.
    joins : list[Join]
        Further tables, joined in this order.
    columns : dict[str, str]
        Our name -> name in the file, for any of plate, well, batch, site, compound_id, smiles, inchikey,
        pert_type, cell_count and concentration_uM (or _nM, _mM, _M: the unit is stated, never read off a
        column's name). Columns already called Metadata_Plate and so on need no entry.
    controls : dict[str, list[str]]
        Column -> values that mark a negative control, e.g. {pert_type: [negcon]}.
    features : list[str]
        Only columns that match one of these patterns; empty: every column that is a feature.
    ignore : list[str]
        Patterns of feature columns to leave out.
    cells : list[str]
        How single cells become wells: any of median, mean, sd, mad and quantiles such as q10. The first
        keeps the features' names; the others add __sd and so on.
    min_cells : int
        Wells with fewer cells are left out and listed.
    steps : list[Step]
        Steps on wells, in this order; empty: the profiles are normalised already.
    unit : {"compound", "well"}
        What a model's row is. With `compound`, wells are aggregated first; with `well`, models see wells
        and their scores are averaged per compound.
    aggregate : {"median", "mean", "modz"}
        How wells become compounds.
    clip : float | None
        Features beyond this many units from 0 are set to it; empty: no clipping.
    storage : dict[str, Any]
        For addresses: options of the file system, e.g. {anon: true, endpoint_url: "http://..."}.
    """

    path: str = ""
    format: Literal["auto", "table", "gallery", "cellprofiler", "deepprofiler", "anndata"] = "auto"
    level: str = ""
    batches: list[str] = field(default_factory=list)
    plates: list[str] = field(default_factory=list)
    platemaps: str = ""
    joins: list[Join] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    controls: dict[str, list[str]] = field(default_factory=dict)
    features: list[str] = field(default_factory=list)
    ignore: list[str] = field(default_factory=list)
    cells: list[str] = field(default_factory=lambda: ["median"])
    min_cells: int = 1
    steps: list[Step] = field(default_factory=list)
    unit: Literal["compound", "well"] = "compound"
    aggregate: Literal["median", "mean", "modz"] = "median"
    clip: float | None = None
    storage: dict[str, Any] = field(default_factory=dict)


@dataclass
class ChecksConfig:
    """Which plates and wells the report flags; flagged wells stay in unless `drop` is set.

    Parameters
    ----------
    enabled : bool
        Check plates where plate, well and controls are known.
    drop : list[str]
        Rules whose wells (or whole plates) are left out and listed, e.g. [few_cells]; see the docs.
    few_cells : float
        A control well with less than this share of its plate's median control count is flagged, and a
        plate whose median is below this share of all plates' median.
    position : float
        A plate is flagged where row and column explain more than this share of its control wells' variance
        beyond what is expected by chance.
    map : bool
        Also replicate mean average precision (copairs; needs the extra `qc`).
    references : dict[str, list[str]]
        Column -> values that mark wells with reference compounds, e.g. {compound_id: [Taxol]}; they are
        compared with earlier wells of the same compound and dose. Empty: they are not.
    history : str
        These earlier wells: a run folder whose checks had references, or a table of wells normalised in the
        same way. Empty: the other plates.
    """

    enabled: bool = True
    drop: list[str] = field(default_factory=list)
    few_cells: float = 0.5
    position: float = 0.25
    map: bool = False
    references: dict[str, list[str]] = field(default_factory=dict)
    history: str = ""


@dataclass
class StructureSource:
    """Structures of the compounds, where the profile table has none.

    Parameters
    ----------
    path : str
        CSV, CSV.gz, Parquet or SDF.
    id : str
        Column (SDF: property, or empty for the title line) with the compound id used elsewhere.
    smiles : str
        Column with SMILES; not used for SDF.
    """

    path: str = ""
    id: str = "compound_id"
    smiles: str = "smiles"


@dataclass
class CurateConfig:
    """Which activity records count, and how (Hofmarcher 2019; Ha's thesis).

    Parameters
    ----------
    types : list[str]
        Standard types that count; capitals do not matter.
    relations : list[str]
        Relations of an exact value.
    censored : {"ignore", "decide"}
        What becomes of values known only as above or below a bound. They are kept either way; with
        `decide`, a bound that settles a threshold labels its task where there is no exact value.
    low, high : float
        Exact values outside are implausible and not used (pChEMBL 4 to 10).
    validity : list[str]
        Data validity comments that do no harm; records with any other comment are not used.
    potential_duplicates : {"drop", "keep"}
        Records that ChEMBL marks as copies of earlier ones.
    comments : bool
        Also make a task of the activity comments (active, not active, ...) by majority vote.
    assay_types : list[str]
        Only these (B, F, A, T, P, U); empty: all.
    min_confidence : int
        Least confidence score of the assay's target.
    targets : list[str]
        Only assays of these targets, by ChEMBL id or name; empty: all.
    assays : list[str]
        Only these assays, by ChEMBL id; empty: all.
    max_spread : float | None
        Exact values of a compound in an assay that differ by more than this are contradictory, and the
        pair is not used; empty: the mean is taken whatever the spread.
    """

    types: list[str] = field(
        default_factory=lambda: [
            "IC50", "EC50", "pIC50", "pEC50", "-Log IC50", "-Log EC50", "Potency", "GI50", "AC50", "ED50",
        ]
    )  # fmt: skip
    relations: list[str] = field(default_factory=lambda: ["="])
    censored: Literal["ignore", "decide"] = "ignore"
    low: float = 4.0
    high: float = 10.0
    validity: list[str] = field(default_factory=lambda: ["Manually validated"])
    potential_duplicates: Literal["drop", "keep"] = "drop"
    comments: bool = True
    assay_types: list[str] = field(default_factory=list)
    min_confidence: int = 0
    targets: list[str] = field(default_factory=list)
    assays: list[str] = field(default_factory=list)
    max_spread: float | None = None


@dataclass
class ActivitySource:
    """One table or database of known activities.

    Parameters
    ----------
    path : str
        CSV, CSV.gz, Parquet, or .mtx (Matrix Market) for `matrix_market`; for `chembl` the SQLite file of a
        release, or the address of a PostgreSQL server (postgresql://reader@host/chembl; the password comes
        from PGPASSWORD or ~/.pgpass).
    format : {"long", "wide", "matrix_market", "classes", "chembl", "records"}
        Long (one row per measurement), wide (one column per assay), matrix_market (compounds x assays; an
        entry that is not stored is not measured), classes (each value of a column is a task; every other
        classified compound is inactive in it), chembl (a ChEMBL database), records (one row per activity
        record with type, relation and so on: the exports of ChEMBL's web pages and web services as they
        are, in-house tables by `columns`).
    id : str
        Column with the compound id used in the profiles or structures; empty if `smiles` is given.
    smiles : str
        Column with SMILES, by which compounds are matched on structure.
    inchikey : str
        Column with InChIKeys, by which compounds are matched where there are no SMILES.
    assay : str
        Column with the assay (long), or with the class (classes).
    value : str
        Column with the measurement (long).
    kind : {"binary", "plus_minus", "value"}
        Binary (0/1, active/inactive, true/false), plus_minus (1 active, -1 inactive) or value (a number
        such as pIC50).
    thresholds : list[float]
        For `value`, chembl and records: each makes its own task; at or above is active. Empty for chembl and
        records: 5.5, 6.5 and 7.5.
    assays : list[str]
        Only columns or assays that match one of these patterns; empty: all.
    ignore : list[str]
        Columns (wide), assays (long) or classes (classes) to leave out, as patterns.
    columns : dict[str, str]
        For `records` from in-house: our name -> column, for any of record, compound, smiles, inchikey,
        assay, type, relation, value, units, pchembl, comment, validity, potential_duplicate, assay_type,
        target, target_name, target_type, organism, document.
    curate : CurateConfig
        For chembl and records: which records count.
    rows : str
        For matrix_market: table whose rows are the matrix rows (with `id`, `smiles` or `inchikey`).
    tasks : str
        Table that describes assays; its first column is the assay as named here.
    prefix : str
        Put before assay names, to keep several sources apart.
    min_active, min_inactive : int | None
        Compounds a task of this table needs; empty: as in `labels`.
    """

    path: str
    format: Literal["long", "wide", "matrix_market", "classes", "chembl", "records"] = "long"
    id: str = ""
    smiles: str = ""
    inchikey: str = ""
    assay: str = "assay"
    value: str = "value"
    kind: Literal["binary", "plus_minus", "value"] = "binary"
    thresholds: list[float] = field(default_factory=list)
    assays: list[str] = field(default_factory=list)
    ignore: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    curate: CurateConfig = field(default_factory=CurateConfig)
    rows: str = ""
    tasks: str = ""
    prefix: str = ""
    min_active: int | None = None
    min_inactive: int | None = None
