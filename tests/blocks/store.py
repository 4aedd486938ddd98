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

SECRET = "hunter2-never-shown"


def shown(server: EmbeddedServer, name: str) -> str:
    """What anybody is shown who may look at blocks, and not at their secrets."""
    settings = server.settings()
    request = Request(
        f"{settings['PREFECT_API_URL']}/block_types/slug/apinizer-installation/block_documents/name/{name}",
        headers={"Authorization": "Basic " + b64encode(settings["PREFECT_API_AUTH_STRING"].encode()).decode()},
    )
    with urlopen(request, timeout=30) as answer:
        return str(answer.read().decode())


def spoil(server: EmbeddedServer, name: str, data: dict[str, object]) -> None:
    """Write into a stored block what its class would refuse, as another release might have."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import BlockDocumentUpdate

    with get_client(sync_client=True) as client:
        found = client.request(
            "GET",
            "/block_types/slug/{slug}/block_documents/name/{block_document_name}",
            path_params={"slug": "apinizer-installation", "block_document_name": name},
        ).json()
        update = BlockDocumentUpdate(data=data, merge_existing_data=True).model_dump(mode="json", exclude_unset=True)
        client.request("PATCH", "/block_documents/{id}", path_params={"id": found["id"]}, json=update)


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
        from blocks.registered import ApinizerCluster, ApinizerDatabase, ApinizerInstallation

        settings = read_installation(file)
        ApinizerInstallation.of(settings).save("bank")
        ApinizerInstallation.of(InstallationSettings()).save("plain")
        loaded, plain = installation("bank"), installation("plain")
        ApinizerDatabase(host="db", password="one").save("db")  # type: ignore[arg-type]
        ApinizerDatabase(host="db2", password="two").save("db", overwrite=True)  # type: ignore[arg-type]
        again = ApinizerDatabase.load("db", _sync=True)  # type: ignore[call-arg]
        ApinizerCluster(name="near", kubeconfig="content").save("near")  # type: ignore[arg-type]
        near = ApinizerCluster.load("near", _sync=True)  # type: ignore[call-arg]
        ApinizerInstallation(clusters=[near], database=again).save("linked")
        linked = installation("linked")
        content = linked.clusters[0].kubeconfig
        ApinizerInstallation(clusters=[near, near]).save("twice")
        spoil(server, "plain", {"backup_folder": SECRET, "backup_dir": 7})
        seen = {
            "linked": [linked.clusters[0].name, content.get_secret_value() if content else "", linked.database.host],
            "twice": refusal("twice"),
            "spoilt": refusal("plain"),
            "same": loaded == settings and plain == InstallationSettings(),
            "password": loaded.database.password.get_secret_value() if loaded.database.password else "",
            "shown": shown(server, "bank"),
            "unknown": refusal("nowhere"),
            "overwritten": [again.host, again.password.get_secret_value()],
        }
        provide("bank", InstallationSettings(backup_dir="here"))
        return seen | {"provided": installation("bank").backup_dir}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
