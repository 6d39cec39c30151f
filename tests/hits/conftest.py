"""A hand-made screen of nine compounds, and a real one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from phenohit.config import HitsConfig
from phenohit.data.labels import Labels
from phenohit.hits.build import build_hits
from phenohit.hits.export import Hits

# name -> SMILES; the rhodanine and the quinone carry PAINS alerts, "naked" has no structure.
SMILES = {
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "salicylic acid": "O=C(O)c1ccccc1O",
    "caffeine": "Cn1c(=O)c2c(ncn2C)n(C)c1=O",
    "rhodanine": "O=C1NC(=S)SC1=Cc1ccccc1",
    "quinone": "O=C1C=CC(=O)C=C1",
    "ethanol": "CCO",
    "=naked": "",
    "ibuprofen": "CC(C)Cc1ccc(C(C)C(=O)O)cc1",
    "paracetamol": "CC(=O)Nc1ccc(O)cc1",
}


@pytest.fixture(scope="session")
def small() -> dict:
    """Arguments of `build_hits`: salicylic acid is a known active, paracetamol inactive in the sibling task."""
    from phenohit.chem.fingerprints import ecfp

    names = list(SMILES)
    compounds = pd.DataFrame(
        {"compound": [f"KEY-{i}" for i in range(9)], "compound_id": names, "smiles": list(SMILES.values())}
    )
    Y = sparse.csr_matrix(([1.0, 0.0], ([1, 8], [0, 1])), shape=(9, 2), dtype=np.float32)
    tasks = pd.DataFrame({"task": ["COX >= 5", "COX >= 6"], "assay": "COX", "kind": "threshold", "threshold": [5.0, 6]})
    wells = pd.DataFrame(
        {
            "compound": [*compounds["compound"], "KEY-0"],
            "plate": ["P1"] * 8 + ["P2", "P2"],
            "well": [f"A{i + 1:02d}" for i in range(8)] + ["B01", "C01"],
        }
    )
    return {
        "task": "COX >= 5",
        "score": np.linspace(0.9, 0.1, 9, dtype=np.float32),
        "labels": Labels(Y, compounds[["compound"]], tasks),
        "compounds": compounds,
        "fingerprints": ecfp(compounds["smiles"].tolist()),
        "wells": wells,
        "metrics": {"auroc": 0.8, "auroc_low": 0.7, "auroc_high": 0.9, "chance_high": 0.6, "cell_count_auroc": 0.55},
        "config": HitsConfig(n=3),
    }


@pytest.fixture(scope="session")
def small_hits(small) -> Hits:
    return build_hits(**small)


@pytest.fixture(scope="session")
def real(shared_data) -> dict:
    """Arguments of `build_hits` on real structures and labels; the scores are random."""
    from phenohit.chem.fingerprints import ecfp

    folder = shared_data / "labels-hti209"
    table = pd.read_parquet(folder / "label_matrix.parquet").iloc[:3000]
    index = pd.read_csv(folder / "assay_index.csv")
    names = index["Unique_ID"].tolist()
    Y = table[names].to_numpy(dtype=np.float32, na_value=np.nan)
    row, column = np.nonzero(~np.isnan(Y))
    Y = sparse.csr_matrix((Y[row, column], (row, column)), shape=Y.shape)
    tasks = pd.DataFrame({"task": names, "assay": index["ASSAY_ID"].astype(str), "kind": "binary", "threshold": np.nan})
    compounds = pd.DataFrame(
        {"compound": table["inchikey"], "compound_id": [f"C{i}" for i in table["row"]], "smiles": table["smiles"]}
    )
    return {
        "task": "Assay_2",
        "score": np.random.default_rng(0).random(len(table)).astype(np.float32),
        "labels": Labels(Y, compounds[["compound"]], tasks),
        "compounds": compounds,
        "fingerprints": ecfp(compounds["smiles"].tolist()),
        "wells": None,
        "metrics": {"auroc": 0.52, "auroc_low": 0.41, "auroc_high": 0.63, "chance_high": 0.6},
        "config": HitsConfig(n=100, per_cluster=2),
    }
