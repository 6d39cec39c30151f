"""What each sub-command does; a command is a function, and its parameters are its flags."""

from __future__ import annotations

import logging

from phenohit.config import Config

__all__ = [
    "chemistry",
    "data",
    "evaluate",
    "fit",
    "hits",
    "labels",
    "leaks",
    "models",
    "predict",
    "report",
    "run",
    "split",
]

log = logging.getLogger("phenohit")


def _until(config: Config, step: str) -> None:
    from phenohit.pipeline import run_study

    folder = run_study(config, until=step)
    log.info("Results are in %s", folder)


def run(config: Config) -> None:
    """Go the whole way: tables in, ranked hit list and report out."""
    from phenohit.headline import headline
    from phenohit.pipeline import run_study

    folder = run_study(config)
    print(headline(folder))


def data(config: Config) -> None:
    """Read profiles and structures and identify every compound."""
    _until(config, "data")


def chemistry(config: Config) -> None:
    """Make fingerprints, chemical series and scaffolds."""
    _until(config, "chemistry")


def labels(config: Config, explain: str = "") -> None:
    """Turn activities into tasks; --explain "COMPOUND in TASK" tells why a label is what it is, or absent."""
    _until(config, "labels")
    if explain:
        from phenohit.labels.explain import explain as answer

        print(answer(f"{config.out}/labels.parquet", explain, skeleton=config.labels.join == "skeleton"))


def split(config: Config) -> None:
    """Make the folds and check them for leaks."""
    _until(config, "split")


def fit(config: Config) -> None:
    """Cross-validate every model and baseline."""
    _until(config, "fit")


def evaluate(config: Config) -> None:
    """Score every task, with intervals and chance levels."""
    _until(config, "evaluate")


def hits(config: Config) -> None:
    """Rank, filter and pick compounds to test next."""
    _until(config, "hits")


def report(config: Config) -> None:
    """Write report.html."""
    _until(config, "report")


def models() -> None:
    """List the models that a config may name, with their settings."""
    from phenohit.models import find_model, model_names

    for name in model_names():
        kind = find_model(name)
        print(f"{name:<10} {(kind.__doc__ or '').strip().splitlines()[0]}")
        settings = getattr(kind(), "settings", None)
        for key, value in (vars(settings) if settings is not None else {}).items():
            print(f"  {key} = {value!r}")


def predict(run: str, profiles: str, out: str = "predictions.parquet") -> None:
    """Score new profiles with the final model of a run.

    Parameters
    ----------
    run : str
        Run folder that ended with hits.
    profiles : str
        Profile table in the same form as the run's own (its column map is used).
    out : str
        Parquet file to write: row, compound, task, score.
    """
    from phenohit.applying import apply_run

    left_out = apply_run(run, profiles, out)
    print(f"Predictions: {out}; {len(left_out)} things left out are listed beside it with their reasons")


def leaks(
    folds: str, structures: str, id: str = "compound_id", smiles: str = "smiles", similarity: float = 0.7
) -> None:
    """Check any table of folds for leaks: shared compounds, skeletons, series, near neighbours.

    Parameters
    ----------
    folds : str
        CSV or Parquet with the compound id and a column `fold`.
    structures : str
        CSV, Parquet or SDF with the structures.
    id : str
        Column with the compound id, in both tables.
    smiles : str
        Column with SMILES.
    similarity : float
        ECFP6 Tanimoto at or above which two compounds count as close.
    """
    from phenohit.applying import check_folds

    table = check_folds(folds, structures, id=id, smiles=smiles, similarity=similarity)
    print(table.to_string(index=False))
