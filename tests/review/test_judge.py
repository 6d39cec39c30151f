"""Promises against closed forms, novelty against RDKit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator
from scipy.stats import binom

from phenohit.review.judge import GROUPS, density, novelty, poisson_binomial, promised, scaffold_table

SMILES = np.array(
    ["c1ccccc1CCO", "c1ccccc1CCN", "c1ccncc1CCO", "CCCCCC", "C1CCNCC1C(=O)O", "c1ccccc1CCCO", "", "CC(=O)Nc1ccc(O)cc1"],
    dtype=object,
)


def test_poisson_binomial_is_binomial_where_all_are_equal_and_convolution_where_not():
    np.testing.assert_allclose(poisson_binomial(np.full(37, 0.3)), binom.pmf(np.arange(38), 37, 0.3), atol=1e-14)
    p = np.random.default_rng(0).random(9)
    expected = np.ones(1)
    for q in p:
        expected = np.convolve(expected, [1 - q, q])
    np.testing.assert_allclose(poisson_binomial(p), expected)
    assert poisson_binomial(np.zeros(0)).tolist() == [1.0]


def test_promised_and_found():
    p = np.array([0.9, 0.8, 0.7, 0.2])
    facts = promised(p, np.array([1, 1, 0, 0]), 0.25)
    assert facts["expected"] == pytest.approx(2.6)
    assert facts["found"] == 2
    assert facts["within"]
    assert facts["brier"] == pytest.approx(np.mean([0.01, 0.04, 0.49, 0.04]))
    assert facts["brier_base"] == pytest.approx(np.mean([0.5625, 0.5625, 0.0625, 0.0625]))
    pmf = poisson_binomial(p)
    assert facts["share_above"] == pytest.approx(pmf[2:].sum())
    surely = promised(np.full(200, 0.9), np.zeros(200), 0.5)
    assert not surely["within"]
    assert (surely["low"], surely["high"]) == (int(binom.ppf(0.025, 200, 0.9)), int(binom.ppf(0.975, 200, 0.9)))
    assert promised(np.zeros(3), np.zeros(3), 0.5)["within"]


def test_the_range_covers_right_probabilities():
    rng = np.random.default_rng(1)
    inside = []
    for _ in range(400):
        p = rng.random(60)
        inside.append(promised(p, rng.random(60) < p, 0.5)["within"])
    assert np.mean(inside) >= 0.93


def test_novelty_equals_rdkit():
    initial, new = np.arange(8) < 2, np.isin(np.arange(8), [2, 5])
    table = novelty(SMILES, initial, new)
    make = rdFingerprintGenerator.GetMorganGenerator(radius=4, fpSize=2048)
    prints = [make.GetFingerprint(Chem.MolFromSmiles(s)) for s in SMILES]
    assert table["group"].value_counts().to_dict() == {GROUPS[0]: 2, GROUPS[1]: 2, GROUPS[2]: 3}
    assert not (table["row"] == 6).any()  # no structure
    for row in table.itertuples():
        others = [i for i in (0, 1) if i != row.row]
        similar = DataStructs.BulkTanimotoSimilarity(prints[row.row], [prints[i] for i in others])
        assert row.similarity == pytest.approx(max(similar), abs=1e-6)
        assert row.nearest == others[int(np.argmax(similar))]


def test_novelty_without_enough_to_compare():
    one = novelty(SMILES, np.arange(8) == 0, np.arange(8) == 2)
    assert np.isnan(one.loc[one["group"] == GROUPS[0], "similarity"]).all()
    none = novelty(SMILES, np.zeros(8, bool), np.arange(8) == 2)
    assert none["similarity"].isna().all()
    assert none["nearest"].eq(-1).all()
    drawn = [novelty(SMILES, np.arange(8) == 0, np.arange(8) == 2, sample=3, seed=s)["row"].tolist() for s in (0, 0, 5)]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 5


@pytest.mark.parametrize("values", [[0.3, 0.35, 0.5], [1.0, 1.0, 1.0], [0.0, 0.02], np.linspace(0, 1, 500)])
def test_a_density_has_area_one(values):
    y = density(np.array(values), n=2001)
    assert np.trapezoid(y, dx=1 / 2000) == pytest.approx(1, abs=2e-3)
    assert density(np.array([np.nan])).sum() == 0


def test_scaffolds_are_counted_and_new_where_no_initial_hit_has_them():
    compounds = pd.DataFrame({"compound_id": list("abcdef"), "scaffold": ["X", "X", "Y", "", "Y", "Z"]})
    initial, new = np.array([1, 0, 0, 0, 0, 0], bool), np.array([0, 1, 1, 1, 1, 0], bool)
    table = scaffold_table(compounds, initial, new)
    assert table.to_dict("list") == {
        "scaffold": ["Y", "X"], "hits": [2, 1], "new": [True, False], "examples": ["c; e", "b"]
    }  # fmt: skip
    assert scaffold_table(compounds, initial, np.zeros(6, bool)).empty
