"""Several places that could not be asked, told as one error."""

import pytest

from tasks.domain.errors import BlockedError, TemporaryError, UpgradeError
from tasks.images.unreached import refusal

KEY = BlockedError("The key of node-a is not known.", observed="Verification failed.", next="ssh-keyscan a")
KEY_B = BlockedError("The key of node-b is not known.", observed="Verification failed.", next="ssh-keyscan b")
AWAY = TemporaryError("node-b is away.", observed="Connection refused.", next="See that it is up.")


@pytest.mark.parametrize(
    ("failed", "code", "told"),
    [
        pytest.param({"node-a": KEY}, 3, ["The key of node-a is not known.", "ssh-keyscan a"], id="its own"),
        pytest.param({"node-a": KEY, "node-b": KEY_B}, 3, ["2 nodes", "ssh-keyscan a", "ssh-keyscan b"], id="one kind"),
        pytest.param(
            {"node-a": KEY, "node-b": AWAY}, 1, ["node-a, node-b", "node-b is away. Connection"], id="two kinds"
        ),
    ],
)
def test_all_are_told_and_the_exit_code_is_theirs(failed: dict[str, UpgradeError], code: int, told: list[str]) -> None:
    error = refusal(failed)
    assert error is not None
    assert error.exit_code == code
    assert all(error.as_json().values())
    assert all(words in str(error) for words in told), error


def test_none_where_each_was_asked() -> None:
    assert refusal({}) is None
