from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from phenohit.chem.fingerprints import ecfp
from phenohit.chem.series import series as chemical_series
from phenohit.chem.similarity import tanimoto
from phenohit.errors import ShapeError
from phenohit.evaluate.leaks import LEAK_COLUMNS, check
from phenohit.evaluate.splits import TEST, TRAIN, UNUSED, VALID, Folds, group_folds, leave_plates_out

N = 60


@pytest.fixture
def clean():
    """Sixty wells of thirty compounds whose fingerprints share nothing, split by compound and plate."""
    compound = np.repeat([f"K{i:02d}" for i in range(30)], 2).astype(object)
    bits = np.zeros((30, 512), dtype=bool)
    for i in range(30):
        bits[i, 16 * i : 16 * i + 10] = True
    number = np.repeat(np.arange(30), 2)
    rows = pd.DataFrame({"compound": compound, "plate": [f"P{i % 6}" for i in range(N)]})
    folds = group_folds(number, 3, rows=rows, valid=0.2, kind="series, plates and scaffold")
    given = {
        "skeletons": np.array([f"S{c}" for c in compound], dtype=object),
        "scaffolds": np.array([f"ring {c}" if i > 9 else "" for i, c in enumerate(compound)], dtype=object),
        "fingerprints": np.packbits(bits, axis=1)[number],
        "series": number.copy(),
    }
    return leave_plates_out(folds, rows["plate"].to_numpy(), 2), given


def found(table: pd.DataFrame, name: str, split: str | None = None) -> pd.DataFrame:
    part = table[table["check"] == name]
    return part if split is None else part[part["split"] == split]


def plant(given: dict, folds: Folds, name: str, what: object = None) -> tuple[int, int]:
    """Give a training row of split 0 what a test row has."""
    test, train = folds.rows_of(0, TEST)[-1], folds.rows_of(0, TRAIN)[-1]
    given[name][train] = given[name][test] if what is None else what
    return test, train


def test_a_clean_split_passes_everything(clean):
    folds, given = clean
    table = check(folds, **given)
    assert table.columns.tolist() == LEAK_COLUMNS
    assert (table.loc[table["split"] != "", "passed"] == True).all()  # noqa: E712 - None must not pass
    assert (found(table, "largest similarity")["value"] == 0).all()
    assert set(table["split"]) == {*folds.names, ""}


@pytest.mark.parametrize(
    ("name", "title"),
    [("skeletons", "shared skeleton"), ("series", "shared series"), ("scaffolds", "shared scaffold")],
)
def test_a_planted_leak_is_found_and_named(clean, name, title):
    folds, given = clean
    test, _ = plant(given, folds, name)
    row = found(check(folds, **given), title, folds.names[0]).iloc[0]
    assert row["passed"] is False
    assert row["value"] == 1
    assert str(given[name][test]) in row["detail"]


def test_a_planted_compound_is_found(clean):
    folds, given = clean
    test, train = folds.rows_of(0, TEST)[0], folds.rows_of(0, TRAIN)[0]
    rows = folds.rows.copy()
    rows.loc[train, "compound"] = rows.loc[test, "compound"]
    table = check(Folds(folds.part, rows, folds.names, folds.fold, folds.kind), **given)
    row = found(table, "shared compound", folds.names[0]).iloc[0]
    assert row["passed"] is False
    assert row["detail"] == repr(rows.loc[test, "compound"])


def test_a_validation_row_counts_as_fitted(clean):
    folds, given = clean
    part = folds.part.copy()
    twins = np.flatnonzero(folds.rows["compound"] == folds.rows["compound"][folds.rows_of(0, TEST)[0]])
    part[twins, 0] = [TEST, VALID]
    table = check(Folds(part, folds.rows, folds.names, folds.fold, folds.kind), **given)
    assert found(table, "shared compound", folds.names[0]).iloc[0]["passed"] is False
    part[twins, 0] = [TRAIN, VALID]
    table = check(Folds(part, folds.rows, folds.names, folds.fold, folds.kind), **given)
    assert found(table, "shared compound", folds.names[0]).iloc[0]["passed"] is True
    assert found(table, "compound in train and validation", folds.names[0]).iloc[0]["passed"] is False


def test_a_planted_plate_is_found(clean):
    folds, given = clean
    rows = folds.rows.copy()
    test, train = folds.rows_of(0, TEST)[0], folds.rows_of(0, TRAIN)[0]
    rows.loc[train, "plate"] = rows.loc[test, "plate"]
    table = check(Folds(folds.part, rows, folds.names, folds.fold, folds.kind), **given)
    row = found(table, "shared plate", folds.names[0]).iloc[0]
    assert row["passed"] is False
    assert rows.loc[test, "plate"] in row["detail"]


@pytest.mark.parametrize(("common", "leaks"), [(7, True), (6, False)])
def test_a_neighbour_at_exactly_the_bound_is_a_leak(clean, common, leaks):
    folds, given = clean
    test = folds.rows_of(0, TEST)[-1]
    bits = np.zeros(512, dtype=bool)
    bits[np.flatnonzero(np.unpackbits(given["fingerprints"][test]))[:common]] = True  # common of 10
    train = folds.rows_of(0, TRAIN)[-1]
    given["fingerprints"][train] = np.packbits(bits)
    row = found(check(folds, **given), "largest similarity", folds.names[0]).iloc[0]
    assert row["value"] == pytest.approx(common / 10)
    assert row["passed"] is (not leaks)
    assert f"'{folds.rows['compound'][test]}' ~ '{folds.rows['compound'][train]}' (0.{common}00)" in row["detail"]


def test_what_must_pass_depends_on_the_kind_of_split(clean):
    folds, given = clean
    for name in ("skeletons", "series", "scaffolds", "fingerprints"):
        plant(given, folds, name)
    plain = Folds(folds.part, folds.rows.assign(plate="P"), folds.names, folds.fold, "compound")
    table = check(plain, **given)
    first = table[table["split"] == folds.names[0]].set_index("check")
    assert first.loc["shared skeleton", "passed"] is False
    for information in ("shared series", "shared scaffold", "shared plate", "largest similarity"):
        assert first.loc[information, "passed"] is None
    assert first.loc["largest similarity", "value"] == 1
    assert first.loc["shared plate", "value"] == 1


def test_rows_without_a_value_share_nothing(clean):
    folds, given = clean
    given["skeletons"][:] = ""
    given["scaffolds"][:] = ""
    given["series"][:] = -1
    given["fingerprints"][:] = 0
    table = check(folds, **given)
    assert (found(table, "shared skeleton")["value"] == 0).all()
    assert (found(table, "shared scaffold")["value"] == 0).all()
    assert (found(table, "shared series")["value"] == 0).all()
    assert (found(table, "largest similarity")["passed"] == True).all()  # noqa: E712


def test_checks_without_material_are_left_out(clean):
    folds, _ = clean
    table = check(folds, skeletons=None, scaffolds=None, fingerprints=None, series=None)
    assert "shared compound" in set(table["check"])
    assert not {"shared skeleton", "shared series", "shared scaffold", "largest similarity"} & set(table["check"])


def test_empty_parts_are_found(clean):
    folds, given = clean
    part = folds.part.copy()
    part[part[:, 0] == TEST, 0] = UNUSED
    part[np.isin(part[:, 1], [TRAIN]), 1] = UNUSED
    table = check(Folds(part, folds.rows, folds.names, folds.fold, folds.kind), **given)
    rows = found(table, "empty train or test")
    assert rows["passed"].tolist() == [False, False, True, True, True, True]
    assert "0 test rows" in rows.iloc[0]["detail"]


def test_siblings_and_the_largest_group_are_reported(clean):
    folds, given = clean
    tasks = pd.DataFrame({"task": ["a_5", "b", "a_6", "c"], "assay": ["a", "b", "a", "c"]})
    table = check(folds, **given, tasks=tasks)
    siblings = found(table, "sibling tasks", "").iloc[0]
    assert (siblings["value"], siblings["n"], siblings["passed"], siblings["detail"]) == (2, 4, None, "a_5 = a_6")
    big = Folds(folds.part, folds.rows.assign(group=np.minimum(np.arange(N), 20)), folds.names, folds.fold)
    largest = found(check(big, **given), "largest group", "").iloc[0]
    assert largest["value"] == pytest.approx(40 / 60)
    assert largest["detail"].startswith("largest group holds 66.7 % of the rows")
    assert largest["passed"] is None


def test_at_most_ten_offenders_are_named(clean):
    folds, given = clean
    given["skeletons"][:] = np.array([f"S{i % 13}" for i in range(N)])
    row = found(check(folds, **given), "shared skeleton").sort_values("value").iloc[-1]
    assert row["value"] > 10
    assert row["detail"].endswith(f"and {int(row['value']) - 10} more")


def test_a_sample_is_used_and_said_where_there_are_too_many_pairs(clean):
    folds, given = clean
    exact = found(check(folds, **given), "largest similarity").iloc[0]
    sampled = found(check(folds, **given, n_sample=3, most_pairs=10), "largest similarity").iloc[0]
    assert sampled["n"] == 3
    assert f"a random 3 of {exact['n']} different test fingerprints" in sampled["detail"]
    assert "random" not in exact["detail"]


def test_lengths_must_agree(clean):
    folds, given = clean
    given["series"] = given["series"][:-1]
    with pytest.raises(ShapeError, match=f"'shared series' is checked on {N - 1} values"):
        check(folds, **given)


def test_series_folds_keep_their_promise_on_mutating_families():
    rng = np.random.default_rng(0)
    rows = [rng.random(256) < 0.15]
    for _ in range(399):
        child = (rows[rng.integers(len(rows))] if rng.random() < 0.7 else rng.random(256) < 0.15).copy()
        child[rng.integers(0, 256, rng.integers(0, 9))] ^= True
        rows.append(child)
    packed = np.packbits(np.array(rows), axis=1)
    table = pd.DataFrame({"compound": [f"K{i}" for i in range(400)]})
    given = {"skeletons": None, "scaffolds": None, "fingerprints": packed}
    groups = chemical_series(packed)
    folds = group_folds(groups, 3, rows=table, kind="series (Tanimoto >= 0.7)")
    report = found(check(folds, **given, series=groups), "largest similarity")
    assert (report["passed"] == True).all()  # noqa: E712
    for s in range(3):  # against the whole matrix
        test, fitted = folds.rows_of(s, TEST), np.flatnonzero(folds.part[:, s] != TEST)
        assert report["value"].iloc[s] == tanimoto(packed[test], packed[fitted]).max()
    by_compound = group_folds(np.arange(400), 3, rows=table, kind="series (claimed)")
    report = check(by_compound, **given, series=groups)
    assert (found(report, "largest similarity")["passed"] == False).all()  # noqa: E712
    assert (found(report, "shared series")["passed"] == False).all()  # noqa: E712


def test_published_scaffold_folds_share_no_scaffold_but_hold_neighbours(shared_data):
    folder = shared_data / "labels-broad270-subset"
    table = pd.read_parquet(folder / "label_matrix_81.parquet", columns=["broad_id", "smiles", "murcko_scaffold"])
    with np.load(folder / "moshkov_scaffold_based_split.npz") as stored:
        tested = stored["features"]  # five lists of rows
    number = np.full(len(table), -1)
    for k, rows in enumerate(tested):
        number[rows] = k
    some = np.random.default_rng(0).choice(len(table), 2_000, replace=False)
    table, number = table.iloc[some], number[some]
    folds = Folds.from_numbers(number, table.rename(columns={"broad_id": "compound"}), kind="scaffold")
    scaffolds = table["murcko_scaffold"].fillna("").to_numpy(dtype=object)
    packed = ecfp(table["smiles"].tolist())
    report = check(folds, skeletons=None, scaffolds=scaffolds, fingerprints=packed, series=None)
    assert found(report, "shared compound")["passed"].tolist() == [True] * 5
    assert found(report, "shared scaffold")["passed"].tolist() == [True] * 5
    # What a scaffold split does not keep apart, and a series split would.
    nearest = found(report, "largest similarity")
    assert (nearest["value"] > 0.7).all()
    assert nearest["passed"].isna().all()
