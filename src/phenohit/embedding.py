"""Profiles from images by a network, trained here or elsewhere: one row per well, whatever the wells hold."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, FileError
from phenohit.files import read_json
from phenohit.models import find_model
from phenohit.tensors import kind_of
from phenohit.viewing import accepted_views

__all__ = ["command", "embed_store"]

log = logging.getLogger("phenohit")


def command(store: str, out: str = "embedded.parquet", model: str = "", network: dict[str, Any] = {}) -> None:  # noqa: B006
    """Turn the views of a store into profiles by a network.

    Parameters
    ----------
    store : str
        Folder of views as uint8 (images/store of a run), or the run folder.
    out : str
        Parquet file to write: one row per well, to be named as profiles.path of a config.
    model : str
        Trained model: its file, or a run whose final model sees views. Empty: a backbone of timm as it is.
    network : dict[str, Any]
        Without a model: which backbone, and from where its weights, e.g. '{backbone: convnext_base, pretrained:
        weights.safetensors}'; `pretrained: hub` fetches them over the network.
    """
    profiles = embed_store(store, model=model, network=network)
    profiles.save(out)
    print(f"Embedded: {len(profiles)} wells x {len(profiles.features)} features in {out}")


def embed_store(
    store: str | Path, *, model: str = "", network: dict[str, Any] | None = None, jobs: int = 0
) -> Profiles:
    """Embed every well of a store.

    Parameters
    ----------
    store : path
        Store of views, or a run folder that holds one.
    model : str
        File of a saved model, or a run folder; empty: a timm backbone.
    network : dict, optional
        Settings of that backbone.
    jobs : int
        Processor cores; 0: all.

    Returns
    -------
    Profiles
        One row per well with ``Metadata_*`` of the store; features of the network, means over the well's views.

    Raises
    ------
    FileError
        If there is no store or no model.
    ConfigError
        If neither a model nor a backbone with weights is named.
    """
    from phenohit.images.samples import view_rows
    from phenohit.images.store import is_store, open_store

    folder = Path(store)
    folder = folder if is_store(folder) else folder / "images" / "store"
    opened, rejected = accepted_views(open_store(folder), folder.parent)  # flags lie beside the store of a run
    if len(rejected):
        log.info("%d views that quality control rejected are left out", len(rejected))
    varying = ("Metadata_Site", "Metadata_Checksum")
    kept = [c for c in opened.views.rows if c not in varying and not c.startswith("Metadata_Illum_")]
    rows = opened.views.rows[kept].drop_duplicates(["Metadata_Plate", "Metadata_Well"], ignore_index=True)
    data, _ = view_rows(rows.assign(Metadata_compound=""), pd.DataFrame(), opened)
    fitted = _loaded(Path(model)) if model else _backbone(network or {}, data)
    fitted.jobs = jobs
    fitted.known.require(data)
    made = fitted.embed(data)
    return Profiles(made.X, rows, made.features, made.history)


def _loaded(path: Path) -> Any:
    """Load a model that sees views: its file, or the final one of a run."""
    if path.is_dir() and (path / "hits" / "plan.json").exists():
        path = path / "models" / "final" / "model" / f"{read_json(path / 'hits' / 'plan.json')['model']}.safetensors"
    kind, _, name = kind_of(path).partition(" ")
    if kind != "model" or not hasattr(find_model(name), "embed"):
        raise FileError(
            f"'{path}' is a {kind_of(path)}, which makes no features of images. Give one of an image model."
        )
    return find_model(name).load(path)


def _backbone(network: dict[str, Any], data: Any) -> Any:
    if not network.get("backbone"):
        raise ConfigError("Name a trained model, or a backbone of timm: --network '{backbone: convnext_base, ...}'.")
    if not network.get("pretrained"):
        log.warning(
            "backbone '%s' has random weights: set pretrained to a file of weights, or to hub", network["backbone"]
        )
    return find_model("timm")(network=network).untrained(data)
