from __future__ import annotations

import math

import pytest

from phenohit.config import HitsConfig
from phenohit.errors import ConfigError
from phenohit.hits.recipes import RECIPES, decide
from phenohit.settings import read_config
from phenohit.study import check_config

POTENT = ("pains", "reactive", "promiscuous", "autofluorescent")


def test_a_recipe_fills_what_was_left_empty_and_nothing_else():
    plain, wide, potent = (decide(HitsConfig(recipe=name)) for name in RECIPES)
    assert (plain.n, plain.pool, plain.per_cluster, plain.fill, plain.min_score) == (342, 3.0, 5, True, None)
    assert plain.filters == ("pains",)
    assert (wide.n, wide.pool, wide.per_cluster, wide.filters) == (342, 1.0, 342, ())
    assert (potent.pool, potent.min_score, potent.filters, potent.fill) == (math.inf, 0.5, POTENT, False)
    mine = HitsConfig(recipe="potency", n=141, pool=4, per_cluster=2, min_score=0.3, filters=["reactive"], fill=True)
    mine = decide(mine)
    assert (mine.n, mine.pool, mine.per_cluster, mine.min_score, mine.filters, mine.fill) == (
        141, 4, 2, 0.3, ("reactive",), True,
    )  # fmt: skip
    assert decide(HitsConfig(recipe="potency", filters=[])).filters == ()
    assert decide(HitsConfig(recipe="expansion", n=50)).per_cluster == 50


def test_directions_and_off_targets_switch_their_filters():
    got = decide(HitsConfig(cns="keep", off_targets=["hERG", "hERG"]))
    assert got.filters == ("pains", "cns", "off_targets")
    assert got.off_targets == ("hERG",)
    assert decide(HitsConfig(recipe="potency", cns="reject")).filters == (*POTENT, "cns")


def test_settings_come_from_the_file_and_from_flags(tmp_path):
    from phenohit.config import Config

    path = tmp_path / "a.yaml"
    path.write_text("hits: {recipe: potency, filters: [pains], pool: .inf}\n")
    config = read_config([str(path), "--hits.min_score", "0.2"], prog="x", description="", kind=Config)
    got = decide(config.hits)
    assert (got.filters, got.min_score, got.preset_bar, got.pool, got.fill) == (("pains",), 0.2, False, math.inf, False)
    assert decide(read_config([], prog="x", description="", kind=Config).hits) == decide(HitsConfig())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recipe": "potent"}, "hits.recipe is 'potent'. Nearest: potency"),
        ({"filters": ["pain"]}, "hits.filters: 'pain' is not known. Nearest: pains"),
        ({"filters": ["cns"]}, "Set hits.cns: keep or reject"),
        ({"filters": ["off_targets"]}, "Set hits.off_targets"),
        ({"cns": "yes"}, "hits.cns is 'yes'"),
        ({"min_score": math.nan}, "hits.min_score is nan"),
        ({"pool": 0.5}, r"hits.pool is 0.5"),
        ({"volume_nl": 26}, "26 nL"),
    ],
)
def test_mistakes_are_named_before_anything_is_fitted(settings, message):
    from phenohit.config import ActivitySource, Config, ProfileSource

    with pytest.raises(ConfigError, match=message):
        decide(HitsConfig(**settings))
    config = Config(
        profiles=ProfileSource(path="x"), activities=[ActivitySource(path="y")], hits=HitsConfig(**settings)
    )
    with pytest.raises(ConfigError, match=message):
        check_config(config)
