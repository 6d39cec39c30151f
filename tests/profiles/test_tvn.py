from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from phenohit.config import Step
from phenohit.data.profiles import Profiles
from phenohit.errors import ConfigError, FileError, PlateError, ShapeError
from phenohit.profiles.steps import Steps, do_steps
from phenohit.profiles.tvn import Tvn

COMPOUNDS, F = 30, 20


def screen(seed=0, batches=("b0", "b1", "b2"), effect=1.0) -> Profiles:
    """Simulate batches of one plate each: 40 controls and every compound once, nuisance along two axes."""
    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(99).normal(size=(COMPOUNDS, F)) * effect
    nuisance = np.random.default_rng(98).normal(size=(2, F)) * 6
    X, rows = [], []
    for b in batches:
        n = 40 + COMPOUNDS
        noise = rng.normal(size=(n, 2)) @ nuisance + rng.normal(size=(n, F)) * 0.5
        signal = np.vstack([np.zeros((40, F)), truth])
        X.append((signal + noise) * rng.uniform(0.7, 1.5) + rng.normal(size=F) * 8)
        rows.append(
            pd.DataFrame(
                {
                    "Metadata_Plate": f"plate {b}",
                    "Metadata_Batch": b,
                    "Metadata_Well": [f"{chr(65 + i // 10)}{i % 10 + 1:02d}" for i in range(n)],
                    "Metadata_pert_type": ["negcon"] * 40 + ["trt"] * COMPOUNDS,
                    "Metadata_compound_id": ["DMSO"] * 40 + [f"c{i}" for i in range(COMPOUNDS)],
                }
            )
        )
    return Profiles(np.vstack(X).astype(np.float32), pd.concat(rows).astype(str), [f"Cells_{j}" for j in range(F)])


def replicates_minus_others(given: Profiles) -> float:
    """Mean correlation of replicates across batches less that of different compounds."""
    trt = (given.rows["Metadata_pert_type"] == "trt").to_numpy()
    rows = given.rows[trt].reset_index(drop=True)
    r = np.corrcoef(given.X[trt])
    name, batch = rows["Metadata_compound_id"].to_numpy(), rows["Metadata_Batch"].to_numpy()
    other = batch[:, None] != batch
    same = name[:, None] == name
    return float(r[same & other].mean() - r[~same & other].mean())


def test_batch_offsets_go_and_replicates_agree():
    given = screen()
    out, lost = do_steps(given, [Step("tvn")])
    assert lost.empty
    assert out.history == ("tvn[batch, negcon]",)
    assert out.features[0] == "TVN_0001"
    controls = (out.rows["Metadata_pert_type"] == "negcon").to_numpy()
    for b in ("b0", "b1", "b2"):
        part = out.X[controls & (out.rows["Metadata_Batch"] == b).to_numpy()]
        np.testing.assert_allclose(part.mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(part.std(0), 1, atol=1e-4)
    normalised, _ = do_steps(given, [Step("normalise", "standardize")])
    assert replicates_minus_others(given) < 0.2
    assert replicates_minus_others(out) > replicates_minus_others(normalised) + 0.2
    assert replicates_minus_others(out) > 0.6


def test_axes_are_whitened_components_of_the_controls():
    given = screen()
    fitted = Tvn.fit(given, Step("tvn"))
    controls = given.X[(given.rows["Metadata_pert_type"] == "negcon").to_numpy()].astype(np.float64)
    z = (controls - controls.mean(0)) / controls.std(0)
    np.testing.assert_allclose(np.cov((z @ fitted.axes).T), np.eye(fitted.axes.shape[1]), atol=1e-6)
    values = np.linalg.eigvalsh(np.cov(z.T))[::-1]
    np.testing.assert_allclose(1 / (fitted.axes**2).sum(0), values, rtol=1e-6)


def test_redundant_directions_are_left_out():
    given = screen()
    X = np.hstack([given.X, given.X[:, :5] @ np.ones((5, 2), np.float32)]).astype(np.float32)
    wide = Profiles(X, given.rows, [f"Cells_{j}" for j in range(22)])
    fitted = Tvn.fit(wide, Step("tvn"))
    assert fitted.axes.shape == (22, F)


def test_new_batches_are_read_on_the_same_axes(tmp_path):
    steps = [Step("normalise"), Step("tvn")]
    old, _, fitted = Steps.fit_apply(screen(), steps)
    fitted.save(tmp_path / "steps")
    new, _ = Steps.load(tmp_path / "steps").apply(screen(seed=5, batches=("b7", "b8", "b9")))
    assert new.features == old.features
    assert new.history == old.history == ("mad_robustize[plate, negcon]", "tvn[batch, negcon]")
    both = Profiles(np.vstack([old.X, new.X]), pd.concat([old.rows, new.rows]), old.features)
    assert replicates_minus_others(both) > 0.5
    refitted, _ = do_steps(screen(seed=5, batches=("b7", "b8", "b9")), steps)
    apart = Profiles(np.vstack([old.X, refitted.X]), pd.concat([old.rows, refitted.rows]), old.features)
    assert replicates_minus_others(apart) < replicates_minus_others(both) - 0.1  # other axes: why they are kept


def test_mistakes(tmp_path):
    given = screen()
    with pytest.raises(ConfigError, match="Leave it empty"):
        Tvn.fit(given, Step("tvn", "PCA"))
    with pytest.raises(PlateError, match="no 'Metadata_Batch'"):
        Tvn.fit(Profiles(given.X, given.rows.drop(columns="Metadata_Batch"), given.features), Step("tvn"))
    kind = given.rows["Metadata_pert_type"].where(given.rows["Metadata_Batch"] != "b1", "trt")
    with pytest.raises(PlateError, match=r"batch 'b1' has 0 wells.*tvn to controls needs at least 4"):
        Tvn.fit(Profiles(given.X, given.rows.assign(Metadata_pert_type=kind), given.features), Step("tvn"))
    with pytest.raises(ShapeError):
        Tvn.fit(given, Step("tvn")).apply(given.with_features(given.X[:, :3], given.features[:3], "x"))
    (tmp_path / "t.safetensors").write_bytes(b"no")
    with pytest.raises(FileError):
        Tvn.load(tmp_path / "t.safetensors")
