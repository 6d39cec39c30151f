"""What the pages tell a reader to type works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from phenohit.cli import main
from phenohit.config import Config
from phenohit.settings import read_config

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]


def _blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)


@pytest.mark.xdist_group("pipeline")
def test_the_first_run_tutorial_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [line for block in _blocks(ROOT / "docs" / "first-run.md", "bash") for line in block.splitlines()]
    assert len(lines) >= 5
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "phenohit"
        assert main(arguments) == 0, line
    assert (tmp_path / "simulated-run" / "report.html").exists()


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
