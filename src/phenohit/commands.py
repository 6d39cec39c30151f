"""What each sub-command does; a command is a function, and its parameters are its flags."""

from __future__ import annotations

import logging

from phenohit.config import Config

__all__ = [
    "annotate",
    "chemistry",
    "data",
    "deconvolve",
    "evaluate",
    "fit",
    "hits",
    "images",
    "labels",
    "leaks",
    "models",
    "predict",
    "report",
    "review",
    "run",
    "select",
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


def images(config: Config) -> None:
    """Check the views of raw images, find their cells, measure them, and make wells: profiles for any later run."""
    from phenohit.headline import headline_of_images
    from phenohit.pipeline import run_study

    print(headline_of_images(run_study(config, until="images")))


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


def select(config: Config) -> None:
    """Choose settings of the models of `tune.grids`, anew within every fold."""
    _until(config, "select")


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
    """List the models and few-shot methods that a config may name, with their settings."""
    from phenohit import fewshot
    from phenohit.models import find_model, model_names

    for title, names, find in (
        ("", model_names(), find_model),
        ("Few-shot methods (fewshot.methods)", fewshot.method_names(), fewshot.find_method),
    ):
        if title:
            print(f"\n{title}\n")
        for name in names:
            kind = find(name)
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


def annotate(run: str, out: str, tasks: list[str] = [], min_auroc: float = 0.7, call_at: float = 0.5) -> None:  # noqa: B006
    """Write scores, calls and how sure they are for every imaged compound in every task that can be predicted.

    Parameters
    ----------
    run : str
        Run folder that ended with hits.
    out : str
        File to write, .parquet or .csv: one row per compound and task.
    tasks : list[str]
        Only these; empty: all that reach `min_auroc`.
    min_auroc : float
        Cross-validated AUROC that a task needs.
    call_at : float
        Score from which a compound is called active.
    """
    from phenohit.annotating import annotate_run

    n = annotate_run(run, out, tasks, min_auroc, call_at)
    print(
        f"{out}: {n['rows']:,} rows, {n['compounds']:,} compounds x {n['tasks']:,} tasks, {n['active']:,} called active"
    )


def deconvolve(
    run: str,
    task: str,
    out: str = "deconvolution.csv",
    tasks: list[str] = [],  # noqa: B006
    min_auroc: float = 0.7,
) -> None:
    """Rank the assays whose scores and labels match the actives of a task, e.g. of a phenotypic screen.

    Parameters
    ----------
    run : str
        Run folder that ended with hits.
    task : str
        The task whose target is sought.
    out : str
        CSV or Parquet file to write, best match first.
    tasks : list[str]
        Candidates; empty: all tasks that reach `min_auroc`.
    min_auroc : float
        Cross-validated AUROC that a candidate needs.
    """
    from phenohit.annotating import deconvolve_run

    table = deconvolve_run(run, task, out, tasks, min_auroc)
    shown = table[["rank", "task", "auroc", "p_holm", "active_hits", "active_measured", "p_labels_holm"]].head(10)
    print(shown.to_string(index=False))
    print(f"{len(table):,} candidates are in {out}")


def review(
    run: str,
    results: str,
    task: str = "",
    primary: str = "",
    id: str = "",
    smiles: str = "",
    inchikey: str = "",
    value: str = "",
    threshold: float | None = None,
    n: int = 0,
) -> None:
    """Review what the lab measured for the picks of a run, fold it into the labels, suggest the next round.

    Parameters
    ----------
    run : str
        Run folder that ended with hits.
    results : str
        CSV, TSV or Parquet: one row per compound, with what was measured.
    task : str
        Task that was measured; empty where the run picked for one only.
    primary : str
        Actives and tested compounds of the primary screen (34/4690), or its hit rate (0.725%); empty: the
        run's labels.
    id, smiles, inchikey : str
        Columns that name the compound; empty: those with a usual name.
    value : str
        Column with the outcome (active/inactive, 0/1) or a number; empty: one with a usual name.
    threshold : float | None
        At or above it a number is active; empty: the task's own.
    n : int
        Compounds suggested in each mode; 0: as many as the run picked.
    """
    from phenohit.review.build import review_run
    from phenohit.review.results import Columns
    from phenohit.review.words import headline

    columns = Columns(id, smiles, inchikey, value)
    folder = review_run(run, results, task=task, primary=primary, columns=columns, threshold=threshold, n=n)
    print(headline(folder))


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
