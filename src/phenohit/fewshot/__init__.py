"""Few labels: episodes, the methods that learn from them, and the benchmark. This table is the registry of methods."""

from __future__ import annotations

from typing import Any

from phenohit.registry import names, resolve

__all__ = ["METHODS", "find_method", "method_names"]

METHODS = {
    "rate": "phenohit.fewshot.simple:Rate",  # baseline: active share of the support
    "neighbours": "phenohit.fewshot.simple:Neighbours",  # vote of the nearest support compounds
    "logistic": "phenohit.fewshot.logistic:Logistic",  # penalty chosen within the support
    "forest": "phenohit.fewshot.trees:Forest",
    "xgboost": "phenohit.fewshot.trees:XGBoost",
    "singletask": "phenohit.fewshot.finetune:SingleTask",  # a network from scratch
    "multitask": "phenohit.fewshot.finetune:MultiTask",  # a network that knows other assays, head or whole tuned
    "prototypes": "phenohit.fewshot.prototypes:Prototypes",  # Snell et al. 2017
    "maml": "phenohit.fewshot.maml:Maml",  # Finn et al. 2017
    "prototypes_images": "phenohit.fewshot.image_methods:ImagePrototypes",  # the same two on views
    "maml_images": "phenohit.fewshot.image_methods:ImageMaml",
    "macau": "phenohit.fewshot.macau:Macau",  # the few labels as one more assay of a factorisation
}


def find_method(name: str) -> Any:
    """Return the method class called `name`; an unknown name lists the nearest."""
    return resolve(name, METHODS, "phenohit.fewshot")


def method_names() -> list[str]:
    """Return the names of all methods, plugins included."""
    return names(METHODS, "phenohit.fewshot")
