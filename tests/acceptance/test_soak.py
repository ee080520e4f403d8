"""The soak, in a few seconds: everything runs, answers as it must, and the picture is drawn. `make soak` takes an hour and a half."""

import json
import subprocess
import sys
from pathlib import Path

from tests.acceptance.stage import ROOT


def test_a_soak_of_seconds_sees_every_kind_of_work_and_draws_its_plot(tmp_path: Path) -> None:
    arguments = ["--minutes", "0.1", "--pace", "4", "--out", str(tmp_path)]

    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "soak.json").read_text(encoding="utf-8"))
    assert set(figures["samples"]["mebibytes"]) == {"gateway", "relay", "ai", "android", "outbox"}
    assert figures["wrong"] == {}
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")
