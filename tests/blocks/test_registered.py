"""The settings as Prefect blocks: by Prefect's own suite for blocks, and by saving them on a real server."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites import BlockStandardTestSuite
from pydantic import SecretStr, ValidationError

from blocks.registered import ApinizerCluster, ApinizerDatabase, ApinizerImageSource, ApinizerInstallation
from blocks.settings import (
    ClusterSettings,
    DatabaseSettings,
    ImageSourceSettings,
    InstallationSettings,
    read_installation,
)

BLOCKS: list[type[Block]] = [ApinizerCluster, ApinizerDatabase, ApinizerImageSource, ApinizerInstallation]
WHOLE = Path(__file__).parent / "whole.yaml"
SECRET = "hunter2-never-shown"


@pytest.mark.parametrize("block", BLOCKS)
class TestEveryBlock(BlockStandardTestSuite):
    @pytest.fixture
    def block(self) -> type[Block]:
        raise NotImplementedError("it is a parameter")

    @pytest.mark.skip("A logo is an address on the internet, which a closed site cannot show.")
    def test_has_a_valid_image(self, block: type[Block]) -> None: ...

    def test_its_example_can_be_imported(self, block: type[Block]) -> None:
        example = block.get_code_example() or ""
        line = next(line for line in example.splitlines() if line.startswith("from "))
        assert line == f"from {block.__module__} import {block.__name__}"

    def test_an_unknown_field_is_refused(self, block: type[Block]) -> None:
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            block.model_validate({"nmae": "near"})

    def test_every_field_has_a_default(self, block: type[Block]) -> None:
        """What is stored under a slug stays readable, so each of its fields can be missing."""
        assert isinstance(block(), block)


@pytest.mark.parametrize(
    ("block", "settings"),
    [
        (ApinizerCluster, ClusterSettings),
        (ApinizerDatabase, DatabaseSettings),
        (ApinizerImageSource, ImageSourceSettings),
        (ApinizerInstallation, InstallationSettings),
    ],
)
def test_a_block_has_every_field_of_the_settings(block: type[Block], settings: type[Any]) -> None:
    assert set(settings.model_fields) == set(block.model_fields)


def test_slugs_are_for_ever() -> None:
    assert [b.get_block_type_slug() for b in BLOCKS] == [
        "apinizer-cluster",
        "apinizer-database",
        "apinizer-image-source",
        "apinizer-installation",
    ]


def test_there_and_back() -> None:
    settings = read_installation(WHOLE)
    assert ApinizerInstallation.of(settings).settings() == settings
    content = InstallationSettings(clusters=(ClusterSettings(kubeconfig=SecretStr("text")),))
    back = ApinizerInstallation.of(content).settings()
    assert back == content
    assert back.clusters[0].kubeconfig == SecretStr("text")


def test_a_block_is_checked_as_a_whole() -> None:
    with pytest.raises(ValidationError, match="several clusters need a name each"):
        ApinizerInstallation(clusters=[ApinizerCluster(), ApinizerCluster()]).settings()


@pytest.mark.parametrize(
    "wrong",
    [
        (ApinizerDatabase, {"uri": f"mongodb://u:{SECRET}@h", "host": "h"}),
        (ApinizerDatabase, {"password": SECRET, "passwort": SECRET}),
        (ApinizerImageSource, {"kind": "registry", "password": SECRET}),
        (ApinizerImageSource, {"source": {"registry": {"password": SECRET, "insecure": "perhaps"}}}),
        (ApinizerCluster, {"kubeconfig": SECRET, "in_cluster": "perhaps"}),
    ],
)
def test_no_error_shows_what_was_given(wrong: tuple[type[Block], dict[str, Any]]) -> None:
    block, values = wrong
    with pytest.raises(ValidationError) as caught:
        block.model_validate(values)
    assert SECRET not in str(caught.value)


def test_secrets_are_in_no_text_of_a_block() -> None:
    block = ApinizerInstallation.of(read_installation(WHOLE))
    texts = (repr(block), str(block), repr(block.model_dump()), block.model_dump_json())
    assert not any(SECRET in text for text in texts)
    assert SECRET not in json.dumps(ApinizerInstallation.model_json_schema())


@pytest.mark.parametrize(
    ("block", "secrets"),
    [
        (ApinizerCluster, {"kubeconfig"}),
        (ApinizerDatabase, {"uri", "password"}),
        (ApinizerImageSource, {"password", "source.registry.password"}),
        (ApinizerInstallation, {"images.source.registry.password"}),
    ],
)
def test_the_server_is_told_which_fields_are_secret(block: type[Block], secrets: set[str]) -> None:
    assert secrets <= set(block.model_json_schema()["secret_fields"])


def test_saved_and_loaded_on_a_server(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.blocks.store", str(WHOLE)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["same"]
    assert seen["password"] == SECRET
    assert seen["overwritten"] == ["db2", "two"]
    assert seen["linked"] == ["near", "content", "db2"]
    assert seen["provided"] == "here"
    assert "several clusters need a name each" in seen["twice"]
    assert "backup_folder: Extra inputs are not permitted" in seen["spoilt"]
    assert "apinizer-installation/plain' cannot be used" in seen["spoilt"]
    assert SECRET not in seen["spoilt"]
    assert "apinizer-installation/nowhere" in seen["unknown"]
    assert "Next: Create it" in seen["unknown"]
    assert '"host":"db1,db2:27017"' in seen["shown"]
    assert SECRET not in seen["shown"] + done.stderr
