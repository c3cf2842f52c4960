"""MLflow as a destination after the first; copies to folders, S3 and the Hub are in test_release_on_stores.py."""

import logging
from datetime import datetime
from pathlib import Path

from mlflow_server import free_port

from tasks.cache import ResultCache
from tasks.publish.release import publish_release
from tasks.settings import PublishSettings


def test_a_release_is_registered_with_mlflow_and_a_server_that_is_away_is_caught_up_with_later(
    mlflow_server: str, make_report, now: datetime, cache: ResultCache, tmp_path: Path, monkeypatch, caplog
):
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = PublishSettings(to=[str(tmp_path / "releases"), f"mlflow://127.0.0.1:{free_port()}"])
    with caplog.at_level(logging.WARNING):
        release = publish_release(make_report(), away, now=now, by="night", cache=cache)
    assert len(release.uris) == 1 and "lags behind; the next run will complete it" in caplog.text

    there = PublishSettings(to=[str(tmp_path / "releases"), f"mlflow://{mlflow_server}"])
    release = publish_release(make_report(), there, now=now, by="night", cache=cache)

    assert release.uris[1] == f"mlflow://{mlflow_server}/models/demo/versions/1"
    live = MlflowClient(f"http://{mlflow_server}").get_model_version_by_alias("demo", "champion")
    assert live.tags["version"] == release.version
