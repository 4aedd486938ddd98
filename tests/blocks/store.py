"""Saves and loads the blocks on a Prefect server of its own, and prints what was seen as JSON.

A process of its own, because Prefect reads where its server is when it is imported.
"""

import json
import os
import sys
from base64 import b64encode
from pathlib import Path
from urllib.request import Request, urlopen

from blocks.installation import installation, provide
from blocks.settings import InstallationSettings, read_installation
from deployments.embedded import EmbeddedServer
from tasks.domain.errors import UsageError


def shown(server: EmbeddedServer, name: str) -> str:
    """What anybody is shown who may look at blocks, and not at their secrets."""
    settings = server.settings()
    request = Request(
        f"{settings['PREFECT_API_URL']}/block_types/slug/apinizer-installation/block_documents/name/{name}",
        headers={"Authorization": "Basic " + b64encode(settings["PREFECT_API_AUTH_STRING"].encode()).decode()},
    )
    with urlopen(request, timeout=30) as answer:
        return str(answer.read().decode())


def refusal(name: str) -> str:
    try:
        installation(name)
    except UsageError as error:
        return str(error)
    return ""


def main(file: Path) -> dict[str, object]:
    with EmbeddedServer() as server:
        os.environ.update(server.settings())
        server.wait()
        from blocks.registered import ApinizerDatabase, ApinizerInstallation

        settings = read_installation(file)
        ApinizerInstallation.of(settings).save("bank")
        ApinizerInstallation.of(InstallationSettings()).save("plain")
        loaded = installation("bank")
        ApinizerDatabase(host="db", password="one").save("db")  # type: ignore[arg-type]
        ApinizerDatabase(host="db2", password="two").save("db", overwrite=True)  # type: ignore[arg-type]
        again = ApinizerDatabase.load("db", _sync=True)  # type: ignore[call-arg]
        seen = {
            "same": loaded == settings and installation("plain") == InstallationSettings(),
            "password": loaded.database.password.get_secret_value() if loaded.database.password else "",
            "shown": shown(server, "bank"),
            "unknown": refusal("nowhere"),
            "overwritten": [again.host, again.password.get_secret_value()],
        }
        provide("bank", InstallationSettings(backup_dir="here"))
        return seen | {"provided": installation("bank").backup_dir}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
