"""Settings come from the environment, and a wrong one is told with what to set instead."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from retrainer.ports import ConfigError
from retrainer.settings import Reach, Settings, read, table

NEEDED = {
    "RETRAINER_QUEUE_URL": "https://sqs.eu-central-1.amazonaws.com/123456789012/events",
    "RETRAINER_DLQ_URL": "https://sqs.eu-central-1.amazonaws.com/123456789012/refused",
    "RETRAINER_BUCKET": "my-data",
    "RETRAINER_STATE_MACHINE_ARN": "arn:aws:states:eu-central-1:123456789012:stateMachine:retraining",
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("RETRAINER_")]:
        monkeypatch.delenv(name)
    for name, value in NEEDED.items():
        monkeypatch.setenv(name, value)


def test_four_variables_are_enough() -> None:
    settings = read(Settings)
    assert settings.accounts == {"123456789012"}
    assert settings.http_url == "http://127.0.0.1:8321"
    assert settings.ledger == "sqlite:///retrainer.db"


def test_settings_do_not_change_once_read() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        read(Settings).bucket = "other"


def test_accounts_are_listed_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRAINER_ACCOUNTS", "123456789012, 210987654321")
    assert read(Settings).accounts == {"123456789012", "210987654321"}


def test_every_missing_variable_is_named_with_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RETRAINER_QUEUE_URL")
    monkeypatch.delenv("RETRAINER_BUCKET")
    monkeypatch.setenv("RETRAINER_QUEUEURL", "https://sqs/1/q")
    with pytest.raises(ConfigError) as caught:
        read(Settings)
    queue, bucket = str(caught.value).splitlines()
    assert queue.startswith("RETRAINER_QUEUE_URL is not set; set it as in RETRAINER_QUEUE_URL=https://sqs.")
    assert "RETRAINER_QUEUEURL is set, but there is no such setting" in queue
    assert bucket == "RETRAINER_BUCKET is not set; set it as in RETRAINER_BUCKET=my-retrainer-data"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("RETRAINER_ACCOUNTS", "12", "'12' is not an AWS account, which has 12 digits"),
        ("RETRAINER_HTTP_PORT", "tcp://10.0.0.1:80", "RETRAINER_HTTP_PORT=tcp://10.0.0.1:80: Input should be a valid"),
        ("RETRAINER_STATE_MACHINE_ARN", "retraining", "RETRAINER_STATE_MACHINE_ARN=retraining: "),
        ("RETRAINER_POLL_WAIT_SECONDS", "21", "less than or equal to 20"),
        ("RETRAINER_LOG_FORMAT", "xml", "'auto', 'json' or 'console'"),
    ],
)
def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        read(Settings)
    assert said in str(caught.value)
    assert f"set it as in {name}=" in str(caught.value)


def test_listening_beyond_loopback_needs_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRAINER_HTTP_HOST", "0.0.0.0")  # noqa: S104
    with pytest.raises(ConfigError, match="RETRAINER_HTTP_TOKEN must be set"):
        read(Settings)
    monkeypatch.setenv("RETRAINER_HTTP_TOKEN", "correct-horse-battery")
    assert read(Settings).http_url == "http://127.0.0.1:8321"


def test_a_token_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRAINER_HTTP_TOKEN", "correct-horse-battery")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    settings = read(Settings)
    assert "horse" not in repr(settings)
    assert settings.secrets() == ("correct-horse-battery",)
    monkeypatch.setenv("RETRAINER_HTTP_TOKEN", "too-short")
    with pytest.raises(ConfigError) as caught:
        read(Settings)
    assert "too-short" not in str(caught.value)


def test_a_command_beside_the_daemon_needs_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NEEDED:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RETRAINER_HTTP_HOST", "::1")
    assert read(Reach).http_url == "http://[::1]:8321"


def test_the_table_for_the_documentation_names_every_setting() -> None:
    assert [line.split("`")[1] for line in table().splitlines()[2:]] == [
        f"RETRAINER_{name.upper()}" for name in Settings.model_fields
    ]


def test_the_readme_shows_the_table_as_it_is() -> None:
    assert table() in (Path(__file__).parent.parent / "README.md").read_text()
