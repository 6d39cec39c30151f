"""Do something to every different structure once, on several cores, in bounded pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed, effective_n_jobs
from numpy.typing import NDArray

from phenohit.progress import track

__all__ = ["clean", "over_unique"]

_FEW = 2_000  # starting worker processes costs about a second: below this one process is faster


def clean(smiles: Iterable[Any]) -> list[str]:
    """Return SMILES as stripped text; anything missing (None, NaN) becomes ''."""
    return ["" if s is None or s is pd.NA or s != s else str(s).strip() for s in smiles]


def over_unique(
    work: Callable[[list[str]], NDArray[Any]],
    smiles: Sequence[str],
    *,
    jobs: int,
    title: str,
    few: int = _FEW,
) -> NDArray[Any]:
    """Apply `work` to the different SMILES and spread its answer back over all of them.

    Parameters
    ----------
    work : function
        Takes a list of n SMILES (stripped, may be ''), returns an array whose first axis has length
        n. It must be importable (worker processes call it) and must treat each SMILES by itself.
    smiles : sequence of str, length N
    jobs : int
        Processes; 0 or less means all cores. The backend is joblib's current one, so that
        ``joblib.parallel_config`` moves the work to a cluster.
    title : str
        Shown with the progress.
    few : int
        At or below this many different SMILES the work stays in this process.

    Returns
    -------
    array, first axis N
    """
    text = clean(smiles)
    codes, different = pd.factorize(np.array(text, dtype=object))
    unique = [str(s) for s in different]
    n_jobs = effective_n_jobs(jobs if jobs > 0 else -1)
    if n_jobs == 1 or len(unique) <= few:
        size = max(few, 1)
        pieces = [unique[i : i + size] for i in range(0, max(len(unique), 1), size)]
        done = [work(piece) for piece in track(pieces, title)]
    else:
        # Several pieces per worker: costs differ from structure to structure.
        size = max(100, min(5_000, -(-len(unique) // (8 * n_jobs))))
        pieces = [unique[i : i + size] for i in range(0, len(unique), size)]
        answers = Parallel(n_jobs=n_jobs, return_as="generator")(delayed(work)(piece) for piece in pieces)
        done = list(track(answers, title, total=len(pieces)))
    return np.concatenate(done)[codes]
