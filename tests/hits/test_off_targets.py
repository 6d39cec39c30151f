from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse

from phenohit.data.labels import Labels
from phenohit.hits.filter import Evidence
from phenohit.hits.off_targets import highest, off_targets

COMPOUNDS = ["low", "high", "measured active", "measured inactive", "no score"]
TABLE = pd.DataFrame({"compound": COMPOUNDS})
SCORES = pd.DataFrame({"hERG": [0.1, 0.9, 0.1, 0.9], "BSEP": [0.2, 0.6, 0.3, 0.1]}, index=COMPOUNDS[:4])


def labels() -> Labels:
    tasks = pd.DataFrame({"task": ["main", "hERG", "BSEP"], "assay": ["main", "hERG", ""], "kind": "binary"})
    Y = sparse.csr_matrix(([1.0, 0.0], ([2, 3], [1, 1])), shape=(5, 3), dtype=np.float32)
    return Labels(Y, TABLE, tasks.assign(threshold=np.nan))


def test_measurements_outweigh_predictions():
    evidence = Evidence("main", labels(), off_scores=SCORES, off_target_max=0.5)
    found = off_targets(TABLE, evidence).tolist()
    assert found == ["", "hERG score 0.90; BSEP score 0.60", "hERG measured active", "", ""]
    assert highest(TABLE, evidence)[:4].tolist() == np.float32([0.2, 0.9, 0.3, 0.9]).tolist()
    lenient = Evidence("main", labels(), off_scores=SCORES, off_target_max=0.95)
    assert off_targets(TABLE, lenient).tolist() == ["", "", "hERG measured active", "", ""]


def test_a_task_is_no_off_target_of_itself():
    evidence = Evidence("hERG", labels(), off_scores=SCORES)
    assert off_targets(TABLE, evidence).tolist() == ["", "BSEP score 0.60", "", "", ""]
    assert off_targets(TABLE, Evidence("main", labels())).tolist() == [""] * 5
    assert np.isnan(highest(TABLE, Evidence("main", labels()))).all()
