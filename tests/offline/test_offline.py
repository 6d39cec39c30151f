"""After installation nothing reaches the network: the whole way runs with sockets blocked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("pipeline")

# Runs before anything else in every Python process that is started, workers included.
BLOCK = """
import socket

_connect = socket.socket.connect

def _refuse(self, address, *rest):
    if self.family == getattr(socket, "AF_UNIX", None):
        return _connect(self, address, *rest)
    raise RuntimeError(f"NETWORK REACHED: {address}")

def _no_names(*args, **kwargs):
    raise RuntimeError(f"NETWORK REACHED: {args}")

socket.socket.connect = socket.socket.connect_ex = _refuse
socket.getaddrinfo = socket.gethostbyname = _no_names
"""


def test_the_demo_runs_with_sockets_blocked(tmp_path: Path):
    (tmp_path / "block").mkdir()
    (tmp_path / "block" / "sitecustomize.py").write_text(BLOCK)
    env = {"PYTHONPATH": str(tmp_path / "block"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    probe = "import socket; socket.create_connection(('192.0.2.1', 80), 1)"
    seen = subprocess.run([sys.executable, "-c", probe], env=env, capture_output=True, text=True, check=False)
    assert "NETWORK REACHED" in seen.stderr, "the block itself does not work"

    def phenohit(*arguments: str) -> None:
        command = [sys.executable, "-m", "phenohit", *arguments]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]

    phenohit("simulate", "screen", "--settings.n_compounds", "150", "--settings.n_trees", "10")
    phenohit("run", "screen/simulated.yaml", "--out", "run", "--evaluate.bootstrap", "50", "--evaluate.chance", "10")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "SIMULATED" in page
