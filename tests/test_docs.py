"""What the pages tell a reader to type works."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from phenohit.cli import main
from phenohit.config import Config, Join, ProfileSource, Step
from phenohit.data.profiles import Profiles
from phenohit.data.read import read_profiles
from phenohit.errors import PhenoHitError
from phenohit.profiles.identify import identify
from phenohit.profiles.steps import do_steps
from phenohit.settings import read_config

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]


def _blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)


@pytest.mark.xdist_group("pipeline")
def test_the_python_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    first = next(line for line in _blocks(ROOT / "docs" / "first-run.md", "bash")[0].splitlines() if "simulate" in line)
    assert main(shlex.split(first)[1:]) == 0
    names: dict = {}
    blocks = _blocks(ROOT / "docs" / "python.md", "python")
    assert len(blocks) >= 3
    for block in blocks:
        exec(block, names)
    assert names["hits"].table["picked"].sum() == 10
    assert names["table"]["auroc"].notna().any()
    assert "chance_high" in capsys.readouterr().out


@pytest.mark.parametrize("block", [b for p in PAGES for b in _blocks(p, "yaml")])
def test_every_yaml_on_a_page_is_a_config(block, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(block)
    assert set(yaml.safe_load(block)) <= {f for f in Config.__dataclass_fields__}
    read_config([str(path)], prog="p", description="", kind=Config)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda p: p.name)
def test_every_example_is_a_config(path, monkeypatch):
    monkeypatch.setenv("PHENOHIT_DATA", "/data")
    config = read_config([str(path)], prog="p", description="", kind=Config)
    assert config.name != "PhenoHit run"


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        if not link.startswith(("http://", "https://")):
            assert (path.parent / link).exists(), link


# --- the pages on what goes in: a small simulated screen in the form that the page describes -------------------


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> pd.DataFrame:
    """Wells of a small simulated screen, and the structures of its compounds, as tables."""
    folder = tmp_path_factory.mktemp("docs") / "screen"
    settings = ("n_compounds", "40", "n_features", "20", "n_trees", "5")
    flags = [f"--settings.{key}={value}" for key, value in zip(settings[::2], settings[1::2], strict=True)]
    assert main(["simulate", str(folder), *flags]) == 0
    wells = pd.read_parquet(folder / "simulated_profiles.parquet")
    library = pd.read_csv(folder / "simulated_structures.csv").set_index("compound_id")["smiles"]
    wells.attrs = {"folder": folder, "library": library}
    return wells


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _settings(page: str, number: int) -> Config:
    """Write a block of a page as screen.yaml and return its settings."""
    Path("screen.yaml").write_text(_blocks(ROOT / "docs" / page, "yaml")[number])
    return read_config(["screen.yaml"], prog="p", description="", kind=Config)


def _run_commands(page: str) -> None:
    for line in "\n".join(_blocks(ROOT / "docs" / page, "bash")).splitlines():
        program, *arguments = shlex.split(line)
        assert program == "phenohit"
        assert main(arguments) == 0, line


def _write_activities(wells: pd.DataFrame, column: str) -> None:
    table = pd.read_csv(wells.attrs["folder"] / "simulated_activities.csv")
    table["value"] = (table["value"] >= 6).astype(int)
    table.rename(columns={"compound_id": column}).to_csv("activities.csv", index=False)


def _write_gallery(wells: pd.DataFrame, source: Path) -> None:
    """Write wells as a source of a project: as measured, and augmented as the profiling recipe does."""
    workspace, kind = source / "workspace", wells["Metadata_pert_type"]
    features = [c for c in wells if not c.startswith("Metadata_")]
    batch = "2026_01_01_Batch1"
    maps = workspace / "metadata" / "platemaps" / batch
    (maps / "platemap").mkdir(parents=True)
    external = workspace / "metadata" / "external_metadata"
    external.mkdir()
    dose, smiles = wells["Metadata_concentration_uM"], wells["Metadata_compound_id"].map(wells.attrs["library"])
    known = pd.DataFrame(
        {
            "plate_map_name": wells["Metadata_Plate"] + "-map",
            "well_position": wells["Metadata_Well"],
            "broad_sample": wells["Metadata_compound_id"].mask(kind == "negcon", ""),
            "mmoles_per_liter": dose,
            "solvent": "DMSO",
        }
    )
    measured = wells[["Metadata_Plate", "Metadata_Well", *features]]
    augmented = measured.assign(
        Metadata_broad_sample=wells["Metadata_compound_id"],
        Metadata_mmoles_per_liter=dose,
        Metadata_pert_type=kind.where(kind == "trt", "control"),
        Metadata_control_type=kind.map({"trt": "", "negcon": "negcon", "poscon": "poscon_cp"}),
        Metadata_smiles=smiles,
        Metadata_Object_Count=wells["Metadata_cell_count"],
    )
    for plate, rows in wells.groupby("Metadata_Plate").groups.items():
        folder = workspace / "profiles" / batch / str(plate)
        folder.mkdir(parents=True)
        measured.loc[rows].to_csv(folder / f"{plate}.csv.gz", index=False)
        augmented.loc[rows].to_csv(folder / f"{plate}_augmented.csv.gz", index=False)
        known.loc[rows].to_csv(maps / "platemap" / f"{plate}-map.txt", sep="\t", index=False)
    barcodes = known.assign(plate=wells["Metadata_Plate"])[["plate", "plate_map_name"]].drop_duplicates()
    barcodes.set_axis(["Assay_Plate_Barcode", "Plate_Map_Name"], axis=1).to_csv(
        maps / "barcode_platemap.csv", index=False
    )
    compounds = wells.attrs["library"].rename_axis("broad_sample").reset_index()
    compounds.to_csv(external / "compounds.tsv", sep="\t", index=False)
    controls = wells.loc[kind == "negcon", "Metadata_Well"].drop_duplicates()
    pd.DataFrame({"well": controls, "control": "DMSO"}).to_csv("controls.csv", index=False)


@pytest.mark.parametrize(("block", "poscon"), [(0, "poscon"), (1, "trt")])
@pytest.mark.xdist_group("pipeline")
def test_the_gallery_page(simulated, here, block, poscon):
    _write_gallery(simulated, here / "my-project" / "my-source")
    _write_activities(simulated, "broad_sample")
    source = _settings("gallery.md", block).profiles
    wells, _ = read_profiles(source)
    truth = simulated.set_index(["Metadata_Plate", "Metadata_Well"])
    truth = truth.loc[list(zip(wells.rows["Metadata_Plate"], wells.rows["Metadata_Well"], strict=True))]
    assert len(wells) == len(simulated)
    assert wells.rows["Metadata_pert_type"].tolist() == truth["Metadata_pert_type"].replace("poscon", poscon).tolist()
    assert wells.history == (f"{source.level}[upstream]",)
    if block == 0:
        _run_commands("gallery.md")
        compounds = Profiles.load("run/profiles.parquet")
        assert "mad_robustize[plate, negcon]" in compounds.history
        assert len(compounds) == simulated.attrs["library"].index.isin(simulated["Metadata_compound_id"]).sum()
        assert Path("run/dropped/data.csv").exists()


def _write_harmony(wells: pd.DataFrame) -> None:
    """Write wells as imaging software does: rows and columns as numbers, doses in nM, tabs."""
    features = [c for c in wells if not c.startswith("Metadata_")][:4]
    names = ["Cells - Intensity ER Mean", "Nuclei - Area [um2]", "Nuclei - Roundness", "Spots"]
    table = pd.DataFrame(
        {
            "Row": wells["Metadata_Well"].str[0].map(ord) - 64,
            "Column": wells["Metadata_Well"].str[1:].astype(int),
            "PlateName": wells["Metadata_Plate"],
            "Compound": wells["Metadata_compound_id"],
            "Conc [nM]": wells["Metadata_concentration_uM"].astype(float) * 1000,
            "Cells - Number of Objects": wells["Metadata_cell_count"],
            **{name: wells[feature].to_numpy() for name, feature in zip(names, features, strict=True)},
        }
    )
    table.to_csv("harmony.tsv", sep="\t", index=False)
    pd.concat([table, table]).to_csv("fields.tsv", sep="\t", index=False)
    wells.attrs["library"].to_csv("library.csv")


@pytest.mark.xdist_group("pipeline")
def test_the_page_on_tables_of_wells(simulated, here):
    _write_harmony(simulated)
    _write_activities(simulated, "compound_id")
    wells, _ = read_profiles(_settings("well-tables.md", 0).profiles)
    assert wells.features == ["Cells - Intensity ER Mean", "Nuclei - Area [um2]", "Nuclei - Roundness", "Spots"]
    assert wells.rows["Metadata_Well"].tolist() == simulated["Metadata_Well"].tolist()
    doses = simulated["Metadata_concentration_uM"].astype(float).tolist()
    assert wells.numbers("Metadata_concentration_uM").tolist() == pytest.approx(doses)
    _run_commands("well-tables.md")
    assert Profiles.load("run/profiles.parquet").history[0] == "mad_robustize[plate, negcon]"


def test_the_python_of_the_page_on_plates(simulated, here, capsys):
    (here / "simulated-screen").symlink_to(simulated.attrs["folder"])
    names: dict = {}
    exec(_blocks(ROOT / "docs" / "plates.md", "python")[0], names)
    assert names["later"].features == names["done"].features
    assert names["done"].history[-1] == "sphere ZCA-cor[all, negcon]"
    assert "position_excess" in capsys.readouterr().out
    assert set(names["smaller"].features) == set(names["chosen"].kept)


def test_wells_to_anndata_and_back(simulated, here):
    pytest.importorskip("anndata")
    (here / "simulated-screen").symlink_to(simulated.attrs["folder"])
    names: dict = {}
    exec(_blocks(ROOT / "docs" / "well-tables.md", "python")[0], names)
    back, _ = read_profiles(ProfileSource(path="wells.h5ad"))
    assert back.rows.equals(names["wells"].rows)
    assert back.history == names["wells"].history


_AUGMENTED = {"compound_id": "Metadata_broad_sample", "pert_type": "Metadata_control_type"}
_PLATE_MAP = {"level": "aggregated", "columns": {"compound_id": "broad_sample"}}
_HARMONY = {"path": "harmony.tsv", "columns": {"plate": "PlateName", "well": "Row+Column", "compound_id": "Compound"}}
_TVN = {"controls": {"Compound": ["DMSO"]}, "steps": [Step("tvn")]}
_TWO_UNITS = {"columns": {"concentration_nM": "a", "concentration_uM": "b"}}
_NO_ID = "has no column 'broad_sample' (profiles.columns: compound_id)"
_NO_BATCH = "A step works by batch, but the profiles have no 'Metadata_Batch'"
_MESSAGES = [  # page, message that it names, what brings it about
    ("gallery.md", "holds several levels", {"level": ""}),
    ("gallery.md", "is not there. Nearest:", {"level": "agmented"}),
    ("gallery.md", "is no folder of the Cell Painting Gallery", {"path": "my-project"}),
    ("gallery.md", _NO_ID, {"columns": {"compound_id": "broad_sample"}}),
    ("gallery.md", "Metadata_pert_type holds 'control'", {"columns": {"compound_id": "Metadata_broad_sample"}}),
    ("gallery.md", "rows are controls", {"controls": {"solvent": ["DMSO"]}}),
    ("gallery.md", "has 0 wells with Metadata_pert_type == 'negcon'", _PLATE_MAP),
    ("gallery.md", "more than once with different values", {"joins": [Join("harmony.tsv", "well", "Compound")]}),
    ("well-tables.md", "has no column 'PlateName' (profiles.columns: plate)", {"columns": {"plate": "PlateName"}}),
    ("well-tables.md", "Give the concentration once, with its unit", _TWO_UNITS),
    ("well-tables.md", "has no feature column", {"features": ["Spots*"]}),
    ("well-tables.md", "wells cannot be read", {"columns": {"well": "Metadata_control_type"}}),
    ("well-tables.md", "which the profiles do not have", {"joins": [Join("controls.csv", "position", "well")]}),
    ("well-tables.md", "holds none of", {**_HARMONY, "controls": {"Compound": ["DMS0"]}}),
    ("well-tables.md", "says which compound it holds", {"level": "aggregated", "columns": {}, "steps": []}),
    ("well-tables.md", "wells in more than one row", {**_HARMONY, "path": "fields.tsv"}),
    ("plates.md", _NO_BATCH, {**_HARMONY, **_TVN}),
    ("plates.md", "step sphere: by is 'plate'", {"steps": [Step("sphere", by="plate")]}),
    ("plates.md", "has a usable spread among the reference wells", {"steps": [Step("normalise", limit=0.1)]}),
    ("plates.md", "would lie beyond", {"steps": [Step("normalise"), Step("sphere", limit=1.0)]}),
    ("plates.md", "is not known. Nearest:", {"steps": [Step("normalise", "mad")]}),
]


@pytest.mark.parametrize(("page", "message", "change"), _MESSAGES, ids=lambda v: v if isinstance(v, str) else "")
def test_messages_that_the_pages_name_are_what_one_sees(simulated, here, page, message, change):
    assert f"`{message}`" in (ROOT / "docs" / page).read_text()
    _write_gallery(simulated, here / "my-project" / "my-source")
    _write_harmony(simulated)
    source = replace(_settings("gallery.md", 0).profiles, **{"columns": _AUGMENTED, **change})
    with pytest.raises(PhenoHitError, match=re.escape(message)):
        identify(do_steps(read_profiles(source)[0], source.steps)[0], None)
