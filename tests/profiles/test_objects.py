from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from phenohit.profiles.objects import join_objects


@given(st.integers(0, 10_000))
def test_join_as_pandas_merges(seed):
    rng = np.random.default_rng(seed)

    def table(n: int) -> pd.DataFrame:
        every = pd.MultiIndex.from_product([range(-1, 3), range(1, 6)], names=["image", "object"]).to_frame(index=False)
        return every.sample(n, random_state=seed + n).reset_index(drop=True).astype(np.int64)

    keys = {"Cells": table(12), "Cytoplasm": table(14), "Nuclei": table(13)}
    keys["Cytoplasm"]["parent_Cells"] = rng.integers(0, 7, 14)
    keys["Cytoplasm"]["parent_Nuclei"] = rng.integers(0, 7, 14)
    rows, how = join_objects(keys)
    assert how == "Cells by Parent_Cells of Cytoplasm, Nuclei by Parent_Nuclei of Cytoplasm"
    numbered = {k: t.assign(row=np.arange(len(t))) for k, t in keys.items()}
    start = numbered["Cytoplasm"].query("image >= 0")
    for part in ("Cells", "Nuclei"):
        other = numbered[part].rename(columns={"object": f"parent_{part}", "row": f"row_{part}"})
        start = start.merge(other[["image", f"parent_{part}", f"row_{part}"]], on=["image", f"parent_{part}"])
    start = start.sort_values("row")
    assert rows["Cytoplasm"].tolist() == start["row"].tolist()
    assert rows["Cells"].tolist() == start["row_Cells"].tolist()
    assert rows["Nuclei"].tolist() == start["row_Nuclei"].tolist()


def test_join_by_way_of_the_cell_and_by_number():
    cells = pd.DataFrame({"image": 0, "object": [1, 2], "parent_Nuclei": [2, 1]})
    cytoplasm = pd.DataFrame({"image": 0, "object": [1, 2], "parent_Cells": [2, 1]})
    nuclei = pd.DataFrame({"image": 0, "object": [1, 2]})
    rows, how = join_objects({"Cells": cells, "Cytoplasm": cytoplasm, "Nuclei": nuclei})
    assert how.endswith("Nuclei by Parent_Nuclei of Cells")
    assert rows["Nuclei"].tolist() == [0, 1]
    rows, how = join_objects({"Cells": nuclei, "Nuclei": nuclei.iloc[:1]})
    assert how == "Nuclei by object number"
    assert rows["Cells"].tolist() == [0]
