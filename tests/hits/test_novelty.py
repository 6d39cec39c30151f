from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator
from rdkit.Chem.Scaffolds import MurckoScaffold

from phenohit.chem.fingerprints import ecfp
from phenohit.errors import ShapeError
from phenohit.hits.novelty import novelty


def frame(smiles, prefix="C"):
    ids = [f"{prefix}{i}" for i in range(len(smiles))]
    return pd.DataFrame({"compound": ids, "compound_id": [f"id-{i}" for i in ids], "smiles": list(smiles)})


def test_against_rdkit_on_real_structures(shared_data):
    smiles = pd.read_parquet(shared_data / "labels-hti209" / "label_matrix.parquet", columns=["smiles"])["smiles"]
    queries, actives = frame(smiles[:80]), frame(smiles[80:200], "A")
    out = novelty(queries, ecfp(queries["smiles"]), actives, ecfp(actives["smiles"]))
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=3, fpSize=2048)
    targets = [generator.GetFingerprint(Chem.MolFromSmiles(s)) for s in actives["smiles"]]
    scaffolds = {MurckoScaffold.MurckoScaffoldSmiles(s) for s in actives["smiles"]}
    for row in out.itertuples():
        near = DataStructs.BulkTanimotoSimilarity(generator.GetFingerprint(Chem.MolFromSmiles(row.smiles)), targets)
        assert row.nearest_similarity == pytest.approx(max(near), abs=1e-6)
        at = actives.set_index("compound_id").index.get_loc(row.nearest_active)
        assert near[at] == pytest.approx(max(near), abs=1e-6)
        assert row.nearest_active_smiles == actives["smiles"][at]
        own = MurckoScaffold.MurckoScaffoldSmiles(row.smiles)
        assert row.new_scaffold is (None if not own else own not in scaffolds)
    assert out["new_scaffold"].map(lambda v: v is True).sum() > 10


def test_rings_structures_and_actives_that_are_absent():
    queries = frame(["Cc1ccccc1", "CCO", "", "C1CCNCC1"])
    actives = frame(["CCc1ccccc1", ""], "A")
    out = novelty(queries, ecfp(queries["smiles"]), actives, ecfp(actives["smiles"]))
    assert out["scaffold"].tolist() == ["c1ccccc1", "", "", "C1CCNCC1"]
    assert out["new_scaffold"].tolist() == [False, None, None, True]
    assert out["nearest_active"].tolist() == ["id-A0", "id-A0", "", "id-A0"]
    assert np.isnan(out["nearest_similarity"][2])
    none = novelty(queries, ecfp(queries["smiles"]), actives.iloc[:0], ecfp([]).reshape(0, 256))
    assert none["nearest_similarity"].isna().all()
    assert (none["nearest_active"] == "").all()
    assert none["new_scaffold"].tolist() == [True, None, None, True]


def test_equally_near_actives_are_named_by_their_key_in_any_order():
    query, actives = frame(["Cc1ccccc1"]), frame(["Cc1ccccc1"] * 3, "A")
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        shuffled = actives.iloc[order]
        out = novelty(query, ecfp(query["smiles"]), shuffled, ecfp(shuffled["smiles"]))
        assert out["nearest_active"].tolist() == ["id-A0"]


def test_scaffolds_already_known_are_kept():
    query, actives = frame(["Cc1ccccc1"]).assign(scaffold="given"), frame(["CCO"]).assign(scaffold="given")
    out = novelty(query, ecfp(query["smiles"]), actives, ecfp(actives["smiles"]))
    assert out["scaffold"].tolist() == ["given"]
    assert out["new_scaffold"].tolist() == [False]


def test_fingerprints_must_fit():
    query = frame(["CCO"])
    with pytest.raises(ShapeError, match="0 for 1 candidates"):
        novelty(query, np.zeros((0, 256), np.uint8), query, ecfp(["CCO"]))
