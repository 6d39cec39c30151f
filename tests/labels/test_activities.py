from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import io, sparse

from phenohit.config import ActivitySource
from phenohit.data.labels import Labels
from phenohit.errors import ColumnError, ConfigError, FileError, LabelError, ShapeError, StructureError
from phenohit.labels.curate import read_activities, to_labels


def read(tmp_path, table: pd.DataFrame, name: str = "activities.csv", **settings):
    path = tmp_path / name
    if name.endswith("parquet"):
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False)
    return read_activities(ActivitySource(path=str(path), **{"id": "cid", **settings}))


def cells(labels: Labels) -> dict[tuple[str, str], float]:
    coo = labels.Y.tocoo()
    names, tasks = labels.compounds["compound"].tolist(), labels.task_names
    return {(names[i], tasks[j]): float(v) for i, j, v in zip(coo.row, coo.col, coo.data, strict=True)}


def long(values, compounds=None, assays=None) -> pd.DataFrame:
    n = len(values)
    return pd.DataFrame(
        {"cid": compounds or [f"c{i}" for i in range(n)], "assay": assays or ["a"] * n, "value": values}
    )


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
@pytest.mark.parametrize("values", [[1, 0], ["Active", "Inactive"], ["true", "FALSE"], ["yes", "no"], [True, False]])
def test_long_binary_spellings(tmp_path, name, values):
    activities, lost = read(tmp_path, long(values), name)
    assert cells(to_labels(activities)[0]) == {("c0", "a"): 1, ("c1", "a"): 0}
    assert not len(lost)


def test_long_rows_without_assay_value_or_compound_are_listed(tmp_path):
    table = long([1, None, 0, 1, "inconclusive"], ["c0", "c1", "", "c3", "c4"], ["a", "a", "a", "", "b"])
    activities, lost = read(tmp_path, table.assign(assay=["a", "a", "a", None, "b"]))
    assert cells(to_labels(activities)[0]) == {("c0", "a"): 1}
    reasons = dict(zip(lost["id"].str.split("'").str[-1].str.strip(), lost["reason"], strict=True))
    assert reasons["row 3"] == "the assay is not named"
    assert reasons["row 2"] == "no compound is named"
    assert reasons["a"] == "rows without a decided value: 1"
    assert reasons["b"] == "rows without a decided value: 1"


def test_impossible_values_name_the_rows(tmp_path):
    with pytest.raises(LabelError, match=r"2 entries.*row 1: maybe, row 2: 7.*Expected 0 or 1.*plus_minus"):
        read(tmp_path, long([1, "maybe", 7]))
    with pytest.raises(LabelError, match=r"row 1: >5.*finite number"):
        read(tmp_path, long([6.1, ">5"]), kind="value")
    with pytest.raises(LabelError, match="row 0: 2"):
        read(tmp_path, long([2, -1]), kind="plus_minus")


def test_plus_minus_takes_zero_as_not_measured(tmp_path):
    activities, _ = read(tmp_path, long([1, -1, 0]), kind="plus_minus")
    assert cells(to_labels(activities)[0]) == {("c0", "a"): 1, ("c1", "a"): 0}


def test_assays_and_ignore_choose(tmp_path):
    table = long([1, 1, 1], assays=["tox_1", "tox_2", "other"])
    activities, _ = read(tmp_path, table, assays=["tox_*"], ignore=["tox_2"], prefix="src: ")
    assert activities.assays["name"].tolist() == ["src: tox_1"]
    with pytest.raises(ColumnError, match=r"'tox_3'.*Nearest: tox_"):
        read(tmp_path, table, ignore=["tox_3"])


def test_wide_keeps_assay_columns_only(tmp_path):
    table = pd.DataFrame(
        {
            "row": [0, 1, 2], "cid": ["c0", "c1", "c2"], "scaffold": ["x", "y", "z"], "cluster": [0, 7, 9],
            "A_1": pd.array([1, None, 0], dtype="Int8"), "A_2": [np.nan, np.nan, 1.0], "B": [np.nan] * 3,
        }
    )  # fmt: skip
    activities, lost = read(tmp_path, table, "w.parquet", format="wide")
    assert cells(to_labels(activities)[0]) == {("c0", "A_1"): 1, ("c2", "A_1"): 0, ("c2", "A_2"): 1}
    reasons = lost.set_index("id")["reason"]
    assert set(reasons.index) - {"row", "scaffold", "cluster", "B"} == {f"'{tmp_path / 'w.parquet'}' row 1"}
    assert reasons["row"] == "is a row number"
    assert reasons["B"] == "holds no value"


def test_wide_refuses_a_slip_in_an_assay_column(tmp_path):
    table = pd.DataFrame({"cid": ["a", "b", "c"], "A": [0, 1, 2]})
    with pytest.raises(LabelError, match=r"column 'A'.*row 2: 2"):
        read(tmp_path, table, format="wide")
    named = pd.DataFrame({"cid": ["a", "b", "c"], "A": [3, 5, 2]})
    with pytest.raises(LabelError, match="column 'A'"):
        read(tmp_path, named, format="wide", assays=["A"])
    with pytest.raises(ColumnError, match=r"no assay column.*A \(holds no activities"):
        read(tmp_path, named, format="wide")


def test_wide_values_leave_row_numbers_out(tmp_path):
    table = pd.DataFrame({"cid": ["a", "b", "c"], "number": [5, 6, 7], "pIC50": [6.5, np.nan, 4.0]})
    activities, lost = read(tmp_path, table, format="wide", kind="value", thresholds=[5.0])
    assert cells(to_labels(activities)[0]) == {("a", "pIC50 >= 5"): 1, ("c", "pIC50 >= 5"): 0}
    assert lost.loc[lost["what"] == "task", "id"].tolist() == ["number"]


def test_tasks_table_groups_columns_of_one_assay(tmp_path):
    about = tmp_path / "tasks.csv"
    pd.DataFrame({"Unique_ID": ["A_1", "A_2", "B"], "ASSAY_ID": [7, 7, 8], "Description": ["d1", "d2", "d3"]}).to_csv(
        about, index=False
    )
    table = pd.DataFrame({"cid": ["c0", "c1"], "B": [1, 0], "A_1": [1, 0], "A_2": [0, 0], "extra": [1, 1]})
    activities, lost = read(tmp_path, table, format="wide", tasks=str(about), prefix="s:")
    tasks = to_labels(activities)[0].tasks
    assert tasks["task"].tolist() == ["s:B", "s:A_1", "s:A_2"]
    assert tasks["assay"].tolist() == ["s:8", "s:7", "s:7"]
    assert tasks["description"].tolist() == ["d3", "d1", "d2"]
    assert lost["id"].tolist() == ["extra"]
    with pytest.raises(ColumnError, match="No assay of"):
        read(tmp_path, long([1, 0]), tasks=str(about))


def matrix_files(tmp_path, matrix):
    io.mmwrite(tmp_path / "m.mtx", matrix)
    pd.DataFrame({"cid": [f"c{i}" for i in range(matrix.shape[0])]}).to_csv(tmp_path / "rows.csv", index=False)
    pd.DataFrame({"task": [f"t{j}" for j in range(matrix.shape[1])]}).to_csv(tmp_path / "cols.csv", index=False)
    return {
        "path": str(tmp_path / "m.mtx"), "format": "matrix_market", "kind": "plus_minus", "id": "cid",
        "rows": str(tmp_path / "rows.csv"), "tasks": str(tmp_path / "cols.csv"),
    }  # fmt: skip


def test_matrix_market(tmp_path):
    matrix = sparse.coo_matrix(([1, -1, 1], ([0, 2, 2], [1, 0, 2])), shape=(4, 3))
    settings = matrix_files(tmp_path, matrix)
    labels = to_labels(read_activities(ActivitySource(**settings))[0])[0]
    assert cells(labels) == {("c0", "t1"): 1, ("c2", "t0"): 0, ("c2", "t2"): 1}
    assert labels.task_names == ["t0", "t1", "t2"]
    unnamed = read_activities(ActivitySource(**{**settings, "tasks": ""}))[0]
    assert unnamed.assays["name"].tolist() == ["assay_1", "assay_2", "assay_3"]
    part = read_activities(ActivitySource(**settings, ignore=["t0"]))[0]
    assert cells(to_labels(part)[0]) == {("c0", "t1"): 1, ("c2", "t2"): 1}


def test_matrix_market_binary_keeps_stored_zeros(tmp_path):
    settings = matrix_files(tmp_path, sparse.coo_matrix(([1, 0], ([0, 1], [0, 0])), shape=(3, 1)))
    labels = to_labels(read_activities(ActivitySource(**{**settings, "kind": "binary"}))[0])[0]
    assert cells(labels) == {("c0", "t0"): 1, ("c1", "t0"): 0}


def test_matrix_market_slips(tmp_path):
    settings = matrix_files(tmp_path, sparse.coo_matrix(([5], ([1], [2])), shape=(4, 3)))
    with pytest.raises(LabelError, match=r"\(1, 2\): 5"):
        read_activities(ActivitySource(**settings))
    with pytest.raises(ConfigError, match="set rows"):
        read_activities(ActivitySource(**{**settings, "rows": ""}))
    with pytest.raises(ShapeError, match=r"4 rows, but .* names 3 compounds"):
        read_activities(ActivitySource(**{**settings, "rows": settings["tasks"], "id": "task"}))
    with pytest.raises(ShapeError, match=r"3 columns, but .* names 4"):
        read_activities(ActivitySource(**{**settings, "tasks": settings["rows"]}))
    whole = (tmp_path / "m.mtx").read_text()
    (tmp_path / "m.mtx").write_text(whole[: whole.index("4 3 1") + 5] + "\n")
    with pytest.raises(FileError, match=r"m\.mtx"):
        read_activities(ActivitySource(**settings))


def test_classes_are_one_against_the_rest(tmp_path):
    table = pd.DataFrame({"cid": ["a", "a", "b", "c", "d", "e"], "kind": ["X", "X", "Y", "DMSO", "", "X"]})
    activities, _ = read(tmp_path, table, format="classes", assay="kind", ignore=["DMSO"])
    labels = to_labels(activities)[0]
    assert cells(labels) == {
        (c, t): float((c in "ae") == (t == "X")) for c in "abe" for t in "XY"
    }  # c is ignored, d is not classified


def test_a_compound_of_two_classes_is_active_in_both(tmp_path):
    table = pd.DataFrame({"cid": ["a", "a", "b"], "assay": ["X", "Y", "Z"]})
    labels = to_labels(read(tmp_path, table, format="classes")[0])[0]
    assert cells(labels) == {(c, t): float((c == "a") == (t in "XY")) for c in "ab" for t in "XYZ"}


def test_structures_are_standardised_and_repeats_found(tmp_path):
    table = pd.DataFrame(
        {"smi": ["CCO", "OCC", "CC(=O)O", "CC(=O)[O-].[Na+]", "C1CC"], "assay": "a", "value": [1, 1, 0, 0, 1]}
    )
    activities, lost = read(tmp_path, table, id="", smiles="smi")
    labels = to_labels(activities)[0]
    assert labels.compounds["compound"].tolist() == ["LFQSCWFLJHTTHZ-UHFFFAOYSA-N", "QTBSBXVTEAMEQO-UHFFFAOYSA-N"]
    assert labels.Y.toarray().ravel().tolist() == [1, 0]
    assert lost["id"].tolist() == ["C1CC"]
    with pytest.raises(StructureError, match=r"1 of 1 SMILES.*'C1CC'"):
        read(tmp_path, table[4:], id="", smiles="smi")


def test_unreadable_structures_fall_back_to_the_id_or_key(tmp_path):
    key = "LFQSCWFLJHTTHZ-UHFFFAOYSA-N"
    table = pd.DataFrame(
        {"cid": ["x", "", "z"], "smi": ["C1CC", "CC", "CCC"], "ik": ["", key, ""], "assay": "a", "value": 1}
    )
    activities, lost = read(tmp_path, table, smiles="smi")
    assert activities.compounds["compound"].tolist()[0] == "x"
    assert lost["reason"][0].endswith("matched by id")
    skeletons = table.assign(ik=[key[:14], key, "nonsense"])
    activities, lost = read(tmp_path, skeletons, id="", inchikey="ik")
    assert activities.compounds["skeleton"].tolist() == [key[:14], key[:14]]
    assert lost["id"].tolist() == ["nonsense"]


def test_settings_that_make_no_sense(tmp_path):
    with pytest.raises(ConfigError, match="Set id, smiles or inchikey"):
        read(tmp_path, long([1]), id="")
    with pytest.raises(ConfigError, match="thresholds need kind: value"):
        read(tmp_path, long([1]), thresholds=[5.0])
    with pytest.raises(ConfigError, match="'tall' is not known"):
        read(tmp_path, long([1]), format="tall")
    with pytest.raises(ColumnError, match=r"'compound' \(activities.id\).*Nearest: "):
        read(tmp_path, long([1]), id="compound")
    with pytest.raises(LabelError, match="no measurement"):
        read(tmp_path, long([None, 1]).assign(cid=["a", None]))
