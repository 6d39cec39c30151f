"""An open run with its settings, and what its steps wrote."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from phenohit.config import Config, SplitConfig
from phenohit.data.labels import Labels
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, nearest, some
from phenohit.evaluate.given import split_files
from phenohit.evaluate.nested import grid_cells
from phenohit.evaluate.splits import Folds
from phenohit.evaluate.splitting import compound_folds
from phenohit.files import read_table
from phenohit.hits.recipes import decide
from phenohit.models import find_model, sees
from phenohit.profiles import inputs
from phenohit.profiles.checks_flags import RULES as CHECK_RULES
from phenohit.runs import Run, slug

__all__ = ["Method", "Study", "check_config", "split_name"]


class Method(NamedTuple):
    """One model on one input, e.g. ``forest-profiles``."""

    name: str
    model: str
    input: str
    settings: dict[str, Any]


@dataclass
class Study:
    """An open run with its settings, and what earlier steps wrote, loaded when first asked for."""

    run: Run
    config: Config

    @property
    def jobs(self) -> int:
        """Processor cores to use."""
        return self.config.jobs or os.cpu_count() or 1

    @property
    def has_images(self) -> bool:
        """False where the features are fingerprints of the structures."""
        return bool(self.config.profiles.path)

    @cached_property
    def profiles(self) -> Profiles:
        """The treated wells or compounds."""
        return Profiles.load(self.run.path("profiles.parquet"))

    @cached_property
    def rows(self) -> Profiles:
        """The same wells or compounds without their features: seconds less to read, gigabytes less to hold."""
        return Profiles.load(self.run.path("profiles.parquet"), features=False)

    @cached_property
    def compounds(self) -> pd.DataFrame:
        """One row per imaged compound: identity, series, scaffold."""
        return read_table(self.run.path("compounds.parquet"))[0]

    @cached_property
    def fingerprints(self) -> NDArray[np.uint8]:
        """ECFP6 of every compound, packed; zeros where there is no structure."""
        return np.load(self.run.path("fingerprints.npy"), allow_pickle=False)

    @cached_property
    def labels(self) -> Labels:
        """Labels of every imaged compound, in the order of `compounds`."""
        return Labels.load(self.run.path("labels.parquet"))

    def folder(self, name: str) -> Path:
        """Return a folder inside the run folder, made if need be."""
        path = self.run.folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def row_compound(self, data: Profiles) -> NDArray[np.intp]:
        """Return the position in `compounds` of every row of a profile table."""
        return pd.Index(self.compounds["compound"]).get_indexer(pd.Index(data.compounds))

    def splits(self) -> list[tuple[str, SplitConfig]]:
        """Return name and settings of every split; the first one serves the hits."""
        named = [(split_name(s), s) for s in self.config.splits]
        names = [n for n, _ in named]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"Every split needs a name of its own, but they are: {some(names)}. Set `name`.")
        return named

    def folds(self, split: str, source: str) -> Folds:
        """Return the folds of a split for the rows of an input: wells, or compounds."""
        folds = Folds.load(self.run.path("splits", slug(split), "folds.parquet"))
        compounds = self.compounds["compound"].to_numpy(object)
        if source != "ecfp" or np.array_equal(folds.rows["compound"].to_numpy(object), compounds):
            return folds
        return compound_folds(folds, compounds)  # wells were split, and these rows are compounds

    @cached_property
    def methods(self) -> list[Method]:
        """Everything that is cross-validated: models, the same on chemistry, baselines."""
        main = "profiles" if self.has_images else "ecfp"
        models = self.config.models.items()
        seen = {m: sees(m) for m, _ in models}
        inputs_of = {m: main if kind == "profiles" else kind for m, kind in seen.items()}
        chosen = [Method(f"{m}-{inputs_of[m]}", m, inputs_of[m], s) for m, s in models]
        if self.has_images and self.config.chemistry and self.fingerprints.any():
            chosen += [Method(f"{m}-ecfp", m, "ecfp", s) for m, s in models if seen[m] == "profiles"]
        if self.config.baselines:
            chosen.append(Method("rate-base", "rate", "base", {}))
        if self.config.baselines and self.has_images:
            if inputs.cell_count_table(self.rows) is not None:
                chosen.append(Method("logistic-cell_count", "logistic", "cell_count", {}))
            if inputs.plate_table(self.rows) is not None:
                chosen.append(Method("rate-plate", "rate", "plate", {"by": "plate"}))
        return chosen

    def input(self, name: str) -> Any:
        """Return the feature table called profiles, ecfp, cell_count, plate or base, or the views or crops."""
        if name in ("views", "crops"):
            from phenohit.viewing import image_rows

            return image_rows(self, name)[0]
        if name == "profiles":
            return self.profiles
        if name == "ecfp":
            return inputs.fingerprint_table(self.compounds["compound"].to_numpy(object), self.fingerprints)
        made = {"cell_count": inputs.cell_count_table, "plate": inputs.plate_table, "base": inputs.no_features}
        table = made[name](self.rows)
        assert table is not None  # `methods` names an input only where it exists
        return table

    def joined(self, source: str) -> tuple[str, ...]:
        """Name the step that an input depends on besides the profiles."""
        return ("join",) if source in ("views", "crops") else ()

    def preparing(self, source: str) -> dict[str, Any]:
        """Return how an input is prepared: its scaling, and where it is clipped."""
        scale = {"profiles": "each", "cell_count": "each", "ecfp": "common"}.get(source, "none")
        return {"scale": scale, "clip": self.config.profiles.clip if source == "profiles" else None}


def split_name(split: SplitConfig) -> str:
    """Return the name of a split: its own, or one made from its settings."""
    name = split.kind if split.folds > 1 else f"{split.kind}-holdout"
    return split.name or (f"{name}-plates" if split.plate_folds > 1 else name)


def check_config(config: Config, *, labels: bool = True) -> None:
    """Find what cannot work before any time is spent.

    Parameters
    ----------
    config : Config
    labels : bool
        Whether activities will be needed.

    Raises
    ------
    ConfigError
        Naming the setting and what to do.
    """
    for model, settings in config.models.items():
        find_model(model)(**settings)
        kind = sees(model)
        there = {"profiles": True, "views": config.images.store, "crops": config.images.measure.crops > 0}
        if kind != "profiles" and not (config.images.path and there[kind]):
            how = "images.store: true" if kind == "views" else "images.measure.crops: 96"
            raise ConfigError(f"Model '{model}' learns from {kind}. Set images.path and {how}.")
    for model, grid in config.tune.grids.items():
        if model not in config.models:
            raise ConfigError(f"tune.grids names '{model}', which is not run. {nearest(model, config.models)}")
        grid_cells(model, config.models[model], grid)
    if config.tune.grids and (config.tune.folds < 2 or config.tune.halving == 1 or config.tune.halving < 0):
        raise ConfigError("tune.folds must be at least 2, and tune.halving 0 or at least 2.")
    if not config.models:
        raise ConfigError("No model is named. Set `models`, e.g. models: {forest: {}}. See: phenohit models")
    if labels and not config.activities:
        raise ConfigError("No activities are named. Add at least one table under `activities`.")
    if not config.profiles.path and not config.structures.path:
        raise ConfigError("Neither `profiles.path` nor `structures.path` is set: there is nothing to learn from.")
    decide(config.hits)
    for rule in config.checks.drop:
        if rule not in CHECK_RULES:
            raise ConfigError(f"checks.drop: rule '{rule}' is not known. {nearest(rule, CHECK_RULES)}")
    for split in config.splits:
        if split.kind == "given":
            split_files(split)
        if split.plate_folds > 1 and config.profiles.unit != "well":
            raise ConfigError(
                f"Split '{split_name(split)}' leaves plates out, but `profiles.unit` is 'compound', "
                "whose rows span plates. Set profiles.unit: well."
            )
