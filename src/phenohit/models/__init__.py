"""The models. Each is one file; this table is the whole registry."""

from __future__ import annotations

from typing import Any

from phenohit.registry import names, resolve

__all__ = ["MODELS", "find_model", "model_names", "sees"]

MODELS = {
    "forest": "phenohit.models.forest:Forest",  # per-assay random forest (Simm 2018, Table S2)
    "network": "phenohit.models.network:Network",  # masked multitask network (Simm 2018, Table S1)
    "macau": "phenohit.models.macau:Macau",  # Bayesian matrix factorisation with side information (Simm 2018)
    "logistic": "phenohit.models.logistic:Logistic",  # per-assay logistic regression
    "gapnet": "phenohit.models.image_models:GapNet",  # networks on views (Hofmarcher 2019)
    "milnet": "phenohit.models.image_models:MilNet",
    "mcnn": "phenohit.models.image_models:MCnn",
    "resnet101": "phenohit.models.image_models:ResNet101",
    "densenet121": "phenohit.models.image_models:DenseNet121",
    "timm": "phenohit.models.image_models:Timm",  # any backbone of timm
    "sccnn": "phenohit.models.image_models:ScCnn",  # on crops of single cells (Hofmarcher 2019)
    "rate": "phenohit.models.rate:Rate",  # baseline: active share of the assay, or of the plate
}


def find_model(name: str) -> Any:
    """Return the model class called `name`; an unknown name lists the nearest."""
    return resolve(name, MODELS, "phenohit.models")


def sees(name: str) -> str:
    """Return what a model learns from: profiles (any table of features), views or crops."""
    return getattr(find_model(name), "sees", "profiles")


def model_names() -> list[str]:
    """Return the names of all models, plugins included."""
    return names(MODELS, "phenohit.models")
