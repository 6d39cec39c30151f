from __future__ import annotations

import subprocess
import sys

import pytest

from phenohit.cli import COMMANDS, main


def test_help_lists_every_command_and_imports_nothing_heavy():
    code = "import sys; from phenohit.cli import main; main(['--help']); print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(f"  {name}" in out for name in COMMANDS)
    assert not any(f"'{heavy}'" in out for heavy in ("numpy", "pandas", "torch", "rdkit", "jsonargparse"))


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_teaches_its_options(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert "usage: phenohit" in capsys.readouterr().out


def test_user_mistakes_end_with_code_2_and_no_traceback(tmp_path, capsys):
    assert main(["rnu"]) == 2
    assert main(["run", str(tmp_path / "no.yaml")]) == 2
    assert main(["run", "--out", str(tmp_path)]) == 2
    text = capsys.readouterr().err
    assert "'rnu' is no command. Nearest: run" in text
    assert "no.yaml' does not exist" in text
    assert "No activities are named" in text
    assert "Traceback" not in text


def test_models_are_listed_with_their_settings(capsys):
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("forest", "network", "logistic", "rate"))
    assert "n_trees = 250" in out


def test_folds_from_elsewhere_are_checked_for_leaks(tmp_path, capsys):
    ids = [f"C{i}" for i in range(6)]
    smiles = ["CCCCCCCCO", "CCCCCCCCCO", "c1ccccc1O", "CC(=O)Nc1ccc(O)cc1", "C1CCNCC1", "OB(O)c1ccccc1"]
    (tmp_path / "s.csv").write_text(
        "compound_id,smiles\n" + "".join(f"{i},{s}\n" for i, s in zip(ids, smiles, strict=True))
    )
    for folds, leaky in (("001122", False), ("012012", True)):
        text = "compound_id,fold\n" + "".join(f"{i},{f}\n" for i, f in zip(ids, folds, strict=True))
        (tmp_path / "f.csv").write_text(text)
        assert main(["leaks", str(tmp_path / "f.csv"), str(tmp_path / "s.csv"), "--similarity", "0.6"]) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if "shared series" in line]
        assert any("False" in line for line in lines) is leaky
    broken = (tmp_path / "s.csv").read_text().replace("c1ccccc1O", "c1ccccc(")
    (tmp_path / "b.csv").write_text(broken)
    assert main(["leaks", str(tmp_path / "f.csv"), str(tmp_path / "b.csv")]) == 2
    assert "c1ccccc(" in capsys.readouterr().err
    (tmp_path / "f.csv").write_text("compound_id,fold\nZ9,0\nC1,1\n")
    assert main(["leaks", str(tmp_path / "f.csv"), str(tmp_path / "s.csv")]) == 2
    assert "lacks 1 compounds" in capsys.readouterr().err
