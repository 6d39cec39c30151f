"""After installation nothing reaches the network: the whole way runs with sockets blocked."""

from __future__ import annotations

import re
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


# The commands of the tutorial in one process, so that libraries are imported once.
TUTORIAL = """
import shlex, sys
from phenohit.cli import main

for line in sys.stdin.read().splitlines():
    program, *arguments = shlex.split(line)
    assert program == "phenohit", line
    assert main(arguments) == 0, line
"""


def test_the_first_run_tutorial_runs_with_sockets_blocked(tmp_path: Path):
    (tmp_path / "block").mkdir()
    (tmp_path / "block" / "sitecustomize.py").write_text(BLOCK)
    env = {"PYTHONPATH": str(tmp_path / "block"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    probe = "import socket; socket.create_connection(('192.0.2.1', 80), 1)"
    seen = subprocess.run([sys.executable, "-c", probe], env=env, capture_output=True, text=True, check=False)
    assert "NETWORK REACHED" in seen.stderr, "the block itself does not work"

    page = (Path(__file__).parents[2] / "docs" / "first-run.md").read_text()
    lines = [line for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    assert len(lines) >= 5
    command = [sys.executable, "-c", TUTORIAL]
    done = subprocess.run(
        command, env=env, cwd=tmp_path, input="\n".join(lines), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "SIMULATED" in (tmp_path / "simulated-run" / "report.html").read_text()
