"""The rules of the house that a machine can hold."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "phenohit"
FILES = sorted(PACKAGE.rglob("*.py"))

LEAVES = {"errors", "files", "progress", "registry", "config", "sources", "imaging", "episodic", "tensors", "workers"}
# What each part may import of ours, besides itself and the leaves.
ALLOWED = {
    "data": {"chem"},  # SDF is read by RDKit, when one is asked for
    "chem": set(),
    "images": {"data"},
    "profiles": {"data", "chem"},
    "labels": {"data", "chem"},
    "models": {"data", "images", "profiles", "labels"},
    "evaluate": {"data", "chem", "images", "profiles", "labels", "models"},
    "hits": {"data", "chem", "profiles", "labels", "models", "evaluate"},
    "fewshot": {"data", "chem", "images", "profiles", "labels", "models", "evaluate", "report"},
    "report": {"data", "chem", "images", "profiles", "labels", "models", "evaluate", "hits"},
    "review": {"data", "chem", "profiles", "labels", "models", "evaluate", "hits", "report", "runs", "settings"},
    # A study is a run and more.
    "studies": {
        "data",
        "chem",
        "profiles",
        "labels",
        "models",
        "evaluate",
        "fewshot",
        "hits",
        "review",
        "pipeline",
        "runs",
        "study",
        "viewing",
    },
}


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("phenohit."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("phenohit.")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    parts = path.relative_to(PACKAGE).parts
    imported = _imports(path)
    assert "cli" not in imported or parts == ("__main__.py",)
    if parts[0] in ALLOWED:
        assert imported - LEAVES - {parts[0]} <= ALLOWED[parts[0]]
    elif parts[0].removesuffix(".py") in LEAVES:
        assert imported <= LEAVES


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_stay_small(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 400, f"{path.name} has {len(lines)} lines: split it"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_executes_what_a_file_holds(path):
    text = path.read_text()
    found = re.findall(r"\bpickle\.|joblib\.load|allow_pickle=True|yaml\.load\(|torch\.load\(|shell=True", text)
    assert not found


def test_models_and_evaluation_import_without_rdkit():
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('rdkit', 'pycytominer'):
            raise ImportError(name + ' is blocked')
sys.meta_path.insert(0, Block())
import pkgutil, importlib
for folder in ('models', 'evaluate', 'data'):
    package = importlib.import_module('phenohit.' + folder)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f'phenohit.{folder}.{module.name}')
print('fine')
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "fine", done.stderr[-2000:]


def test_public_names_resolve():
    import phenohit

    assert len(phenohit.__all__) <= 26
    for name in phenohit.__all__:
        assert getattr(phenohit, name) is not None
