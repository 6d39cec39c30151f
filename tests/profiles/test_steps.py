from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from phenohit.config import Step
from phenohit.data.profiles import Profiles
from phenohit.errors import ColumnError, ConfigError, FileError
from phenohit.profiles.steps import Steps, do_steps


def screen(seed=0, flat=()) -> Profiles:
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(
        {
            "Metadata_Plate": np.repeat(["P0", "P1", "P2"], 30),
            "Metadata_Well": np.tile([f"{chr(65 + i // 6)}{i % 6 + 1:02d}" for i in range(30)], 3),
            "Metadata_pert_type": np.tile(["negcon"] * 10 + ["trt"] * 20, 3),
        }
    )
    X = rng.normal(size=(90, 6)).astype(np.float32)
    for plate, j in flat:
        X[plate * 30 : plate * 30 + 10, j] = 1.0
    return Profiles(X, rows.astype(str), [f"Cells_{j}" for j in range(6)])


def test_steps_in_order_with_history_and_dropped():
    given = screen(flat=[(0, 2), (1, 2)])
    out, lost = do_steps(given, [Step("normalise"), Step("sphere")])
    assert out.history == ("mad_robustize[plate, negcon]", "sphere ZCA-cor[all, negcon]")
    assert lost["stage"].tolist() == ["normalise"]
    assert out.X.shape == (90, 5)
    assert np.isfinite(out.X).all()


def test_no_steps_change_nothing():
    given = screen()
    out, lost = do_steps(given, [])
    assert out is given
    assert lost.empty


def test_unknown_step():
    with pytest.raises(ConfigError, match="Nearest: normalise"):
        do_steps(screen(), [Step("normalize")])


def test_later_wells_have_the_columns_of_the_first(tmp_path):
    first, _, fitted = Steps.fit_apply(screen(flat=[(0, 2), (1, 2)]), [Step("normalise"), Step("sphere", epsilon=0.1)])
    fitted.save(tmp_path / "s")
    later = screen(seed=1, flat=[(0, 4)])  # a feature that normalise refuses only now, on one plate
    wide = Profiles(np.hstack([later.X, later.X[:, :1]]), later.rows, [*later.features, "Cells_9"])
    out, lost = Steps.load(tmp_path / "s").apply(wide.take(np.arange(90)))
    assert out.features == first.features
    assert lost["id"].tolist() == ["Cells_4"]
    np.testing.assert_array_equal(out.X, fitted.apply(later)[0].X)
    with pytest.raises(ColumnError, match=r"lack 1 of the 5 features.*'Cells_0'"):
        fitted.apply(Profiles(later.X[:, 1:], later.rows, later.features[1:]))


def test_damaged_file(tmp_path):
    _, _, fitted = Steps.fit_apply(screen(), [Step("normalise")])
    fitted.save(tmp_path)
    path = tmp_path / "steps.json"
    value = json.loads(path.read_text())
    for broken in ({"steps": value["steps"]}, {**value, "features": []}, {**value, "steps": [{"no": 1}]}, []):
        path.write_text(json.dumps(broken))
        with pytest.raises(FileError, match="damaged"):
            Steps.load(tmp_path)
