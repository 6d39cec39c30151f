"""Settings of the simulated screen; imports nothing heavy, so that the command line can show them at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from phenohit.errors import ConfigError

__all__ = ["KINDS", "SimulateSettings"]

KINDS = ("morphology", "invisible", "cytotoxicity", "chemistry")
"""Kinds of simulated assays, by what can see them."""

_SHARES = ("series_share", "pains_share", "salt_share", "stereo_share", "core_mechanism", "cliff", "toxic_share")
_SHARES += ("hidden_share", "dose_series_share", "redundancy", "bad_wells", "fill", "repeats", "bad_views", "shading")
_AMOUNTS = ("mechanisms_per_series", "series_sd", "effect", "plate_effect", "batch_effect", "position_effect")
_AMOUNTS += ("measurement_sd", "unseen_sd")


@dataclass(frozen=True)
class SimulateSettings:
    """A simulated screen: how large, how noisy, and which assays.

    Potencies are in log units (pIC50, pEC50: minus log10 of the molar concentration); effects on features
    are in standard deviations of DMSO wells.

    Parameters
    ----------
    n_compounds : int
        Compounds in the library.
    series_share : float
        Share of compounds that belong to a chemical series.
    pains_share : float
        Share of compounds built around a rhodanine, quinone or catechol.
    salt_share : float
        Share of compounds written as a salt or solvate.
    stereo_share : float
        Share of compounds that come with their mirror image as a compound of its own.
    n_mechanisms : int
        Independent biological mechanisms that change morphology.
    mechanisms_per_series : float
        Mechanisms a series or singleton hits, on average (Poisson, four at most).
    core_mechanism : float
        Share of series that hit the mechanism typical of their core: what structure can know of biology.
    series_sd : float
        Spread of potency within a series.
    cliff : float
        Chance that a compound loses an activity of its series.
    toxic_share : float
        Share of series and singletons that kill cells.
    cell_shift : float
        Log units of potency lost between a biochemical assay and the imaged cell.
    n_features : int
        Features per well.
    n_constant : int
        Features of these that never change.
    redundancy : float
        Mean share of a feature's noise that it has in common with its group of features.
    effect : float
        Change of an affected feature at full response to one mechanism.
    dose_uM : float
        Dose of every compound.
    dose_series_uM : tuple[float, ...]
        Further doses of the compounds that have a dose series.
    dose_series_share : float
        Share of compounds with a dose series.
    n_replicates : int
        Wells per compound and dose, each on another plate.
    n_batches : int
        Batches over which the plates are spread; replicates of a plate stay in one batch.
    plate_effect : float
        Size of a plate's offset and scale, before normalisation.
    batch_effect : float
        How much the response to mechanisms differs between batches (log scale).
    position_effect : float
        Size of edge, row and column effects; they are left in the data.
    bad_wells : float
        Share of wells with five times the noise and fewer cells.
    plate_wells : {384, 96}
        Wells of a plate.
    images : int
        Views per well to draw as images, from which profiles are then to be measured; 0: profiles, no images.
    image_size : int
        Side of a view in pixels; a nucleus measures about 18.
    image_channels : {3, 5}
        3: DNA, ER and AGP; 5: DNA, ER, RNA, AGP and Mito.
    traits : tuple[str, ...]
        Traits of cells that mechanisms change, e.g. er_grain (`phenohit.images.draw_traits.TRAITS`); empty: any.
    bad_views : float
        Share of views that are blurred, saturated, empty, dark or have debris in them, by turns.
    shading : float
        Light lost in the corners of a view, about; each plate and channel has its own.
    normalise : {"standard", "robust"}
        How each plate is scaled to its DMSO wells: standard (mean, SD) or robust (median, MAD).
    n_morphology : int
        Assays driven by mechanisms that change morphology.
    n_invisible : int
        Assays driven by something that neither images nor structures show.
    n_cytotoxicity : int
        Assays driven by cell death alone.
    n_chemistry : int
        Assays driven by functional groups and logP, which morphology does not show.
    hidden_share : float
        Share of compounds active in an invisible assay.
    threshold : float
        PIC50 at or above which a compound is active.
    measurement_sd : float
        Spread of repeated measurements.
    unseen_sd : float
        Spread of a compound's true value around what its kind of data can show.
    fill : float
        Share of the compound-assay pairs that were measured.
    fill_bias : float
        0: measured at random; above: actives are measured more often (log odds per standard deviation).
    repeats : float
        Share of the measured pairs that were measured a second time.
    n_hits : int
        Compounds to pick in the settings file that is written; 0: a twentieth of the library, 342 at most.
    n_trees : int
        Trees of the random forest in the settings file that is written.
    seed : int
        Same seed, same screen.
    """

    n_compounds: int = 800
    series_share: float = 0.6
    pains_share: float = 0.03
    salt_share: float = 0.03
    stereo_share: float = 0.02
    n_mechanisms: int = 12
    mechanisms_per_series: float = 1.6
    core_mechanism: float = 0.2
    series_sd: float = 0.45
    cliff: float = 0.1
    toxic_share: float = 0.28
    cell_shift: float = 1.0
    n_features: int = 120
    n_constant: int = 3
    redundancy: float = 0.6
    effect: float = 1.5
    dose_uM: float = 10.0
    dose_series_uM: tuple[float, ...] = (1.0, 3.0, 30.0, 100.0)
    dose_series_share: float = 0.05
    n_replicates: int = 2
    n_batches: int = 2
    plate_effect: float = 0.5
    batch_effect: float = 0.15
    position_effect: float = 0.4
    bad_wells: float = 0.005
    plate_wells: Literal[384, 96] = 384
    images: int = 0
    image_size: int = 256
    image_channels: Literal[3, 5] = 3
    traits: tuple[str, ...] = ()
    bad_views: float = 0.05
    shading: float = 0.3
    normalise: Literal["standard", "robust"] = "standard"
    n_morphology: int = 8
    n_invisible: int = 3
    n_cytotoxicity: int = 2
    n_chemistry: int = 3
    hidden_share: float = 0.3
    threshold: float = 6.0
    measurement_sd: float = 0.35
    unseen_sd: float = 0.6
    fill: float = 0.35
    fill_bias: float = 0.0
    repeats: float = 0.1
    n_hits: int = 0
    n_trees: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name in _SHARES:
            _require(self, name, 0 <= getattr(self, name) <= 1, "a share between 0 and 1")
        for name in _AMOUNTS:
            _require(self, name, getattr(self, name) >= 0, "0 or more")
        for name in ("n_compounds", "n_mechanisms", "n_replicates", "n_batches", "n_trees"):
            _require(self, name, getattr(self, name) >= 1, "1 or more")
        for name in (f"n_{kind}" for kind in KINDS):
            _require(self, name, getattr(self, name) >= 0, "0 or more")
        _require(self, "n_constant", 0 <= self.n_constant < self.n_features, f"below n_features ({self.n_features})")
        _require(self, "dose_uM", self.dose_uM > 0, "a dose above 0 uM")
        _require(self, "dose_series_uM", all(dose > 0 for dose in self.dose_series_uM), "doses above 0 uM")
        _require(self, "plate_wells", self.plate_wells in (96, 384), "96 or 384")
        _require(self, "images", self.images >= 0, "0 or more")
        _require(self, "image_size", 64 <= self.image_size <= 4096, "64 to 4,096 pixels")
        _require(self, "image_channels", self.image_channels in (3, 5), "3 or 5")
        _require(self, "n_hits", self.n_hits >= 0, "0 or more")
        _require(self, "seed", self.seed >= 0, "0 or more")
        if self.dose_uM in self.dose_series_uM:
            raise ConfigError(
                f"settings.dose_series_uM holds {self.dose_uM:g}, the dose of every compound. Leave it out."
            )


def _require(settings: SimulateSettings, name: str, holds: bool, expected: str) -> None:
    """Raise a ConfigError that names the setting unless `holds`."""
    if not holds:
        raise ConfigError(f"settings.{name} is {getattr(settings, name)!r}. Expected: {expected}.")
