"""`demo`: an installation without a cluster, upgraded before one's eyes."""

import os
import tempfile
from pathlib import Path

from blocks.settings import ClusterSettings, InstallationSettings
from deployments.cli import look, upgrading
from deployments.cli.options import Format
from deployments.sandbox.launch import VERSIONS, Sandbox
from tasks.domain.errors import UsageError
from tasks.domain.plan import PlanRequest
from tasks.domain.version import Version


def demo(start: str, to: str, speed: float) -> None:
    """Start the sandbox at `start`, show it, upgrade it to `to`, show it again."""
    origin, target = Version(start), Version(to)
    if origin.text not in VERSIONS:
        raise UsageError(
            f"The sandbox has no release {origin}.",
            observed=f"It has {', '.join(VERSIONS)}.",
            next="Start it with one of these: --from VERSION.",
        )
    os.environ.pop("PREFECT_API_URL", None)  # the demonstration leaves no trace on a server that people share
    with tempfile.TemporaryDirectory(prefix="apinizer-demo-") as folder:
        print(f"A sandbox with Apinizer {origin} is starting: a Kubernetes API and a database on this machine.")
        with Sandbox(version=origin.text, speed=speed, directory=Path(folder)) as sandbox:
            settings = InstallationSettings(
                clusters=(ClusterSettings(kubeconfig_path=str(sandbox.kubeconfig)),),
                backup_dir=str(Path(folder) / "backups"),
            )
            upgrading.upgrade(settings, PlanRequest(to=target), Format.TEXT, ask=False)
            print()
            look.status(settings, Format.TEXT)
    print("\nThe sandbox and its backup are gone. Yours next: apinizer-upgrade status")
