"""From the settings a user gave to every setting decided: recipes fill what was left empty."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from phenohit.config import HitsConfig
from phenohit.errors import ConfigError, nearest
from phenohit.hits.choose import check_choice
from phenohit.hits.filter import FILTERS, GROUP
from phenohit.hits.picklist import check_volume
from phenohit.registry import names

__all__ = ["DEFAULTS", "RECIPES", "Recipe", "decide"]

DEFAULTS: dict[str, Any] = {"pool": 3.0, "per_cluster": 5, "fill": True, "min_score": None, "filters": ["pains"]}

# What each recipe sets differently. Simm et al. 2018: the oncology project took the 342 highest of the ranking; the
# CNS project took what was predicted submicromolar, filtered it, and drew a handful of each chemical cluster.
RECIPES: dict[str, dict[str, Any]] = {
    "": {},
    "expansion": {"pool": 1.0, "per_cluster": None, "filters": []},
    "potency": {
        "pool": math.inf,
        "fill": False,
        "min_score": 0.5,
        "filters": ["pains", "reactive", "promiscuous", "autofluorescent"],
    },
}


@dataclass(frozen=True)
class Recipe:
    """How hits are chosen, every setting decided; the names are those of `HitsConfig`.

    Attributes
    ----------
    filters : tuple of str
        In the order of `phenohit.hits.filter.FILTERS`, with ``cns`` and ``off_targets`` where these are asked for.
    min_score : float or None
        The bar; None: none.
    preset_bar : bool
        The bar is the recipe's, not the user's.
    """

    recipe: str
    n: int
    pool: float
    per_cluster: int
    fill: bool
    min_score: float | None
    preset_bar: bool
    filters: tuple[str, ...]
    cns: Literal["", "keep", "reject"]
    off_targets: tuple[str, ...]
    off_target_max: float
    similarity: float
    volume_nl: float

    @property
    def settings(self) -> dict[str, Any]:
        """What `HitsConfig` would have to hold for the same, as plain values."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items() if key != "preset_bar"}


def decide(config: HitsConfig) -> Recipe:
    """Fill the settings that were left empty from the recipe, and check them all.

    Parameters
    ----------
    config : HitsConfig

    Returns
    -------
    Recipe

    Raises
    ------
    ConfigError
        For a recipe or filter that is not known (names the nearest), and for impossible values.

    Examples
    --------
    >>> decide(HitsConfig(recipe="potency", n=141)).filters
    ('pains', 'reactive', 'promiscuous', 'autofluorescent')
    """
    if config.recipe not in RECIPES:
        raise ConfigError(f"hits.recipe is '{config.recipe}'. {nearest(config.recipe, [r for r in RECIPES if r])}")
    filled = {**DEFAULTS, **RECIPES[config.recipe]}
    given = {key: getattr(config, key) for key in DEFAULTS}
    filled |= {key: value for key, value in given.items() if value is not None}
    if filled["per_cluster"] is None:
        filled["per_cluster"] = config.n
    check_choice(config.n, filled["pool"], config.similarity, filled["per_cluster"])
    check_volume(config.volume_nl)
    for name in ("min_score", "off_target_max", "replaceable"):
        value = filled.get(name, getattr(config, name))
        if value is not None and not math.isfinite(value):
            raise ConfigError(f"hits.{name} is {value}; it must be a finite number.")
    if config.cns not in ("", "keep", "reject"):
        raise ConfigError(f"hits.cns is '{config.cns}'. Expected keep, reject, or nothing.")
    filled["filters"] = _filters(filled["filters"], config)
    return Recipe(
        recipe=config.recipe,
        n=config.n,
        preset_bar=config.min_score is None,
        cns=config.cns,
        off_targets=tuple(dict.fromkeys(config.off_targets)),
        off_target_max=config.off_target_max,
        similarity=config.similarity,
        volume_nl=config.volume_nl,
        **filled,
    )


def _filters(wanted: list[str], config: HitsConfig) -> tuple[str, ...]:
    """Check the names of filters and put them in order; `cns` and `off_targets` are switched by their settings."""
    known = names(FILTERS, GROUP)
    for name in wanted:
        if name not in known:
            raise ConfigError(f"hits.filters: '{name}' is not known. {nearest(name, known)}")
        for switch, value in (("cns", "hits.cns: keep or reject"), ("off_targets", "hits.off_targets: the tasks")):
            if name == switch and not getattr(config, switch):
                raise ConfigError(f"hits.filters names {name}, but nothing says how to filter. Set {value}.")
    chosen = {*wanted, *(name for name in ("cns", "off_targets") if getattr(config, name))}
    return tuple(name for name in known if name in chosen)
