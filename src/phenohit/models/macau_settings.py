"""Settings of Macau."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from phenohit.models.contract import require

__all__ = ["MacauSettings"]


@dataclass(frozen=True)
class MacauSettings:
    """Settings of `Macau`.

    Parameters
    ----------
    preset : {"", "simm2018"}
        `simm2018` stands for the settings of Simm 2018 (150 latent dimensions, 2,000 sweeps of which 400 are burn-in,
        fixed precision 10, values rather than hidden ones); settings given beside it win.
    latent : int
        Latent dimensions K.
    sweeps, burn_in : int
        Sweeps of a chain, and how many of them at its beginning are not used.
    keep : int
        Sweeps kept for predictions, evenly spaced over all chains.
    chains : int
        Independent chains, one after another; with two or more, R-hat tells whether they agree.
    likelihood : {"auto", "probit", "gaussian"}
        Of binary labels. Probit (auto) gives probabilities; gaussian takes 0 and 1 for values, as other programs
        do. Tasks that hold values are gaussian always.
    noise : {"fixed", "adaptive"}
        Whether the precision of values is given or drawn.
    precision : float
        Of values around their prediction, where it is fixed: 10 is a standard deviation of 0.32 pIC50 units.
    centre : {"assay", "global", "none"}
        What is subtracted from the values before: the mean of each assay (drawn towards the mean of all by one
        measurement), of all, or nothing. For probit the same on the scale of hidden values.
    link_precision : float
        Precision of the link from features to latent vectors; where it begins.
    fixed_link : bool
        Keep `link_precision` instead of drawing it.
    device : {"cpu", "cuda"}
        Where chains are sampled. Cuda is experimental: its draws are tested, on a GPU they have not been run. Chains
        on either are of the same distribution, not the same numbers.
    held_out : float
        Share of the labels, of assays with 100 and more, that are not trained on but followed: the error shown
        while chains are sampled is theirs. At most 2,000 labels; 0: none.
    assay_features : str
        Table (CSV or Parquet) of what is known of the assays: a column ``assay``, and numbers. Assays with like
        features then share what they learn. None if empty.
    half : bool
        Keep sweeps in float16: half the size of the model file, and differences of a thousandth.
    """

    preset: Literal["", "simm2018"] = ""
    latent: int = 32
    sweeps: int = 600
    burn_in: int = 200
    keep: int = 100
    chains: int = 1
    likelihood: Literal["auto", "probit", "gaussian"] = "auto"
    noise: Literal["fixed", "adaptive"] = "fixed"
    precision: float = 10.0
    centre: Literal["assay", "global", "none"] = "assay"
    link_precision: float = 5.0
    fixed_link: bool = False
    device: Literal["cpu", "cuda"] = "cpu"
    held_out: float = 0.01
    assay_features: str = ""
    half: bool = True

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "simm2018": {
            "latent": 150, "sweeps": 2000, "burn_in": 400, "likelihood": "gaussian", "noise": "fixed",
            "precision": 10.0, "centre": "global",
        }
    }  # fmt: skip

    def __post_init__(self) -> None:
        for name in ("latent", "sweeps", "keep", "chains"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(0 <= self.burn_in < self.sweeps, "burn_in", self.burn_in, f"from 0 to below sweeps ({self.sweeps})")
        require(0 <= self.held_out < 1, "held_out", self.held_out, "a share from 0 to below 1")
        for name in ("precision", "link_precision"):
            require(0 < getattr(self, name) < float("inf"), name, getattr(self, name), "a number above 0")

    @property
    def kept_sweeps(self) -> list[int]:
        """Numbers of the sweeps of a chain that are kept, counted from 1."""
        used = self.sweeps - self.burn_in
        n = min(max(-(-self.keep // self.chains), 1), used)
        return sorted({self.burn_in + round((i + 1) * used / n) for i in range(n)})
