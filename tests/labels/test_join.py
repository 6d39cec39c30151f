from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from phenohit.config import ActivitySource, LabelsConfig
from phenohit.data.labels import Labels
from phenohit.errors import LabelError
from phenohit.labels.join import assemble, join

ANY = LabelsConfig(min_active=1, min_inactive=1)


def key(skeleton: str, layer: str = "U") -> str:
    return f"{skeleton * 14}-{layer * 10}-N"


def imaged(*keys: str, ids=None) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "compound": keys,
            "compound_id": ids or [f"id{i}" for i in range(len(keys))],
            "inchikey": keys,
            "skeleton": [k[:14] for k in keys],
        }
    )


def measured(rows: list[tuple[str, list[float | None]]], ids=None, kind="binary", tasks=None) -> Labels:
    """Labels from (InChIKey, one value per task)."""
    T = len(rows[0][1])
    names = tasks or [f"t{j}" for j in range(T)]
    cells = [(i, j, v) for i, (_, values) in enumerate(rows) for j, v in enumerate(values) if v is not None]
    i, j, v = (list(x) for x in zip(*cells, strict=True))
    keys = [k for k, _ in rows]
    return Labels(
        sparse.csr_matrix((v, (i, j)), shape=(len(rows), T), dtype=np.float32),
        pd.DataFrame({"compound": keys, "id": ids or "", "inchikey": keys, "skeleton": [k[:14] for k in keys]}),
        pd.DataFrame({"task": names, "assay": names, "kind": kind, "threshold": np.nan, "source": "s.csv"}),
    )


def dense(labels: Labels) -> list[list[float | None]]:
    out = np.full(labels.Y.shape, None, dtype=object)
    coo = labels.Y.tocoo()
    out[coo.row, coo.col] = coo.data.astype(float)
    return out.tolist()


A, B, C = key("A"), key("B"), key("C")


def test_rows_are_the_imaged_compounds_in_order():
    labels, report, lost = join([measured([(C, [0.0]), (A, [1.0])])], imaged(A, B, C), ANY)
    assert labels.compounds["compound"].tolist() == [A, B, C]
    assert dense(labels) == [[1], [None], [0]]
    assert labels.tasks[["n_active", "n_inactive"]].values.tolist() == [[1, 1]]
    assert report.set_index("match")["n_labels"].to_dict() == {"id": 0, "inchikey": 2, "skeleton": 0, "unmatched": 0}
    assert not len(lost)


def test_measured_but_not_imaged_is_listed():
    _, report, lost = join([measured([(A, [1.0]), (B, [0.0]), (C, [1.0])])], imaged(A, B), ANY)
    assert lost[["what", "id", "reason"]].values.tolist() == [["compound", C, "measured but not imaged"]]
    assert report.set_index("match").loc["unmatched", ["n_label_compounds", "n_labels"]].tolist() == [1, 1]


def test_ids_match_first_also_where_one_compound_has_several():
    source = measured([(C, [1.0]), (C + "x", [0.0])], ids=["x2", "y"])
    labels, report, _ = join([source], imaged(A, B, ids=["x1;x2", "y"]), ANY)
    assert dense(labels) == [[1], [0]]
    assert report.set_index("match").loc["id", "n_label_compounds"] == 2


def test_skeleton_pass_merges_by_vote_and_lists_ties():
    forms = [key("A", layer) for layer in "VWX"]
    rows = [(forms[0], [1.0, 1.0]), (forms[1], [1.0, 0.0]), (forms[2], [0.0, None]), (B, [0.0, 0.0]), (C, [1.0, 1.0])]
    labels, report, lost = join([measured(rows)], imaged(A, B, C), ANY)
    assert dense(labels) == [[1, None], [0, 0], [1, 1]]
    assert report.set_index("match").loc["skeleton", ["n_label_compounds", "n_imaged_compounds"]].tolist() == [3, 1]
    reasons = lost.set_index("id")["reason"]
    assert reasons[f"{A} in t0"] == "2 of 3 repeats are active: the majority is kept"
    assert reasons[f"{A} in t1"] == "1 of 2 repeats are active: a tie, taken as not measured"


def test_an_exact_match_wins_over_a_stereoisomer_entry_by_entry():
    rows = [(A, [1.0, None]), (key("A", "V"), [0.0, 0.0]), (B, [0.0, 1.0])]
    labels, _, lost = join([measured(rows)], imaged(A, B), ANY)
    assert dense(labels) == [[1, 0], [0, 1]]
    assert lost["id"].tolist() == [f"{A} in t0"]
    assert "closer match" in lost["reason"][0]


def test_key_join_leaves_stereoisomers_out():
    rows = [(key("A", "V"), [1.0]), (B, [0.0]), (C, [1.0])]
    labels, report, _ = join([measured(rows)], imaged(A, B, C), LabelsConfig(1, 1, join="key"))
    assert dense(labels) == [[None], [0], [1]]
    assert "skeleton" not in set(report["match"])


def test_values_of_stereoisomers_are_averaged():
    rows = [(key("A", "V"), [5.0]), (key("A", "W"), [6.0]), (B, [7.5])]
    labels, _, _ = join([measured(rows, kind="value")], imaged(A, B), ANY)
    assert dense(labels) == [[5.5], [7.5]]


def test_tasks_with_too_few_or_one_class_are_dropped_with_the_reason():
    rows = [(A, [1.0, 1.0, None, 0.0]), (B, [0.0, 1.0, None, 0.0]), (C, [None, None, 1.0, 1.0])]
    labels, _, lost = join([measured(rows)], imaged(A, B), ANY)
    assert labels.task_names == ["t0"]
    reasons = lost[lost["what"] == "task"].set_index("id")["reason"].to_dict()
    assert reasons == {
        "t1": "one class only: all 2 imaged compounds are active",
        "t2": "no imaged compound was measured",
        "t3": "one class only: all 2 imaged compounds are inactive",
    }
    with pytest.raises(LabelError, match=r"None of 4 tasks.*'t0' \(1 active, 1 inactive\).*min_active"):
        join([measured(rows)], imaged(A, B), LabelsConfig(10, 10))


def test_one_source_can_have_its_own_minimum():
    rows = [(A, [1.0]), (B, [0.0])]
    sources = [measured(rows, tasks=["rare"]), measured(rows, tasks=["common"])]
    labels, _, lost = join(sources, imaged(A, B), LabelsConfig(10, 10), minimum=[(1, 1), (10, 10)])
    assert labels.task_names == ["rare"]
    assert lost["reason"].tolist() == ["1 active and 1 inactive; at least 10 and 10 are needed"]


def test_sources_with_the_same_task_need_a_prefix():
    with pytest.raises(LabelError, match=r"same name: 't0'.*prefix"):
        join([measured([(A, [1.0])])] * 2, imaged(A), ANY)


def test_nothing_in_common_shows_both_sides():
    with pytest.raises(LabelError, match=r"No measured compound was imaged\. Measured: 'CCC.*imaged: 'id0'"):
        join([measured([(C, [1.0])])], imaged(A), ANY)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_agrees_with_a_plain_loop(data):
    pool = [key(s, layer) for s in "ABC" for layer in "UVW"]
    screen = data.draw(st.lists(st.sampled_from(pool), min_size=1, unique=True))
    assayed = data.draw(st.lists(st.sampled_from(pool), min_size=1, unique=True))
    value = st.sampled_from([0.0, 1.0])
    rows = [(k, [data.draw(st.one_of(st.none(), value)), data.draw(value)]) for k in assayed]
    expected = {}
    for target in screen:
        for j in range(2):
            exact = [v[j] for k, v in rows if k == target and v[j] is not None]
            near = [v[j] for k, v in rows if k[:14] == target[:14] and k not in screen and v[j] is not None]
            votes = exact or near
            if votes and np.mean(votes) != 0.5:
                expected[target, f"t{j}"] = float(np.mean(votes) > 0.5)
    try:
        labels, _, _ = join([measured(rows)], imaged(*screen), ANY)
    except LabelError:
        both = [{v for (_, t), v in expected.items() if t == f"t{j}"} for j in range(2)]
        assert not any(b == {0.0, 1.0} for b in both)
        return
    coo = labels.Y.tocoo()
    found = {(screen[i], labels.task_names[j]): v for i, j, v in zip(coo.row, coo.col, coo.data, strict=True)}
    assert found == {k: v for k, v in expected.items() if k[1] in labels.task_names}


def test_assemble_reads_joins_and_lists(tmp_path):
    pd.DataFrame({"smiles": ["CCO", "Oc1ccccc1", "CCC", "bad1("], "assay": "a", "value": [1, 0, 1, 0]}).to_csv(
        tmp_path / "a.csv", index=False
    )
    compounds = imaged("LFQSCWFLJHTTHZ-UHFFFAOYSA-N", "ISWSIDIOOBJBQZ-UHFFFAOYSA-N")
    source = ActivitySource(path=str(tmp_path / "a.csv"), smiles="smiles", min_active=1, min_inactive=1)
    labels, report, lost = assemble([source], compounds, LabelsConfig())
    assert dense(labels) == [[1], [0]]
    assert lost["what"].tolist() == ["structure", "compound"]
    assert report["n_label_compounds"].sum() == 3
    with pytest.raises(LabelError, match="No activities"):
        assemble([], compounds, LabelsConfig())


def test_real_screen_with_injury_classes(shared_data):
    from phenohit.config import ProfileSource
    from phenohit.data.read import read_profiles
    from phenohit.profiles.identify import identify

    path = str(shared_data / "cell-injury-u2os" / "profiles.parquet")
    profiles, _ = read_profiles(
        ProfileSource(path=path, controls={"injury_type": ["Control"]}, columns={"compound_id": "inchikey"})
    )
    kept, compounds, _ = identify(profiles, None)
    assert (len(kept), len(compounds)) == (3613, 143)
    source = ActivitySource(
        path=path, format="classes", id="inchikey", assay="injury_type", ignore=["Control"], min_active=1
    )
    labels, _, _ = assemble([source], compounds, LabelsConfig())
    assert labels.Y.shape == (143, 14)
    assert labels.Y.nnz == 143 * 14
    # One structure is annotated as Saponin and as Nonspecific reactive: active in both.
    assert labels.tasks["n_active"].sum() == 144
