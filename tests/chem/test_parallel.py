from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from phenohit.chem.alerts import _pains_all
from phenohit.chem.parallel import clean, over_unique
from phenohit.chem.standardise import _standardise_all

SMILES = [f"Oc1cc(C{'C' * n})ccc1O" for n in range(9)] * 2 + ["C1CC", "", *(f"CC{'C' * n}N" for n in range(20))]


@pytest.mark.parametrize("work", [_pains_all, _standardise_all])
def test_processes_do_not_change_the_answer(work):
    alone = over_unique(work, SMILES, jobs=1, title="test")
    np.testing.assert_array_equal(over_unique(work, SMILES, jobs=2, title="test", few=10), alone)
    assert len(alone) == len(SMILES)


def test_each_different_structure_is_worked_once():
    seen: list[str] = []

    def work(smiles: list[str]) -> np.ndarray:
        seen.extend(smiles)
        return np.array([len(s) for s in smiles])

    found = over_unique(work, ["CC", "C", " CC ", "CC", ""], jobs=1, title="test", few=2)
    assert seen == ["CC", "C", ""]
    assert found.tolist() == [2, 1, 2, 2, 0]


def test_missing_values_are_empty_text():
    assert clean([None, float("nan"), pd.NA, " C ", "", np.str_("CC")]) == ["", "", "", "C", "", "CC"]
