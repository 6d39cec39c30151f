"""Every setting of a run: these dataclasses are the YAML and the command-line flags at once.

Paths are taken from the folder where the command is run; ``${NAME}`` stands for an environment
variable. Nothing heavy is imported here, so that ``--help`` stays instant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from phenohit.episodic import FewShotConfig
from phenohit.imaging import ImageSource
from phenohit.sources import ActivitySource, ChecksConfig, CurateConfig, Join, ProfileSource, Step, StructureSource

__all__ = [
    "ActivitySource",
    "ChecksConfig",
    "Config",
    "CurateConfig",
    "EvaluateConfig",
    "FewShotConfig",
    "HitsConfig",
    "ImageSource",
    "Join",
    "LabelsConfig",
    "ProfileSource",
    "SplitConfig",
    "Step",
    "StructureSource",
    "TuneConfig",
    "WorkersConfig",
]


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
    max_overlap : float | None
        Of two tasks whose actives overlap by more than this (intersection over union), the one with fewer
        labels is left out (Moshkov 2023: 0.7); empty: overlaps are reported only.
    max_active_tasks : int | None
        Compounds active in more assays than this are promiscuous and lose all labels (Moshkov 2023: 30);
        empty: none.
    """

    min_active: int = 10
    min_inactive: int = 10
    join: Literal["key", "skeleton"] = "skeleton"
    max_overlap: float | None = None
    max_active_tasks: int | None = None


@dataclass
class SplitConfig:
    """How test compounds are kept apart from training compounds.

    Parameters
    ----------
    name : str
        Shown in the report; empty: made from the settings.
    kind : {"series", "scaffold", "compound", "given"}
        Series (connected components at `similarity`), scaffold (Murcko), compound; or given, made elsewhere.
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
        Share of the training groups used for early stopping; of a given split, where it has no validation part.
    path : str
        For `given`: table with a row per compound, well or view, and a column with its part (train, valid, test) or
        fold number. {part} and {repeat} stand for what differs between several files, e.g.
        datasplit{repeat}-{part}.csv.
    columns : dict[str, str]
        For `given`: our name -> column, for any of compound, inchikey, smiles, sample (PLATE-WELL-SITE), plate, well,
        part and fold; empty: by the usual names.
    """

    name: str = ""
    kind: Literal["series", "scaffold", "compound", "given"] = "series"
    folds: int = 5
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    repeats: int = 1
    similarity: float = 0.7
    plate_folds: int = 0
    valid: float = 0.1
    path: str = ""
    columns: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind == "given" and "{repeat}" in self.path:  # how many there are, the files tell
            self.folds, self.repeats = 1, max(self.repeats, 2)


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
    roc_permutations : int
        Permutations of the paired test of ROC curves, task by task, for a few pairs of methods (Hofmarcher 2019:
        2,000); 0: no such test.
    """

    bootstrap: int = 1000
    confidence: float = 0.95
    chance: int = 200
    simm_min: int = 25
    roc_permutations: int = 2000


@dataclass
class HitsConfig:
    """What to test next.

    Parameters
    ----------
    recipe : {"", "expansion", "potency"}
        Settings that belong together, for those left empty below: expansion takes the top `n` of the ranking;
        potency takes what scores above a bar, filters it by every filter that needs no choice of direction,
        and draws a handful of each cluster. Empty: the top without PAINS, by clusters.
    tasks : list[str]
        Tasks to pick for; empty: the best `best` tasks by cross-validated AUROC.
    best : int
        How many tasks to pick for when none is named.
    model : str
        Method whose scores rank, e.g. forest; empty: the best on the profiles.
    n : int
        Compounds to pick, at most; 342 is about the non-control wells of a 384-well plate (Simm 2018).
    pool : float | None
        How many of the top-ranked survivors are clustered before picking, as a multiple of `n`; .inf: all.
        Empty: 3; expansion 1; potency all.
    per_cluster : int | None
        Most picks of one cluster. Empty: 5; expansion `n`.
    fill : bool | None
        Lift that cap where the clusters run out before `n` are picked. Empty: yes; potency no.
    min_score : float | None
        Score below which nothing is picked. Empty: none; potency 0.5.
    filters : list[str] | None
        What speaks against a compound: pains, reactive, promiscuous, autofluorescent. Empty: pains; expansion
        none; potency all four.
    cns : {"", "keep", "reject"}
        Keep only compounds that should reach the brain, or only those that should not.
    off_targets : list[str]
        Tasks in which a hit must not be active; compounds that are, measured or predicted, are left out.
    off_target_max : float
        Highest score allowed in an off-target task.
    replaceable : float
        Lower end of the AUROC interval above which an assay counts as one that the images could replace.
    similarity : float
        ECFP6 Tanimoto at which survivors fall into one cluster.
    volume_nl : float
        Transfer volume in the pick lists.
    gallery : bool
        Show example views, a montage along the score and evidence maps for every task that is picked for, where the
        run has a store of views or thumbnails.
    """

    recipe: Literal["", "expansion", "potency"] = ""
    tasks: list[str] = field(default_factory=list)
    best: int = 3
    model: str = ""
    n: int = 342
    pool: float | None = None
    per_cluster: int | None = None
    fill: bool | None = None
    min_score: float | None = None
    filters: list[str] | None = None
    cns: Literal["", "keep", "reject"] = ""
    off_targets: list[str] = field(default_factory=list)
    off_target_max: float = 0.5
    replaceable: float = 0.9
    similarity: float = 0.7
    volume_nl: float = 25.0
    gallery: bool = True


@dataclass
class TuneConfig:
    """Choosing settings of models by nested cross-validation: on folds within the training rows of every fold.

    Parameters
    ----------
    grids : dict[str, Any]
        Model -> the name of a grid (network, forest: simm2018) or setting -> list of values to try. Models that are not
        named keep their settings.
    folds : int
        Inner folds.
    halving : int
        With 3, all settings are first tried on a small share of the training compounds, the best third goes on to
        three times as many, and so on; 0: all on everything.
    """

    grids: dict[str, Any] = field(default_factory=dict)
    folds: int = 3
    halving: int = 0

    def choice(self, model: str) -> list[Any]:
        """Return what the choice for a model depends on."""
        return [self.grids[model], self.folds, self.halving]

    def shares(self, cells: int) -> list[float]:
        """Return the share of the training rows in every round, the last of which is all."""
        rounds = 0
        while self.halving and self.halving ** (rounds + 1) <= cells and rounds < 3:
            rounds += 1
        return [float(self.halving) ** -k for k in range(rounds, 0, -1)] + [1.0]


@dataclass
class WorkersConfig:
    """Who measures images and tries settings.

    Parameters
    ----------
    kind : {"processes", "threads", "ray", "dask"}
        This machine, or a cluster whose machines see the run folder and the images under the same paths.
    address : str
        Of the cluster; empty: the one that is running here, or a new one on this machine.
    """

    kind: Literal["processes", "threads", "ray", "dask"] = "processes"
    address: str = ""


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
    images : ImageSource
        Raw images, where profiles are to be made of them.
    profiles : ProfileSource
        The feature table; with images its `path` stays empty and the rest says what to do with their wells.
    checks : ChecksConfig
        Which plates and wells the report flags.
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
    tune : TuneConfig
        Choosing settings of models within every fold.
    chemistry : bool
        Also run the same models on ECFP6 fingerprints, on the same folds.
    baselines : bool
        Also run base rate, and cell count and plate where known.
    evaluate : EvaluateConfig
        How results are counted.
    hits : HitsConfig
        What to test next.
    fewshot : FewShotConfig
        Episodes and methods of `phenohit fslcp`.
    workers : WorkersConfig
        Processes of this machine, or a cluster.
    seed : int
        Same seed, same answer.
    jobs : int
        Processor cores to use; 0: all.
    """

    name: str = "PhenoHit run"
    out: str = "run"
    simulated: bool = False
    images: ImageSource = field(default_factory=ImageSource)
    profiles: ProfileSource = field(default_factory=ProfileSource)
    checks: ChecksConfig = field(default_factory=ChecksConfig)
    structures: StructureSource = field(default_factory=StructureSource)
    activities: list[ActivitySource] = field(default_factory=list)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    splits: list[SplitConfig] = field(default_factory=_default_splits)
    models: dict[str, dict[str, Any]] = field(default_factory=_default_models)
    tune: TuneConfig = field(default_factory=TuneConfig)
    chemistry: bool = True
    baselines: bool = True
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    hits: HitsConfig = field(default_factory=HitsConfig)
    fewshot: FewShotConfig = field(default_factory=FewShotConfig)
    workers: WorkersConfig = field(default_factory=WorkersConfig)
    seed: int = 0
    jobs: int = 0
