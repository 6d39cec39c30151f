from __future__ import annotations

import pytest

from phenohit.config import Config
from phenohit.errors import ConfigError, FileError
from phenohit.settings import expand, read_config


def _read(tmp_path, text: str, *flags: str) -> Config:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return read_config([str(path), *flags], prog="phenohit run", description="", kind=Config)


def test_yaml_and_flags_make_a_config_and_flags_win(tmp_path):
    config = _read(
        tmp_path,
        "name: x\nseed: 1\nprofiles: {path: a.csv, columns: {plate: P}}\n"
        "activities:\n- {path: b.csv, kind: value, thresholds: [6]}\nsplits:\n- {plate_folds: 3}\n"
        "models: {forest: {n_trees: 10}}\n",
        "--seed", "7", "--hits.n", "20",
    )  # fmt: skip
    assert (config.seed, config.hits.n, config.name) == (7, 20, "x")
    assert config.profiles.columns == {"plate": "P"}
    assert config.activities[0].thresholds == [6.0]
    assert config.splits[0].plate_folds == 3
    assert config.models == {"forest": {"n_trees": 10}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("profils: {}", r"'profils' is no setting\. Nearest: profiles"),
        ("profiles: {pth: x}", r"'profiles\.pth' is no setting\. Nearest: path"),
        ("splits: [{kindd: series}]", r"'splits\[0\]\.kindd' is no setting\. Nearest: kind"),
        ("splits: [{kind: serie}]", r"kind is 'serie'. Expected one of series, scaffold, compound, given. Nearest: "),
        ("seed: many", r"seed.*Expected.*int.*many"),
        ("- 1\n- 2", "must hold keys"),
        ("a: [1", "is not YAML"),
    ],
)
def test_bad_configs_are_named_with_place_and_nearest(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        _read(tmp_path, text)


def test_an_absent_config_is_told(tmp_path):
    with pytest.raises(FileError, match=r"nowhere\.yaml' does not exist"):
        read_config([str(tmp_path / "nowhere.yaml")], prog="p", description="", kind=Config)


def test_an_unknown_flag_is_told_with_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match=r"'--hits\.nn' is no setting\. Nearest: hits\.n"):
        _read(tmp_path, "name: x", "--hits.nn", "3")


def test_environment_variables_are_expanded_or_asked_for(monkeypatch):
    monkeypatch.setenv("SCREENS", "/data")
    assert expand(Config(out="${SCREENS}/run")).out == "/data/run"
    monkeypatch.delenv("SCREENS")
    with pytest.raises(ConfigError, match="needs the environment variable SCREENS"):
        expand(Config(out="${SCREENS}/run"))
