"""What a command loads: --help and status answer at once, so they leave Prefect alone."""

import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).parent / "apinizer-upgrade"


@pytest.mark.parametrize("arguments", [["--help"], ["upgrade", "--help"], ["status"], ["plan", "--to", "2025.07.0"]])
def test_prefect_is_not_loaded(arguments: list[str], tmp_path: Path) -> None:
    nowhere = tmp_path / "none"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(COMMAND), *arguments],
        env={"KUBECONFIG": str(nowhere), "HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "deployments.cli.main" in loaded
    assert not {name for name in loaded if name.partition(".")[0] == "prefect"}
    if "--help" in arguments:
        assert done.returncode == 0
        assert not loaded & {"kubernetes", "pymongo", "yaml"}
