"""Macau against SMURFF 1.1 on real matrices with fingerprints: the same held-out errors, cold and warm.

Both samplers are exact, with the same priors; their predictions may differ by what chains of one program differ by
from seed to seed. Cold are compounds of which nothing was trained on, by chemical series; warm are entries of
compounds of which others were. ``bench/macau_parity.py`` compares the same on the whole matrices.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.special import ndtr
from scipy.stats import rankdata

from phenohit.chem.fingerprints import ecfp
from phenohit.chem.series import series
from phenohit.data.labels import Labels
from phenohit.data.profiles import Profiles
from phenohit.evaluate.splits import TEST, holdout
from phenohit.models.macau import Macau
from phenohit.profiles.inputs import fingerprint_table
from phenohit.profiles.prepare import Prepare

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("parity")]  # what SMURFF gives is computed once

FILES = {"broad270": "labels-broad270-subset/label_matrix_81.parquet", "hti209": "labels-hti209/label_matrix.parquet"}
VALUES = "fsmol-test-valid/tasks.parquet"
SUBMICROMOLAR = 6.0  # pIC50 above which a value counts as active in AUCs
SEEDS = (1, 2, 3)
ERRORS = 3.5  # standard errors by which two means may differ,
FLOOR = {"rmse": 0.003, "auc": 0.01}  # and what they may differ by besides
RATIO = 2.5  # squared difference of the mean predictions, over what is expected of the same distribution


class Length(NamedTuple):
    """Of a chain: latent dimensions, sweeps thrown away and sweeps used."""

    latent: int
    burn_in: int
    used: int


@dataclass(frozen=True)
class Problem:
    """A matrix of which some entries are trained on, some of known compounds held out, and all of new ones."""

    data: Profiles
    train: sparse.coo_array
    held: dict[str, sparse.coo_array]  # "warm" and "cold"
    binary: bool
    precision: float
    centre: str = "global"
    likelihood: str = "gaussian"


def read(folder: Path, name: str, least: int) -> tuple[np.ndarray, np.ndarray]:
    """SMILES and a matrix with NaN where not measured, of compounds with so many entries at least."""
    if name in FILES:
        table = pd.read_parquet(folder / FILES[name])
        dense = table.select_dtypes("Int8").to_numpy(float, na_value=np.nan)
        smiles = table["smiles"].to_numpy(object)
    else:
        smiles, dense = read_values(folder / VALUES, least)
    chosen = (~np.isnan(dense)).sum(1) >= least
    return smiles[chosen], dense[chosen]


def read_values(path: Path, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of exact values; medians of compounds measured twice, assays with 50 compounds at least."""
    from rdkit import Chem, rdBase

    table = pd.read_parquet(path)
    table = table[(table["Relation"] == "=") & table["LogRegressionProperty"].notna()]
    often = table.groupby("Assay_ID")["SMILES"].transform("nunique") >= 50
    table = table[often & (table.groupby("SMILES")["Assay_ID"].transform("nunique") >= least)]
    names, code = np.unique(table["SMILES"].astype(str), return_inverse=True)
    with rdBase.BlockLogs():
        molecules = [Chem.MolFromSmiles(s) for s in names]
    canonical = np.array([Chem.MolToSmiles(m) if m else "" for m in molecules], dtype=object)
    table = table.assign(compound=canonical[code])
    table = table[table["compound"] != ""]  # phosphorus with five bonds and a hydrogen: 0.3 %
    wide = table.pivot_table(index="compound", columns="Assay_ID", values="LogRegressionProperty", aggfunc="median")
    return wide.index.to_numpy(object), wide.to_numpy()


def problem(
    folder: Path,
    name: str,
    *,
    compounds: int = 1 << 40,
    tasks: int = 1 << 40,
    least: int = 1,
    bits: int = 512,
    **how: Any,
) -> Problem:
    """Some compounds, half of them active somewhere, in the assays with most of their rarer class (or of values)."""
    smiles, dense = read(folder, name, least)
    rng = np.random.default_rng(0)
    binary = name in FILES
    n, active = (~np.isnan(dense)).sum(0), np.nansum(dense, axis=0)
    rarer = np.minimum(active, n - active) if binary else n
    dense = dense[:, np.sort(np.argsort(-rarer, kind="stable")[:tasks])]
    rows = rng.permutation(np.flatnonzero((~np.isnan(dense)).any(1)))
    if binary and compounds < len(rows):
        rows = np.concatenate([(first := rows[(dense[rows] == 1).any(1)][: compounds // 2]), np.setdiff1d(rows, first)])
    rows = np.sort(rows[:compounds])
    smiles, dense = smiles[rows], dense[rows]
    table = pd.DataFrame({"compound": [f"C{i:05d}" for i in range(len(rows))]})
    groups = series(ecfp(smiles.tolist()), jobs=1)
    cold = holdout(groups, fractions=(0.8, 0.0, 0.2), rows=table).part[:, :1] == TEST
    measured = ~np.isnan(dense)
    chosen = measured & (rng.random(dense.shape) < 0.1)
    stays = np.where(measured, rng.random(dense.shape), -1).argmax(1)  # no warm compound is left without any entry
    chosen[np.arange(len(rows)), stays] = False
    parts = {"train": measured & ~cold & ~chosen, "warm": chosen & ~cold, "cold": measured & cold}
    known = [len(np.unique(column[shown])) > 1 for column, shown in zip(dense.T, parts["train"].T, strict=True)]
    dense = dense[:, known]
    cut = {part: mask[:, known] for part, mask in parts.items()}
    # Not by scipy from the dense matrix: it would lose the inactives, which are zeros.
    taken = {part: sparse.coo_array((dense[m], np.nonzero(m)), shape=dense.shape) for part, m in cut.items()}
    data = fingerprint_table(table["compound"].to_numpy(object), ecfp(smiles.tolist(), n_bits=bits))
    return Problem(data, taken.pop("train"), taken, binary, 10.0 if binary else 4.0, **how)


def prepared(given: Problem) -> Problem:
    """Centre and scale the bits as the pipeline does; they stay packed."""
    seen = given.data.take(np.unique(given.train.coords[0]))
    return replace(given, data=Prepare.fit(seen, prune=False, common=True).apply(given.data))


def offsets(given: Problem) -> np.ndarray:
    """What is subtracted from the values of every assay: (T,)."""
    mean, T = given.train.data.mean(), given.train.shape[1]
    if given.centre != "assay":
        return np.full(T, mean if given.centre == "global" else 0.0)
    n = np.bincount(given.train.coords[1], minlength=T)
    return (np.bincount(given.train.coords[1], weights=given.train.data, minlength=T) + mean) / (n + 1)


def fitted(given: Problem, seed: int, length: Length, **other: Any) -> Macau:
    """Fit as a user does; `other` settings make another model of it."""
    names = [f"t{j}" for j in range(given.train.shape[1])]
    kind = "binary" if given.binary else "value"
    tasks = pd.DataFrame({"task": names, "assay": names, "kind": kind, "threshold": np.nan})
    labels = Labels(given.train.tocsr().astype(np.float32), pd.DataFrame({"compound": given.data.compounds}), tasks)
    settings = {
        "latent": length.latent, "sweeps": length.burn_in + length.used, "burn_in": length.burn_in,
        "keep": length.used, "precision": given.precision, "centre": given.centre, "likelihood": given.likelihood,
        "link_precision": 5.0, "half": False,
    }  # fmt: skip
    return Macau(**{**settings, **other}).fit(given.data, labels, seed=seed)


def ours(given: Problem, model: Macau) -> dict[str, np.ndarray]:
    """Predict the held-out entries, warm and cold."""
    score = model.predict(given.data).score
    return {part: score[held.coords].astype(float) for part, held in given.held.items()}


def theirs(given: Problem, seed: int, length: Length) -> dict[str, np.ndarray]:
    """Predict the same by SMURFF: direct solver, sparse features unless they are centred."""
    with warnings.catch_warnings():  # of its docstrings
        warnings.simplefilter("ignore")
        import smurff
    X = np.asarray(given.data.X[:], float)
    X = sparse.csr_matrix(X) if given.data.X.shift is None else X
    shift, probit = offsets(given), given.likelihood == "probit"
    row, column = (np.concatenate([held.coords[i] for held in given.held.values()]) for i in (0, 1))
    values = np.concatenate([held.data for held in given.held.values()])
    # It does not centre; and only COO keeps entries that are 0.
    train, test = (
        sparse.coo_matrix((y - shift[j], (i, j)), shape=given.train.shape)
        for y, i, j in ((given.train.data, *given.train.coords), (values, row, column))
    )
    session = smurff.TrainSession(
        priors=["macau", "normal"], num_latent=length.latent, burnin=length.burn_in, nsamples=length.used,
        seed=seed, num_threads=1, verbose=0,
    )  # fmt: skip
    noise = smurff.ProbitNoise(0.5) if probit else smurff.FixedNoise(given.precision)
    session.addTrainAndTest(train, test, noise, is_scarce=True)
    session.addSideInfo(0, X, smurff.SampledNoise(5.0), direct=True)
    found = {p.coords: (p.pred_avg, p.var / (p.nsamples - 1)) for p in session.run()}
    out = {}
    for part, held in given.held.items():
        mean, variance = np.array([found[i, j] for i, j in zip(*held.coords, strict=True)]).T
        mean = mean + shift[held.coords[1]]
        if probit:  # it returns hidden values
            mean = ndtr(mean / np.sqrt(1 + variance))
        out[part] = np.clip(mean, 0, 1) if given.binary else mean
    return out


def auc(active: np.ndarray, score: np.ndarray) -> float:
    n = int(active.sum())
    return float((rankdata(score)[active].sum() - n * (n + 1) / 2) / (n * (len(active) - n)))


def errors(given: Problem, part: str, score: np.ndarray) -> dict[str, float]:
    """Pooled RMSE and AUC, and the mean AUC of assays with ten held-out entries of each class, where five have them."""
    held = given.held[part]
    active = held.data > (0.5 if given.binary else SUBMICROMOLAR)
    found = []
    for task in range(held.shape[1]):
        own = held.coords[1] == task
        if min(active[own].sum(), (~active[own]).sum()) >= 10:
            found.append(auc(active[own], score[own]))
    rmse = float(np.sqrt(((score - held.data) ** 2).mean()))
    by_assay = float(np.mean(found)) if len(found) >= 5 else np.nan
    return {"rmse": rmse, "auc": auc(active, score), "auc by assay": by_assay}


Found = list[dict[str, np.ndarray]]  # by seed


def compared(given: Problem, mine: Found, peer: Found) -> pd.DataFrame:
    """Differences of the two programs' errors and of their predictions, and how large they may be.

    ``ratio`` is the summed squared difference of the predictions' means over seeds, divided by what the spread over
    seeds lets expect: near 1 if both programs sample one distribution.
    """
    rows = []
    for part in given.held:
        figures = [pd.DataFrame([errors(given, part, seed[part]) for seed in who]) for who in (mine, peer)]
        mean, sd = ([f.agg(how) for f in figures] for how in ("mean", "std"))
        for what in figures[0].columns[figures[0].notna().all()]:
            error = np.sqrt(sum(s[what] ** 2 / len(f) for s, f in zip(sd, figures, strict=True)))
            allowed = ERRORS * error + FLOOR[what[:4].strip()]
            rows.append((part, what, mean[0][what], mean[1][what], abs(mean[0][what] - mean[1][what]), allowed))
        a, b = (np.array([seed[part] for seed in who]) for who in (mine, peer))
        expected = (a.var(0, ddof=1) / len(a) + b.var(0, ddof=1) / len(b)).sum()
        rows.append((part, "ratio", np.nan, np.nan, ((a.mean(0) - b.mean(0)) ** 2).sum() / expected, RATIO))
    table = pd.DataFrame(rows, columns=["part", "what", "ours", "smurff", "difference", "allowed"])
    return table.assign(fine=table["difference"] <= table["allowed"])


SMALL = {
    "broad270": {"compounds": 1000, "tasks": 18},
    "hti209": {"compounds": 1000, "tasks": 40, "least": 4},
    "fsmol": {"compounds": 700, "tasks": 60, "least": 5, "centre": "assay"},  # fewer entries each: chains mix slowly
}
SHORT = Length(latent=16, burn_in=80, used=240)


@cache
def small(folder: Path, name: str) -> tuple[Problem, Found]:
    """A part of a matrix, and what SMURFF predicts."""
    source, _, how = name.partition(" ")
    given = problem(folder, source, **SMALL[source], bits=256 if how else 512)
    if how:  # features as users get them; SMURFF is slow with those, which are not sparse
        given = replace(prepared(given), likelihood="probit", centre="none")
    return given, [theirs(given, seed, SHORT) for seed in SEEDS]


@pytest.mark.parametrize("name", ["broad270", "fsmol", "hti209 probit"])
def test_held_out_errors_are_those_of_smurff(name: str, shared_data: Path) -> None:
    given, peer = small(shared_data, name)
    table = compared(given, [ours(given, fitted(given, seed, SHORT)) for seed in SEEDS], peer)
    print(f"{name}\n{table.round(4).to_string(index=False)}")
    assert table["fine"].all(), table.to_string()


@pytest.mark.parametrize(
    ("other", "errors_too"),
    [({"link_precision": 1000.0, "fixed_link": True}, True), ({"precision": 30.0}, False)],
    ids=["link", "noise"],
)
def test_another_model_is_told_apart(other: dict[str, Any], errors_too: bool, shared_data: Path) -> None:
    """The bounds are narrow enough to see another prior, or another noise."""
    given, peer = small(shared_data, "hti209")
    table = compared(given, [ours(given, fitted(given, seed, SHORT, **other)) for seed in SEEDS], peer)
    by_prediction = table["what"] == "ratio"
    assert not table.loc[by_prediction, "fine"].any(), table.to_string()
    if errors_too:
        assert not table.loc[table["what"] == "rmse", "fine"].any(), table.to_string()
