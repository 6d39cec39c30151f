"""Every setting of a run: these dataclasses are the YAML and the command-line flags at once.

Paths are taken from the folder where the command is run; ``${NAME}`` stands for an environment
variable. Nothing heavy is imported here, so that ``--help`` stays instant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "ActivitySource",
    "Config",
    "EvaluateConfig",
    "HitsConfig",
    "LabelsConfig",
    "ProfileSource",
    "SplitConfig",
    "StructureSource",
]


@dataclass
class ProfileSource:
    """The feature table.

    Parameters
    ----------
    path : str
        Parquet, CSV or CSV.gz with one row per well or compound. Empty: there are no images and the
        features are ECFP6 fingerprints of the structures (a chemistry model; the report says so).
    columns : dict[str, str]
        Our name -> name in the file, for any of plate, well, batch, compound_id, smiles, inchikey,
        pert_type, concentration_uM, cell_count. Columns already called Metadata_Plate and so on need no
        entry.
    controls : dict[str, list[str]]
        Column -> values that mark a negative control, e.g. {pert_type: [negcon]}.
    features : list[str]
        Only columns that match one of these patterns; empty: every column that is a feature.
    ignore : list[str]
        Patterns of feature columns to leave out.
    unit : {"compound", "well"}
        What a model's row is. With `compound`, wells are aggregated first; with `well`, models see wells
        and their scores are averaged per compound.
    aggregate : {"median", "mean"}
        How wells become compounds.
    clip : float | None
        Features beyond this many units from 0 are set to it; empty: no clipping.
    """

    path: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    controls: dict[str, list[str]] = field(default_factory=dict)
    features: list[str] = field(default_factory=list)
    ignore: list[str] = field(default_factory=list)
    unit: Literal["compound", "well"] = "compound"
    aggregate: Literal["median", "mean"] = "median"
    clip: float | None = None


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
class ActivitySource:
    """One table of known activities.

    Parameters
    ----------
    path : str
        CSV, CSV.gz, Parquet, or .mtx (Matrix Market) for `matrix_market`.
    format : {"long", "wide", "matrix_market", "classes"}
        Long (one row per measurement), wide (one column per assay), matrix_market (compounds x assays; an
        entry that is not stored is not measured), classes (each value of a column is a task; every other
        classified compound is inactive in it).
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
        For `value`: each makes its own task; at or above is active.
    assays : list[str]
        Only columns or assays that match one of these patterns; empty: all.
    ignore : list[str]
        Columns (wide), assays (long) or classes (classes) to leave out, as patterns.
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
    format: Literal["long", "wide", "matrix_market", "classes"] = "long"
    id: str = ""
    smiles: str = ""
    inchikey: str = ""
    assay: str = "assay"
    value: str = "value"
    kind: Literal["binary", "plus_minus", "value"] = "binary"
    thresholds: list[float] = field(default_factory=list)
    assays: list[str] = field(default_factory=list)
    ignore: list[str] = field(default_factory=list)
    rows: str = ""
    tasks: str = ""
    prefix: str = ""
    min_active: int | None = None
    min_inactive: int | None = None


@dataclass
class LabelsConfig:
    """Which tasks are worth learning.

    Parameters
    ----------
    min_active, min_inactive : int
        Imaged compounds a task needs (10 and 10: Hofmarcher 2019).
    join : {"key", "skeleton"}
        Key matches compounds by full InChIKey only; skeleton adds a second, reported pass by the first
        block, which merges stereoisomers and charge forms.
    """

    min_active: int = 10
    min_inactive: int = 10
    join: Literal["key", "skeleton"] = "skeleton"


@dataclass
class SplitConfig:
    """How test compounds are kept apart from training compounds.

    Parameters
    ----------
    name : str
        Shown in the report; empty: made from the settings.
    kind : {"series", "scaffold", "compound"}
        Series (connected components at `similarity`), scaffold (Murcko), compound.
    folds : int
        Number of folds; 1 means a single hold-out with `fractions`, repeated `repeats` times.
    fractions : tuple[float, float, float]
        Train, validation and test share of a hold-out.
    repeats : int
        Hold-outs drawn.
    similarity : float
        ECFP6 Tanimoto at or above which two compounds belong to one series.
    plate_folds : int
        With 2 or more, plates are split as well: a test well's plate is never trained on. Needs
        `profiles.unit: well`.
    valid : float
        Share of the training groups used for early stopping.
    """

    name: str = ""
    kind: Literal["series", "scaffold", "compound"] = "series"
    folds: int = 5
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    repeats: int = 1
    similarity: float = 0.7
    plate_folds: int = 0
    valid: float = 0.1


@dataclass
class EvaluateConfig:
    """How results are counted.

    Parameters
    ----------
    bootstrap : int
        Replicates for the percentile intervals (Hofmarcher 2019: 1,000).
    confidence : float
        Coverage of those intervals.
    chance : int
        Repeats of random scores for the chance level of counts.
    simm_min : int
        Actives and inactives a task needs to count under the rule of Simm 2018.
    """

    bootstrap: int = 1000
    confidence: float = 0.95
    chance: int = 200
    simm_min: int = 25


@dataclass
class HitsConfig:
    """What to test next.

    Parameters
    ----------
    tasks : list[str]
        Tasks to pick for; empty: the best `best` tasks by cross-validated AUROC.
    best : int
        How many tasks to pick for when none is named.
    model : str
        Method whose scores rank, e.g. forest; empty: the best on the profiles.
    n : int
        Compounds to pick; 342 is about the non-control wells of a 384-well plate (Simm 2018).
    pool : float
        How many of the top-ranked survivors are clustered before picking, as a multiple of `n`.
    pains : bool
        Drop compounds with a PAINS alert.
    similarity : float
        ECFP6 Tanimoto at which survivors fall into one cluster.
    per_cluster : int
        Most picks of one cluster.
    volume_nl : float
        Transfer volume in the pick lists.
    """

    tasks: list[str] = field(default_factory=list)
    best: int = 3
    model: str = ""
    n: int = 342
    pool: float = 3.0
    pains: bool = True
    similarity: float = 0.7
    per_cluster: int = 5
    volume_nl: float = 25.0


def _default_models() -> dict[str, dict[str, Any]]:
    return {"forest": {}, "network": {}}


def _default_splits() -> list[SplitConfig]:
    return [SplitConfig()]


@dataclass
class Config:
    """One run: an imaging screen in, the next plate out.

    Parameters
    ----------
    name : str
        Title of the report.
    out : str
        Run folder.
    simulated : bool
        The data are simulated; every page of the report says so.
    profiles : ProfileSource
        The feature table.
    structures : StructureSource
        Structures, where the profile table has none.
    activities : list[ActivitySource]
        Tables of known activities.
    labels : LabelsConfig
        Which tasks are kept.
    splits : list[SplitConfig]
        One or more ways to split; hits are chosen by the first.
    models : dict[str, dict[str, Any]]
        Model -> its settings, for the profiles; see `phenohit models`.
    chemistry : bool
        Also run the same models on ECFP6 fingerprints, on the same folds.
    baselines : bool
        Also run base rate, and cell count and plate where known.
    evaluate : EvaluateConfig
        How results are counted.
    hits : HitsConfig
        What to test next.
    seed : int
        Same seed, same answer.
    jobs : int
        Processor cores to use; 0: all.
    """

    name: str = "PhenoHit run"
    out: str = "run"
    simulated: bool = False
    profiles: ProfileSource = field(default_factory=ProfileSource)
    structures: StructureSource = field(default_factory=StructureSource)
    activities: list[ActivitySource] = field(default_factory=list)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    splits: list[SplitConfig] = field(default_factory=_default_splits)
    models: dict[str, dict[str, Any]] = field(default_factory=_default_models)
    chemistry: bool = True
    baselines: bool = True
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    hits: HitsConfig = field(default_factory=HitsConfig)
    seed: int = 0
    jobs: int = 0
