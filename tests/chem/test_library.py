"""The made-up library: valid, unique, in series that really are series, with PAINS, salts and mirror images."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator
from rdkit.Chem.FilterCatalog import FilterCatalog, FilterCatalogParams
from rdkit.Chem.Scaffolds import MurckoScaffold
from rdkit.DataStructs import BulkTanimotoSimilarity
from rdkit.rdBase import BlockLogs

from phenohit.chem import library as module
from phenohit.chem.library import GROUPS, build_library, functional_groups
from phenohit.errors import ConfigError


@pytest.fixture(scope="module")
def library() -> pd.DataFrame:
    return build_library(400, seed=3)


@pytest.fixture(scope="module")
def similarity(library: pd.DataFrame) -> np.ndarray:
    """Tanimoto of all pairs, by RDKit."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=3, fpSize=2048)
    prints = [generator.GetFingerprint(Chem.MolFromSmiles(smiles)) for smiles in library["parent"]]
    return np.array([BulkTanimotoSimilarity(one, prints) for one in prints])


def test_every_compound_is_readable_and_different(library: pd.DataFrame) -> None:
    assert len(library) == 400
    with BlockLogs():
        keys = [Chem.MolToInchiKey(Chem.MolFromSmiles(smiles)) for smiles in library["parent"]]
    assert keys == library["inchikey"].tolist()
    assert library["inchikey"].is_unique
    assert all(Chem.MolFromSmiles(smiles) is not None for smiles in library["smiles"])


def test_same_seed_same_library(library: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(build_library(400, seed=3), library)
    assert set(build_library(400, seed=4)["inchikey"]) != set(library["inchikey"])


def test_members_of_a_series_are_neighbours_and_series_are_not(library: pd.DataFrame, similarity: np.ndarray) -> None:
    series = library["series"].to_numpy()
    same = series[:, None] == series[None, :]
    assert similarity[~same].max() < 0.7
    nearest = np.where(same & ~np.eye(len(library), dtype=bool), similarity, 0).max(axis=1)
    in_series = library["series"].map(library["series"].value_counts()).to_numpy() >= 3
    assert (nearest[in_series] >= 0.7).mean() > 0.95


def test_series_singletons_and_acyclic_compounds_all_occur() -> None:
    library = build_library(1_500, seed=0)
    sizes = library["series"].map(library["series"].value_counts())
    assert (sizes >= 3).mean() == pytest.approx(0.6, abs=0.08)
    assert (sizes == 1).sum() > 300
    assert sorted(library["series"].unique()) == list(range(library["series"].nunique()))
    scaffold = pd.Series([MurckoScaffold.MurckoScaffoldSmiles(smiles) for smiles in library["parent"]])
    assert ((scaffold == "") == (library["core"] == -1)).all()
    assert (scaffold == "").any()
    # R with a ring gives a series a second scaffold now and then.
    assert scaffold[sizes >= 3].groupby(library["series"]).nunique().mean() < 1.5


def test_planted_pains_are_found_and_others_are_mostly_clean(library: pd.DataFrame) -> None:
    parameters = FilterCatalogParams()
    for catalog in ("PAINS_A", "PAINS_B", "PAINS_C"):
        parameters.AddCatalog(getattr(FilterCatalogParams.FilterCatalogs, catalog))
    catalog = FilterCatalog(parameters)
    alert = np.array([catalog.HasMatch(Chem.MolFromSmiles(smiles)) for smiles in library["parent"]])
    planted = library["is_pains"].to_numpy()
    assert planted.mean() == pytest.approx(0.03, abs=0.02)
    assert alert[planted].all()
    assert alert[~planted].mean() < 0.15


def test_salts_hold_their_parent() -> None:
    library = build_library(300, seed=1, salt_share=0.5)
    salt = library[library["is_salt"]]
    assert 100 < len(salt) < 200
    assert [s.startswith(f"{p}.") for s, p in zip(salt["smiles"], salt["parent"], strict=True)] == [True] * len(salt)
    rest = library[~library["is_salt"]]
    assert (rest["smiles"] == rest["parent"]).all()


def test_mirror_images_share_the_skeleton_and_the_series() -> None:
    library = build_library(600, seed=2, stereo_share=0.05)
    skeleton = library["inchikey"].str[:14]
    twins = library[library["is_twin"]]
    assert len(twins) >= 10
    for i in twins.index:
        pair = library[(skeleton == skeleton[i]) & ~library["is_twin"]]
        assert len(pair) == 1
        assert pair["series"].item() == library.loc[i, "series"]


def test_asking_for_more_than_can_be_made_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CORES", module._CORES[:1])
    monkeypatch.setattr(module, "_ARMS", module._ARMS[:2])
    monkeypatch.setattr(module, "_TAILS", module._TAILS[:1])
    with pytest.raises(ConfigError, match="different compounds can be made from the building blocks, not 500"):
        build_library(500, seed=0)


def test_functional_groups_of_known_compounds() -> None:
    known = {
        "CC(=O)Oc1ccccc1C(=O)O": {"carboxylic_acid"},  # aspirin
        "Cc1ccc(S(=O)(=O)Nc2ccccc2)cc1": {"sulfonamide"},
        "CN1CCN(C)CC1": {"basic_amine"},
        "CN(C)c1ccccc1": set(),  # an aniline is not basic
        "CC(=O)N1CCCCC1": set(),  # nor is an amide
        "O=C(Nc1ccccc1)NC1CC1": {"urea"},
        "N#Cc1ccc(C(F)(F)F)cc1": {"nitrile", "trifluoromethyl"},
    }
    groups, logp = functional_groups(list(known))
    names = np.array(list(GROUPS))
    assert [set(names[row]) for row in groups] == list(known.values())
    assert logp[0] == pytest.approx(1.31, abs=0.01)  # Crippen logP of aspirin as published with RDKit
