"""Settings of the few-shot benchmark: which episodes are drawn, and who learns from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["FewShotConfig"]


def _methods() -> dict[str, dict[str, Any]]:
    return {name: {} for name in ("rate", "neighbours", "logistic", "forest", "prototypes", "multitask", "macau")}


@dataclass
class FewShotConfig:
    """Which episodes are drawn, and who learns from them.

    Parameters
    ----------
    methods : dict[str, Any]
        Name -> settings, one of which may be `method`, so that one method can run twice with other settings. Names:
        rate, neighbours, logistic, forest, xgboost, singletask, multitask, prototypes, maml, macau, and on views
        prototypes_images, maml_images.
    sizes : list[int]
        Support sizes.
    query : int
        Compounds scored in an episode.
    episodes : int
        Episodes of a task.
    unit : {"compound", "well"}
        What is drawn; well puts replicates of one compound on both sides, as the published benchmark does, and is there
        for comparison only.
    apart : {"compound", "series"}
        What never stands in support and query of one episode: a compound, or a chemical series.
    tests : list[str]
        Test tasks; empty: all that have `min_compounds` and an active share within `share`.
    n_tests : int
        Most test tasks, drawn at random where there are more; 0: all.
    min_compounds : int
        Measured compounds that a test task needs (Ha: 96); a support of M needs M + `query` besides.
    share : tuple[float, float]
        Lowest and highest active share of a test task.
    valid : float
        Share of the other tasks that methods stop by.
    inputs : list[str]
        What methods learn from: profiles, ecfp (fingerprints of the structures), embedding, or several joined by +, as
        profiles+embedding; each method runs on each. Empty: profiles, or ecfp where there are none.
    embedding : str
        Features of a network on images, as `phenohit embed` writes them, for inputs that name them.
    leak : bool
        Also draw wells as if they were compounds, and report how much that flatters; needs profiles.unit: well.
    reference : str
        Method that gains and losses are told against.
    """

    methods: dict[str, Any] = field(default_factory=_methods)
    sizes: list[int] = field(default_factory=lambda: [8, 16, 32, 64, 96])
    query: int = 32
    episodes: int = 100
    unit: Literal["compound", "well"] = "compound"
    apart: Literal["compound", "series"] = "compound"
    tests: list[str] = field(default_factory=list)
    n_tests: int = 0
    min_compounds: int = 96
    share: tuple[float, float] = (0.3, 0.7)
    valid: float = 0.125
    inputs: list[str] = field(default_factory=list)
    embedding: str = ""
    leak: bool = False
    reference: str = "singletask"
