"""Stores by URL: which variables hold the keys of which cloud, and one line where they are missing. Nothing is contacted."""

import json

import pytest

from ray_jobs.seam.errors import Denied, NotFound, StoreError, UserError
from ray_jobs.seam.store import Store, StoreConfig, failure

SERVICE = json.dumps(
    {"client_email": "robot@example.com", "private_key": "", "private_key_id": "", "gcs_base_url": "http://127.0.0.1:9", "disable_oauth": True}
)


@pytest.mark.parametrize(
    ("url", "variables"),
    [
        ("s3://bucket/a", {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}),
        ("s3://bucket/a", {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "SESSION_TOKEN": "c"}),
        ("gs://bucket/a", {"SERVICE_ACCOUNT_KEY": SERVICE}),
        ("az://container/a", {"ACCOUNT_NAME": "a", "ACCOUNT_KEY": "Zm9v"}),
        ("az://container/a", {"ACCOUNT_NAME": "a", "SAS_KEY": "sv=2020&sig=abc"}),
    ],
)
def test_each_cloud_opens_with_its_variables_and_says_which_is_missing(monkeypatch: pytest.MonkeyPatch, url: str, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"CLOUD_{name}", value)
    config = StoreConfig(url=url, credentials="CLOUD")
    assert Store(config).raw is not None
    for name in variables.keys() - {"SESSION_TOKEN"}:
        with monkeypatch.context() as without:
            without.delenv(f"CLOUD_{name}")
            with pytest.raises(UserError, match=f"CLOUD_{name}") as caught:
                Store(config)
            assert "in the environment" in str(caught.value) and "\n" not in str(caught.value)


def test_credentials_of_a_folder_are_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="has credentials, which are for s3://, gs://, az://: remove them"):
        Store(StoreConfig(url="https://example.com/a", credentials="CLOUD"))


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        ("… status code: 403 Forbidden: <Error><Code>RequestTimeTooSkewed</Code>", Denied, "the clock of this machine"),
        ("… status code: 400 Bad Request: <Error><Code>ExpiredToken</Code>", StoreError, "have expired (ExpiredToken): renew CLOUD_…"),
        ("… status code: 403 Forbidden: <Error><Code>InvalidAccessKeyId</Code>", Denied, "refuses the credentials (InvalidAccessKeyId): correct CLOUD_…"),
        ("… status code: 404 Not Found: <Error><Code>NoSuchBucket</Code>", Denied, "no such bucket"),
        ("… status code: 507 Insufficient Storage: <Error><Code>InsufficientStorage</Code>", StoreError, "the store is full"),
        (
            "… after 3 retries - non-2xx status code: 503 Service Unavailable: <Error><Code>SlowDown</Code>",
            StoreError,
            "503 Service Unavailable (SlowDown) after 3",
        ),
        ("Generic error: connection refused\n\nDebug source: …", StoreError, "connection refused"),
    ],
)
def test_what_a_store_answers_in_one_line(text: str, kind: type[StoreError], told: str) -> None:
    error = failure(OSError(text), "read", StoreConfig(url="s3://bucket", credentials="CLOUD"), "a/b")
    assert type(error) is kind and str(error).startswith("cannot read s3://bucket/a/b: ") and told in str(error) and "\n" not in str(error)


def test_an_absent_object() -> None:
    assert isinstance(failure(FileNotFoundError("…"), "read", StoreConfig(url="file:///a"), "b"), NotFound)
