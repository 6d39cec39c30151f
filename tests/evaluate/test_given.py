"""Splits that were made elsewhere: from files to folds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from phenohit.config import Config, SplitConfig
from phenohit.data.labels import Labels
from phenohit.data.profiles import Profiles
from phenohit.errors import ColumnError, ConfigError, FileError, PhenoHitError
from phenohit.evaluate import leaks
from phenohit.evaluate.given import split_files, split_inputs
from phenohit.evaluate.splits import TEST, TRAIN, UNUSED, VALID, Folds
from phenohit.evaluate.splitting import make_folds
from phenohit.settings import read_config

# Alanine in both hands and without: three compounds with one first block.
SMILES = [
    "C[C@H](N)C(=O)O",
    "C[C@@H](N)C(=O)O",
    "CCO",
    "CCN",
    "CCCO",
    "CCCN",
    "CCCCO",
    "CCCCN",
    "c1ccccc1",
    "Cc1ccccc1",
]
N = len(SMILES)


@pytest.fixture(scope="module")
def compounds() -> pd.DataFrame:
    from phenohit.chem.standardise import standardise

    table = standardise(SMILES)
    ids = [f"B{i};S{i}" for i in range(N)]
    return table.assign(compound=table["inchikey"], compound_id=ids, scaffold="")


@pytest.fixture
def data(compounds: pd.DataFrame) -> Profiles:
    """Two wells per compound, on plates 17 and 18."""
    rows = pd.DataFrame({
        "Metadata_compound": np.repeat(compounds["compound"].to_numpy(object), 2),
        "Metadata_Plate": ["17", "18"] * N,
        "Metadata_Well": np.repeat([f"A{i + 1:02d}" for i in range(N)], 2),
    })  # fmt: skip
    return Profiles(np.zeros((2 * N, 1), np.float32), rows.astype(str), ["f"])


def folds_of(split: SplitConfig, data: Profiles, compounds: pd.DataFrame, **more) -> Folds:
    n = len(data)
    tasks = pd.DataFrame({"task": ["t"], "assay": ["t"], "kind": ["binary"], "threshold": [np.nan]})
    labels = Labels(sparse.csr_matrix(np.ones((n, 1), np.float32)), pd.DataFrame({"compound": data.compounds}), tasks)
    own = compounds.set_index("compound").loc[data.compounds].reset_index()
    return make_folds(split, data, own, labels, seed=0, **more)


def part_of(folds: Folds, compounds: pd.DataFrame, split: int = 0) -> list[int]:
    """Part of every compound; all its rows must be in one."""
    by = pd.Series(folds.part[:, split]).groupby(folds.rows["compound"])
    assert (by.nunique() == 1).all()
    return by.first()[compounds["compound"]].tolist()


def write_three(
    folder: Path, parts: list[list[list[int]]], *, known: tuple[str, ...] = ("SAMPLE_KEY", "SMILES")
) -> str:
    """Write datasplit<r>-<part>.csv in the form of Hofmarcher 2019: a row per view, `parts[r][part]` are compounds."""
    for r, repeat in enumerate(parts):
        for name, members in zip(("train", "val", "test"), repeat, strict=True):
            rows = [
                {"PLATE_ID": plate, "WELL_POSITION": f"A{i + 1}", "SITE": site, "SMILES": SMILES[i],
                 "SAMPLE_KEY": f"{plate}-A{i + 1:02d}-{site}", "ROW_NR_LABEL_MAT": i}
                for i in members for plate in (17, 18) for site in (1, 2)
            ]  # fmt: skip
            pd.DataFrame(rows)[list(known)].to_csv(folder / f"datasplit{r + 1}-{name}.csv", index=False)
    return str(folder / "datasplit{repeat}-{part}.csv")


REPEATS = [[[0, 2, 3, 4, 5], [6, 7], [1, 8, 9]], [[8, 9, 1, 2, 3, 4], [5], [0, 6, 7]], [[2, 3, 4, 5, 9], [6], [7, 8]]]
ALL = ("PLATE_ID", "WELL_POSITION", "SITE", "SAMPLE_KEY", "SMILES", "ROW_NR_LABEL_MAT")


@pytest.mark.parametrize("known", [ALL, ("SMILES",), ("SAMPLE_KEY",), ("PLATE_ID", "WELL_POSITION")])
def test_one_file_per_part_and_repeat(tmp_path, data, compounds, known):
    split = SplitConfig(kind="given", path=write_three(tmp_path, REPEATS, known=known))
    folds = folds_of(split, data, compounds)
    assert (folds.names, folds.fold, folds.kind) == (["1", "2", "3"], [0, 1, 2], "given")
    for r, repeat in enumerate(REPEATS):
        expected = np.full(N, UNUSED)
        for role, members in zip((TRAIN, VALID, TEST), repeat, strict=True):
            expected[members] = role
        assert part_of(folds, compounds, r) == expected.tolist()
    # The third repeat lacks two compounds: they are listed, and so is nothing else.
    lost = folds.left_out
    assert sorted(lost["id"]) == sorted(compounds["compound"][:2])
    assert lost["reason"].str.contains(r"in no part of the given split \(1 of 3 repeats\)").all()


def test_rows_that_are_compounds_are_found_by_the_wells_of_the_run(tmp_path, data, compounds):
    path = write_three(tmp_path, REPEATS, known=("SAMPLE_KEY",))
    rows = data.rows.iloc[::2].assign(Metadata_Plate="17;18")
    own = Profiles(data.X[::2], rows, ["f"])
    expected = folds_of(SplitConfig(kind="given", path=path), data, compounds).part[::2]
    np.testing.assert_array_equal(folds_of(SplitConfig(kind="given", path=path), own, compounds).part, expected)
    bare = Profiles(own.X, rows.drop(columns="Metadata_Well"), ["f"])
    wells = pd.DataFrame({
        "compound": data.compounds, "plate": data.rows["Metadata_Plate"], "well": data.rows["Metadata_Well"],
    })  # fmt: skip
    found = folds_of(SplitConfig(kind="given", path=path), bare, compounds, wells=wells)
    np.testing.assert_array_equal(found.part, expected)


def test_published_leaks_are_told_and_do_not_stop_anything(tmp_path, data, compounds):
    folds = folds_of(SplitConfig(kind="given", path=write_three(tmp_path, REPEATS)), data, compounds)
    own = compounds.set_index("compound").loc[data.compounds]
    table = leaks.check(
        folds, skeletons=own["skeleton"].to_numpy(object), scaffolds=None, fingerprints=None, series=None, tasks=None
    )
    failed = table[table["passed"].eq(False)]
    assert failed["check"].tolist() == ["shared skeleton"] * 2  # alanine trains in one hand, is tested in the other
    assert failed["split"].tolist() == ["1", "2"]
    # The folder's name must not become a promise that the checks hold the split to.
    (tmp_path / "plate_series_scaffold").mkdir()
    path = write_three(tmp_path / "plate_series_scaffold", REPEATS)
    assert folds_of(SplitConfig(kind="given", path=path), data, compounds).kind == "given"


def test_one_table_with_parts_or_folds(tmp_path, data, compounds):
    table = pd.DataFrame({"compound": [f"S{i}" for i in range(N)], "part": ["train"] * 6 + ["valid"] + ["test"] * 3})
    path = tmp_path / "split.csv"
    table.to_csv(path, index=False)
    folds = folds_of(SplitConfig(kind="given", path=str(path)), data, compounds)
    assert folds.names == ["0"]
    assert part_of(folds, compounds) == [TRAIN] * 6 + [VALID] + [TEST] * 3
    # Fold numbers: every compound is tested once; one without a number is not used.
    table = pd.DataFrame({"InChIKey": compounds["compound"], "Fold": [0, 0, 0, 1, 1, 1, 2, 2, 2, -1]})
    table.to_csv(path, index=False)
    folds = folds_of(SplitConfig(kind="given", path=str(path), valid=0.0), data, compounds)
    assert folds.names == ["0", "1", "2"]
    for k in range(3):
        assert part_of(folds, compounds, k) == [TEST if i // 3 == k else TRAIN for i in range(9)] + [UNUSED]
    assert folds.left_out["id"].tolist() == [compounds["compound"][9]]
    # Columns called otherwise.
    table.set_axis(["molecule", "k"], axis=1).to_csv(path, index=False)
    named = SplitConfig(kind="given", path=str(path), columns={"inchikey": "molecule", "fold": "k"}, valid=0.0)
    np.testing.assert_array_equal(folds_of(named, data, compounds).part, folds.part)


def test_validation_rows_are_set_apart_where_the_tables_name_none(tmp_path, data, compounds):
    table = pd.DataFrame({"compound": [f"B{i}" for i in range(N)], "part": ["train"] * 8 + ["test"] * 2})
    table.to_csv(tmp_path / "split.csv", index=False)
    split = SplitConfig(kind="given", path=str(tmp_path / "split.csv"), valid=0.25)
    part = part_of(folds_of(split, data, compounds), compounds)
    assert part[8:] == [TEST, TEST]
    assert part.count(VALID) == 2
    assert part[0] == part[1]  # both hands of alanine are one group
    assert VALID not in folds_of(SplitConfig(kind="given", path=split.path, valid=0.0), data, compounds).part


def test_what_the_run_does_not_have_is_listed_and_saved(tmp_path, data, compounds):
    table = pd.DataFrame({
        "SMILES": [*SMILES[:5], "CCCCCCCC", "not a structure"], "split": ["train"] * 3 + ["test"] * 3 + ["train"],
    })  # fmt: skip
    table.to_csv(tmp_path / "split.csv", index=False)
    folds = folds_of(SplitConfig(kind="given", path=str(tmp_path / "split.csv"), valid=0.0), data, compounds)
    unknown = folds.left_out[folds.left_out["reason"].str.contains("not in the run")]
    assert unknown["id"].tolist() == ["CCCCCCCC", "not a structure"]
    assert sorted(set(folds.left_out["id"]) - set(unknown["id"])) == sorted(compounds["compound"][5:])
    folds.save(tmp_path / "folds.parquet")
    kept = pd.read_csv(tmp_path / "folds.left_out.csv", dtype=str)
    assert kept["id"].tolist() == folds.left_out["id"].tolist()
    Folds(folds.part, folds.rows, folds.names, folds.fold).save(tmp_path / "folds.parquet")
    assert not (tmp_path / "folds.left_out.csv").exists()


def _table(**columns) -> pd.DataFrame:
    return pd.DataFrame({"compound": ["S0", "S1", "S2"], **columns})


BAD = [
    (_table(part=["train", "test", "holdout"]), ColumnError, r"parts that are not known: 'holdout' \(row 2\)"),
    (_table(size=[1, 2, 3]), ColumnError, "says neither a part"),
    (_table(part=["train", "test", "test"], fold=[0, 1, 2]), ColumnError, "says both a part and a fold"),
    (_table(part=["train"] * 3), ConfigError, "leaves nothing to 'test'"),
    (_table(part=["train", "test", "test"])[["part"]], ColumnError, "names no compounds: its columns are 'part'"),
    (pd.concat([_table(part=["train", "train", "test"]), pd.DataFrame({"compound": ["B1"], "part": ["test"]})]),
     ColumnError, r"1 compounds of the run are in more than one part .*; the first in 'train', 'test'"),
    (pd.concat([_table(fold=[0, 1, 2]), pd.DataFrame({"compound": ["S2"], "fold": [0]})]), ColumnError, "in '2', '0'"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "error", "message"), BAD, ids=[m[:24] for _, _, m in BAD])
def test_tables_that_cannot_be_used_say_why(tmp_path, data, compounds, table, error, message):
    table.to_csv(tmp_path / "split.csv", index=False)
    with pytest.raises(error, match=message) as told:
        folds_of(SplitConfig(kind="given", path=str(tmp_path / "split.csv")), data, compounds)
    if "more than one" in message:
        assert compounds["compound"][1] in str(told.value)


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"set splits\.path"):
        split_files(SplitConfig(kind="given"))
    path = str(tmp_path / "datasplit{repeat}-{part}.csv")
    with pytest.raises(FileError, match="No file is called as"):
        split_files(SplitConfig(kind="given", path=path))
    for name in ("10-train", "10-test", "2-training", "2-Test", "2-test-seen", "2-val", "other"):
        (tmp_path / f"datasplit{name}.csv").write_text("")
    found = split_files(SplitConfig(kind="given", path=path))
    assert [(f.repeat, f.part) for f in found] == [("2", TEST), ("2", TRAIN), ("2", VALID), ("10", TEST), ("10", TRAIN)]
    (tmp_path / "datasplit2-valid.csv").write_text("")
    with pytest.raises(FileError, match=r"two files of repeat '2' .* for 'valid'"):
        split_files(SplitConfig(kind="given", path=path))
    (tmp_path / "datasplit2-valid.csv").unlink()
    (tmp_path / "datasplit10-test.csv").unlink()
    with pytest.raises(FileError, match=r"no file of repeat '10' .* for 'test'"):
        split_files(SplitConfig(kind="given", path=path))
    (tmp_path / "a[1]").mkdir()  # a folder that looks like a pattern
    for part in ("train", "test"):
        (tmp_path / "a[1]" / f"{part}.csv").write_text("")
    assert len(split_files(SplitConfig(kind="given", path=str(tmp_path / "a[1]" / "{part}.csv")))) == 2
    with pytest.raises(PhenoHitError, match="does not exist"):
        folds_of(SplitConfig(kind="given", path=str(tmp_path / "none.csv")), *_tiny())


def _tiny() -> tuple[Profiles, pd.DataFrame]:
    rows = pd.DataFrame({"Metadata_compound": ["K"]}, dtype=str)
    about = {"compound": ["K"], "compound_id": ["K"], "inchikey": [""], "skeleton": [""], "scaffold": [""]}
    return Profiles(np.zeros((1, 1), np.float32), rows, ["f"]), pd.DataFrame(about)


def test_a_changed_file_is_another_split(tmp_path):
    path = write_three(tmp_path, REPEATS)
    before = split_inputs(SplitConfig(kind="given", path=path))
    assert len(before) == 9
    (tmp_path / "datasplit2-val.csv").write_text("SMILES\nC\n")
    after = split_inputs(SplitConfig(kind="given", path=path))
    assert [Path(f).name for f in before if before[f] != after[f]] == ["datasplit2-val.csv"]
    assert split_inputs(SplitConfig()) == {}


def test_the_settings_tell_that_repeats_test_compounds_again(tmp_path):
    (tmp_path / "c.yaml").write_text("splits: [{kind: given, path: 'a{repeat}.csv', columns: {part: set}}]\n")
    config = read_config([str(tmp_path / "c.yaml")], prog="p", description="", kind=Config)
    from phenohit.scoring import is_repeated

    assert is_repeated(config.splits[0])
    assert not is_repeated(SplitConfig(kind="given", path="folds.csv"))
