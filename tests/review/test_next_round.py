"""Suggestions: nothing measured, farthest first by brute force, isolated compounds left out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from phenohit.chem.fingerprints import ecfp
from phenohit.data.labels import Labels
from phenohit.errors import ShapeError
from phenohit.hits.filter import NOT_CHECKED, NOT_KNOWN, Evidence
from phenohit.review.next_round import MODES, Sieve, Space, farthest_first, image_space, isolation, suggest, to_nearest


def plane(points) -> Space:
    points = np.asarray(points, np.float32)

    def distances(a, b):
        return np.linalg.norm(points[a][:, None] - points[b][None], axis=2)

    return Space(distances, np.ones(len(points), bool), "plane")


@given(st.integers(0, 10_000), st.integers(1, 12))
def test_farthest_first_by_brute_force(seed, n):
    rng = np.random.default_rng(seed)
    points = rng.random((14, 2))
    space, rows, done = plane(points), np.arange(10), np.arange(10, 14)
    taken, far = farthest_first(space, rows, to_nearest(space, rows, done), n)
    chosen = list(done)
    for i, d in zip(taken, far, strict=True):
        gap = [min(np.linalg.norm(points[r] - points[c]) for c in chosen) for r in rows]
        assert d == pytest.approx(max(gap), abs=1e-6)
        assert gap[i] == pytest.approx(max(gap), abs=1e-6)
        chosen.append(rows[i])
    assert len(taken) == min(n, 10) == len(set(taken))
    assert (np.diff(far) <= 1e-6).all()


def test_one_of_a_series():
    space = plane([[0, 0], [1, 0], [1.1, 0], [2, 0], [3, 0]])
    taken, _ = farthest_first(space, np.arange(5), np.full(5, 9.0), 5, np.array([4, 4, 4, -1, -1]))
    assert sorted(taken) == [0, 3, 4]


@given(st.integers(0, 10_000), st.integers(1, 200))
def test_farthest_first_among_what_passes(seed, n):
    """As if what does not pass had never been there, but asked about no more than a few blocks."""
    rng = np.random.default_rng(seed)
    space, rows, done = plane(rng.random((310, 2))), np.arange(300), np.arange(300, 310)
    good, asked = rng.random(300) < 0.6, []

    def passes(some):
        asked.extend(some)
        return good[some]

    start = to_nearest(space, rows, done)
    taken, far = farthest_first(space, rows, start, n, passes=passes)
    expected, distance = farthest_first(space, rows[good], start[good], n)
    np.testing.assert_array_equal(rows[taken], rows[good][expected])
    np.testing.assert_array_equal(far, distance)
    assert len(asked) == len(set(asked))
    if n == 1:
        assert len(asked) <= 4 * 65


def test_isolation_and_images():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 20)).astype(np.float32)
    X[7] += 60  # an artefact
    X[:, 3] = 5  # constant
    X[9, 2] = np.nan
    known = np.arange(300) != 11
    space = image_space(X, known)
    alone = isolation(space, np.arange(300), np.flatnonzero(known))
    assert alone[known].argmax() == 7
    assert np.isfinite(space.distances(np.arange(5), np.arange(300))).all()
    d = space.distances(np.arange(300), np.arange(300))
    np.testing.assert_allclose(np.diag(d), 0, atol=0.02)
    with pytest.raises(ShapeError):
        image_space(X, np.zeros(300, bool))


SMILES = [f"{'C' * k}N{core}" for core in ("c1ccccc1", "C1CCCCC1", "c1ccncc1", "c1cccs1") for k in range(1, 11)]


@pytest.fixture
def candidates():
    table = pd.DataFrame({"row": range(5, 40), "smiles": SMILES[5:]})
    table["compound_id"] = [f"c{i}" for i in table["row"]]
    table["compound"] = [f"K{i}" for i in table["row"]]
    table["score"] = np.linspace(0.9, 0.1, 35)
    table["series"] = table["row"] // 2
    return table.assign(scaffold="")


def test_every_mode(candidates):
    measured = np.arange(40) < 5
    X = np.random.default_rng(0).normal(size=(40, 6))
    X[30] += 50
    space = image_space(X, np.ones(40, bool))
    lists, lost = suggest(candidates, measured, ecfp(SMILES), space, n=8)
    assert list(lists) == list(MODES)
    for table in lists.values():
        assert len(table) == 8
        assert table["order"].tolist() == list(range(1, 9))
        assert table["compound_id"].is_unique
        assert not set(table["compound_id"]) & {f"c{i}" for i in range(5)}
        assert table["reason"].str.contains("score").all()
    assert lists["exploit"]["compound_id"].tolist() == [f"c{i}" for i in range(5, 13)]
    assert lists["diversify"]["series"].is_unique
    assert (lists["diversify"]["score_rank"] <= 16).all()  # among the best two times eight
    assert (np.diff(lists["widen"]["distance"]) <= 1e-5).all()
    assert "c30" not in lists["widen"]["compound_id"].tolist()  # lies apart from all imaged compounds
    assert lost.empty
    again, _ = suggest(candidates, measured, ecfp(SMILES), space, n=8)
    for mode in MODES:
        pd.testing.assert_frame_equal(lists[mode], again[mode])


def test_without_images_and_with_alerts(candidates):
    quinone = candidates.assign(smiles=["O=C1C=CC(=O)C=C1", *candidates["smiles"][1:]])
    lists, lost = suggest(quinone, np.arange(40) < 5, ecfp(SMILES), None, n=3)
    assert "c5" not in lists["exploit"]["compound_id"].tolist()
    assert len(lists["exploit"]) == 3
    assert "c5" in lost["id"].tolist()
    kept, _ = suggest(quinone, np.arange(40) < 5, ecfp(SMILES), None, n=3, filters=())
    assert kept["exploit"]["compound_id"].tolist() == ["c5", "c6", "c7"]
    assert kept["exploit"]["pains"][0] != ""
    none, _ = suggest(candidates.head(0), np.ones(40, bool), ecfp(SMILES), None, n=3)
    assert all(table.empty for table in none.values())


def other_assays(compounds: list[str], hitter: str) -> Labels:
    """Eight assays that everyone was measured in; one compound is active in all, another in none is active."""
    Y = np.zeros((len(compounds), 8), np.float32)
    Y[np.arange(len(compounds)) % 10 == 9, np.arange(len(compounds))[np.arange(len(compounds)) % 10 == 9] % 8] = 1
    Y[compounds.index(hitter)] = 1
    row, column = np.indices(Y.shape)
    tasks = pd.DataFrame({"task": [f"t{i}" for i in range(8)], "assay": [f"a{i}" for i in range(8)]})
    tasks = tasks.assign(kind="binary", threshold=np.nan)
    data = sparse.csr_matrix((Y.ravel(), (row.ravel(), column.ravel())), shape=Y.shape)
    return Labels(data, pd.DataFrame({"compound": compounds}), tasks)


def test_the_filters_of_the_hits_keep_planted_compounds_off_every_list(candidates):
    """One compound for each of five filters; each is missing for its own reason, and for no other."""
    smiles = candidates["smiles"].tolist()
    smiles[0], smiles[1] = "O=C1C=CC(=O)C=C1", "CCCCC(=O)Cl"
    table = candidates.assign(smiles=smiles)
    shining = pd.DataFrame({"compound": ["K7"], "channel": ["DNA"], "z": [9.0], "reference": ["DMSO"]})
    off = pd.DataFrame({"hERG": np.where(table["compound"] == "K8", 0.8, 0.2)}, index=pd.Index(table["compound"]))
    evidence = Evidence(
        labels=other_assays(table["compound"].tolist(), "K9"), background=shining, off_scores=off.astype(np.float32)
    )
    planted = {
        "c5": "PAINS alert: quinone_A", "c6": "reactive or unwanted group: ", "c7": "autofluorescence: measured",
        "c8": "off-target: hERG score 0.80", "c9": "frequent hitter: active in 8 of 8",
    }  # fmt: skip
    filters = ("pains", "reactive", "promiscuous", "autofluorescent", "off_targets")
    lists, lost = suggest(table, np.arange(40) < 5, ecfp(SMILES), None, n=20, filters=filters, evidence=evidence)
    reasons = lost.set_index("id")["reason"]
    assert reasons.index.is_unique
    for compound, reason in planted.items():
        assert reasons[compound].startswith(reason) or f"; {reason}" in reasons[compound]
        for mode in MODES:
            assert compound not in lists[mode]["compound_id"].tolist()
    for mode in MODES:
        assert set(filters) <= set(lists[mode].columns)
        assert not set(lists[mode]["compound_id"]) & set(lost["id"])
        assert (lists[mode]["autofluorescent"] == "").all()
        assert lists[mode]["order"].tolist() == list(range(1, len(lists[mode]) + 1))
    assert set(lost["stage"]) == {"filter the next round"}
    # Without filters all of them are back, at the top of the ranking.
    free, none = suggest(table, np.arange(40) < 5, ecfp(SMILES), None, n=20, filters=(), evidence=evidence)
    assert free["exploit"]["compound_id"].tolist()[:5] == list(planted)
    assert none.empty


def test_nobody_is_judged_before_it_matters(candidates):
    sieve = Sieve(candidates, ("promiscuous",), Evidence())
    assert sieve.passes(np.array([3, 1])).all()
    assert sieve.found["promiscuous"][[1, 2, 3]].tolist() == [NOT_KNOWN, NOT_CHECKED, NOT_KNOWN]
    assert sieve.first(np.arange(35), 4).tolist() == [0, 1, 2, 3]
    assert sieve.dropped().empty
