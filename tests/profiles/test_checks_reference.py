from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from phenohit.config import ChecksConfig
from phenohit.data.profiles import Profiles
from phenohit.errors import ColumnError, ConfigError, FileError
from phenohit.profiles.checks import Checks, check_plates, drop_flagged
from phenohit.profiles.checks_reference import FEATURES, References, check_references, reference_distances

COMPOUNDS, DOSES, CONTROLS, F = 4, 4, 8, 120
GROUPS = COMPOUNDS * DOSES
NAMES = [f"c{k}" for k in range(COMPOUNDS)]


def screen(seed=0, n_plates=12, plate_sd=0.3, first=0) -> Profiles:
    """Simulate plates with 8 controls and 4 reference compounds at 4 doses; the stronger, the further."""
    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(7).normal(size=(COMPOUNDS, 1, F)) * np.linspace(0.5, 2, DOSES)[:, None]
    group = np.concatenate([np.arange(GROUPS), np.full(CONTROLS, -1)])
    control = group < 0
    rows = pd.DataFrame(
        {
            "Metadata_Well": [f"{chr(65 + i // 6)}{i % 6 + 1:02d}" for i in range(len(group))],
            "Metadata_pert_type": np.where(control, "negcon", "trt"),
            "Metadata_compound_id": np.where(control, "DMSO", [NAMES[g // DOSES] for g in group]),
            "Metadata_concentration_uM": np.where(control, "", [f"{10.0 ** (g % DOSES - 2):g}" for g in group]),
        }
    )
    table = pd.concat([rows.assign(Metadata_Plate=f"P{first + p}") for p in range(n_plates)], ignore_index=True)
    signal = np.where(control[:, None], 0, truth.reshape(GROUPS, F)[group])
    X = [signal + rng.normal(size=signal.shape) + rng.normal(size=F) * plate_sd for _ in range(n_plates)]
    return Profiles(np.vstack(X).astype(np.float32), table.astype(str), [f"Cells_{j}" for j in range(F)])


def settings(**more) -> ChecksConfig:
    return ChecksConfig(references={"compound_id": NAMES}, **more)


def judged(given: Profiles, **more) -> References:
    return check_references(given, given, settings(**more))


def altered(given: Profiles, X) -> Profiles:
    return Profiles(X.astype(np.float32), given.rows, given.features)


def flagged_plates(given: Profiles, **more) -> list[str]:
    flags = check_plates(given, given, settings(**more)).flags
    return flags.loc[(flags["rule"] == "reference") & (flags["what"] == "plate"), "plate"].tolist()


def on(given: Profiles, *plates: str) -> np.ndarray:
    return given.rows["Metadata_Plate"].isin(plates).to_numpy()


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Return the folder of a run with reference wells on 12 plates, and those wells."""
    folder = tmp_path_factory.mktemp("run")
    checks = check_plates(screen(), screen(), settings())
    checks.save(folder / "checks")
    return folder, checks.history


def test_distance_is_that_of_its_formula():
    rng = np.random.default_rng(1)
    history = rng.normal(size=(30, 1)).astype(np.float32)
    plates = np.array([f"P{i % 6}" for i in range(30)])
    codes = np.zeros(30, dtype=np.intp)
    X = np.array([[4.0], [-1.0], [1e6]], dtype=np.float32)
    distance, n = reference_distances(history, codes, plates, X, np.zeros(3, dtype=np.intp))
    centre = np.median(history)
    spread = 1.4826 * np.median(np.abs(history - centre)) * np.sqrt(1 + np.pi / 60)
    assert distance[:2] == pytest.approx(np.abs(X[:2, 0] - centre) / spread, rel=1e-5)
    assert distance[2] == 20
    assert n.tolist() == [30] * 3


def test_clean_screens_pass_as_seldom_as_stated():
    off = judged_wells = 0
    for seed in range(10):
        found = judged(screen(seed))
        judged_wells += int(found.judged.sum())
        off += int(found.off.sum())
    assert judged_wells == 10 * 12 * GROUPS
    assert off <= 8  # 1.9 expected; Poisson: more than 8 once in 5,000
    assert flagged_plates(screen(3)) == []


def test_swapped_wells_are_found():
    given = screen()
    high = given.rows["Metadata_concentration_uM"].eq("10").to_numpy() & on(given, "P4")
    a, b = np.flatnonzero(high)[:2]
    X = given.X.copy()
    X[[a, b]] = X[[b, a]]
    found = judged(altered(given, X))
    assert set(found.wells.loc[found.off, "row"]) == {a, b}
    flags = check_plates(altered(given, X), altered(given, X), settings()).flags
    mine = flags[flags["rule"] == "reference"]
    assert mine["well"].tolist() == given.rows["Metadata_Well"].iloc[[a, b]].tolist()
    assert mine["text"].str.contains("at 10 uM is .* spreads from 11 historic wells; about 1 in 1,000 is beyond").all()
    assert (mine["value"] > mine["limit"]).all()


def test_turned_plate_and_drifted_batch_are_found():
    given = screen()
    X = given.X.copy()
    X[on(given, "P5")] = X[on(given, "P5")][::-1]
    assert flagged_plates(altered(given, X)) == ["P5"]
    X = given.X + np.where(on(given, "P1", "P2", "P3")[:, None], np.random.default_rng(2).normal(size=F) * 3, 0)
    assert flagged_plates(altered(given, X)) == ["P1", "P2", "P3"]
    assert "no history for others: 'P1', 'P2', 'P3'" in judged(altered(given, X)).note


def test_dropping_leaves_out_what_is_flagged_and_says_why():
    given = screen()
    X = given.X.copy()
    X[3] += 9
    X[on(given, "P5")] = X[on(given, "P5")][::-1]
    config = settings(drop=["reference"])
    left, gone = drop_flagged(altered(given, X), check_plates(altered(given, X), altered(given, X), config), config)
    per_plate = GROUPS + CONTROLS
    assert len(gone) == per_plate + 1 == len(given) - len(left)
    assert gone["reason"].str.startswith("reference: ").all()
    assert "P5" not in set(left.rows["Metadata_Plate"])


def test_run_folder_is_history_and_nothing_is_learned_from_the_wells_judged(kept):
    folder, _ = kept
    new = screen(5, n_plates=2, first=50)
    alone = judged(new)
    assert not alone.judged.any()
    assert "fewer than 5 historic wells" in alone.note
    found = judged(new, history=str(folder))
    assert found.judged.all()
    assert found.off.sum() <= 1
    X = new.X.copy()
    X[on(new, "P51")] = X[on(new, "P51")][::-1]
    turned = judged(altered(new, X), history=str(folder))
    first = ~on(new, "P51")[: len(new)]
    same = first[turned.wells["row"]]
    assert turned.wells.loc[same, "distance"].tolist() == found.wells.loc[same, "distance"].tolist()
    assert turned.off[~same].sum() > GROUPS / 2
    table = check_plates(altered(new, X), altered(new, X), settings(history=str(folder))).plates
    assert table["n_reference"].tolist() == [GROUPS] * 2
    assert table["rules"].tolist() == ["", "reference"]
    again = Checks.load(folder / "checks")
    assert again.history is None


def test_history_as_a_table_without_features_of_ours(tmp_path, kept):
    _, history = kept
    lacking = pd.concat([history.rows, pd.DataFrame(history.X[:, 30:], columns=history.features[30:])], axis=1)
    lacking["Cells_Other"] = 1.0
    lacking.to_csv(tmp_path / "old.csv", index=False)
    new = screen(5, n_plates=1, first=50)
    found = judged(new, history=str(tmp_path / "old.csv"))
    assert "91 features in the history, 120 here, 90 in both" in found.note
    assert found.judged.all()
    assert found.off.sum() <= 1
    other = Profiles(new.X, new.rows, [f"Nuclei_{j}" for j in range(F)])
    with pytest.raises(ColumnError, match=r"has none of the features .* 'Nuclei_0'"):
        judged(other, history=str(tmp_path / "old.csv"))


def test_history_on_another_scale_is_refused(kept):
    folder, history = kept
    new = screen(5, n_plates=2, first=50)
    with pytest.raises(ConfigError, match="another scale"):
        judged(altered(new, new.X * 100), history=str(folder))
    stepped = Profiles(history.X, history.rows, history.features, ("mad_robustize[plate]",))
    stepped.save(folder / "stepped.parquet")
    with pytest.raises(ConfigError, match="cannot be compared"):
        judged(Profiles(new.X, new.rows, new.features, ("sphere",)), history=str(folder / "stepped.parquet"))


def test_plates_judged_have_no_part_in_their_history(kept):
    folder, _ = kept
    found = judged(screen(n_plates=2), history=str(folder))
    assert "wells of the history are on plates judged here" in found.note
    assert (found.wells["n_history"] <= 10).all()


def test_mistakes_in_the_settings(kept, tmp_path):
    given = screen()
    for references, error, text in (
        ({"compund_id": NAMES}, ColumnError, "no column 'compund_id'.*Metadata_compound_id"),
        ({"compound_id": ["taxol"]}, ConfigError, "holds none of 'taxol'. It holds 'DMSO'"),
    ):
        with pytest.raises(error, match=text):
            check_references(given, given, ChecksConfig(references=references))
    with pytest.raises(ConfigError, match=r"checks\.references names no wells"):
        check_references(given, given, ChecksConfig(history="x"))
    with pytest.raises(FileError, match=r"has no 'checks/reference_wells\.parquet'"):
        judged(given, history=str(tmp_path))
    with pytest.raises(FileError):
        judged(given, history=str(tmp_path / "absent.csv"))
    some_known = check_references(given, given, ChecksConfig(references={"compound_id": ["c1", "taxol"]}))
    assert "no well has compound_id 'taxol'" in some_known.note
    off = check_references(given, given, ChecksConfig())
    assert off.wells.empty
    assert off.history is None


def test_plates_without_references_and_rare_doses_are_counted():
    given = screen()
    ids = given.rows["Metadata_compound_id"].mask(on(given, "P7"), "other")
    dose = given.rows["Metadata_concentration_uM"].copy()
    dose.iloc[2] = "3"
    found = judged(
        Profiles(given.X, given.rows.assign(Metadata_compound_id=ids, Metadata_concentration_uM=dose), given.features)
    )
    assert "1 plates have no reference well: 'P7'" in found.note
    assert "not judged: 1 (fewer than 5 historic wells" in found.note
    assert found.judged.sum() == 11 * GROUPS - 1
    assert found.wells["distance"].isna().sum() == 1


def test_gaps_and_copies():
    given = screen()
    copies = np.repeat(given.X[:, :60], 2, axis=1)
    found = judged(altered(given, copies))
    assert found.judged.all()
    X = given.X.copy()
    X[:, :10] = np.nan
    X[5] = np.nan
    gappy = judged(altered(given, X))
    assert "not judged: 1 (features missing)" in gappy.note
    assert gappy.judged.sum() == 12 * GROUPS - 1
    flat = judged(altered(given, np.ones_like(given.X)))
    assert not flat.judged.any()
    assert FEATURES == 50


def test_one_measured_number_is_enough():
    given = screen()
    counts = Profiles(given.X[:, :1], given.rows.drop(columns="Metadata_Well"), ["Cells_Count"])
    assert judged(counts).judged.all()
    assert judged(counts).off.mean() < 0.02


def test_real_plates_of_another_time_are_unlike_their_history(shared_data, tmp_path):
    table = pd.read_parquet(shared_data / "cell-injury-u2os" / "profiles.parquet")
    features = [c for c in table if c.startswith(("Cells_", "Cytoplasm_", "Nuclei_"))]
    control = table["is_dmso"].astype(str) == "True"
    rows = pd.DataFrame(
        {
            "Metadata_Plate": table["plate"],
            "Metadata_Well": table["well"],
            "Metadata_pert_type": np.where(control, "negcon", "trt"),
            "Metadata_compound_id": table["compound_name"],
            "Metadata_concentration_uM": table["concentration_uM"].map("{:g}".format, na_action="ignore").fillna(""),
        }
    )
    rows = rows.fillna("").astype(str)
    wells = Profiles(table[features].to_numpy(np.float32), rows, features)
    hours = table["treatment_time_h"].to_numpy()
    config = ChecksConfig(references={"compound_id": ["Nocodazole", "Colchicine", "Radicicol", "Wortmannin"]})
    day = wells.take((hours == 24) & (table["experimental_batch"] == 1).to_numpy())
    found = check_references(day, day, config)
    assert found.judged.sum() > 400
    assert found.off.mean() < 0.01
    found.history.save(tmp_path / "run" / "checks" / "reference_wells.parquet")
    two_days = wells.take(hours == 48)
    config.history = str(tmp_path / "run")
    plates = check_plates(two_days, two_days, config).plates
    assert plates["rules"].str.contains("reference").mean() > 0.9


def test_copies_of_a_feature_do_not_outvote_the_others():
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(41, 2))
    first = 9 + noise[:, :1] + rng.normal(size=(41, 60)) * 0.01
    X = np.hstack([first, 5 + noise[:, 1:]]).astype(np.float32)
    X[40, 60] += 8
    plates, codes = np.array([f"P{i % 8}" for i in range(40)]), np.zeros(41, dtype=np.intp)
    distance, _ = reference_distances(X[:40], codes[:40], plates, X[40:], codes[40:])
    assert distance[0] > 4


def test_features_are_those_on_which_references_differ_from_controls():
    given = screen(n_plates=40)
    X = given.X.copy()
    X[:, :60] = np.random.default_rng(4).normal(size=(len(X), 60)) + 20  # of references and controls alike
    wanted = given.rows["Metadata_compound_id"].eq("c0") & given.rows["Metadata_concentration_uM"].eq("10")
    rows = given.rows.assign(Metadata_role=np.where(wanted, "reference", ""))
    bad = np.flatnonzero(wanted)[7]
    X[bad, 60:] += 4
    given = Profiles(X.astype(np.float32), rows, given.features)
    found = check_references(given, given, ChecksConfig(references={"role": ["reference"]}))
    assert found.wells.loc[found.off, "row"].tolist() == [bad]
