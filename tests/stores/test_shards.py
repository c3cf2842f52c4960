"""Who may remove the files of a merge that machines share: the last one that uses them, and never at any price."""

import logging
from pathlib import Path

import pytest
from s3_server import S3Server

from tasks.errors import CheckpointError, StoreError
from tasks.stores.shards import sweep_places, working_in

PLACES = "s3://team/cache/merged"
PLACE = f"{PLACES}/0123"
DAY_SECONDS = 24 * 3600


@pytest.fixture
def team(s3: S3Server) -> S3Server:
    """S3 with a bucket."""
    s3.create_bucket("team")
    return s3


def put(server: S3Server, place: str, name: str = "2_Dense/model.safetensors") -> None:
    server.client().put_object(Bucket="team", Key=f"cache/merged/{place}/{name}", Body=b"x")


def names(server: S3Server) -> list[str]:
    listed = server.client().list_objects_v2(Bucket="team", Prefix="cache/merged/").get("Contents", ())
    return [Path(entry["Key"]).name for entry in listed]


def test_at_the_end_nothing_is_left_of_a_place_not_even_unfinished_uploads(team: S3Server):
    with working_in(PLACE):
        put(team, "0123")
        team.client().create_multipart_upload(Bucket="team", Key="cache/merged/0123/half")
    assert names(team) == []
    assert "Uploads" not in team.client().list_multipart_uploads(Bucket="team")


def test_the_files_of_two_runs_are_removed_by_the_one_that_ends_last(team: S3Server):
    with working_in(PLACE):
        put(team, "0123")
        with working_in(PLACE):
            pass
        assert "model.safetensors" in names(team)
    assert names(team) == []


def test_a_run_that_was_killed_yesterday_does_not_count(team: S3Server):
    put(team, "0123", ".users/dead")
    team.set_age("team", "cache/merged/0123/.users/dead", DAY_SECONDS + 60)
    with working_in(PLACE):
        put(team, "0123")
    assert names(team) == []


@pytest.mark.parametrize(
    ("error", "left"),
    [
        (StoreError("no network"), ["model.safetensors"]),
        (KeyboardInterrupt(), ["model.safetensors"]),
        (CheckpointError("models do not fit"), []),
    ],
    ids=["another try may succeed", "stopped by hand", "the inputs must change"],
)
def test_after_an_error_files_stay_if_another_try_may_use_them(team: S3Server, error: BaseException, left: list[str]):
    with pytest.raises(type(error)), working_in(PLACE):
        put(team, "0123")
        raise error
    assert names(team) == left


def test_what_cannot_be_removed_fails_no_night_and_hides_no_error(team: S3Server, caplog: pytest.LogCaptureFixture):
    team.fail("DeleteObjects", "status", times=None, status=403)
    with caplog.at_level(logging.WARNING), working_in(PLACE):
        put(team, "0123")
    assert f"{PLACE}: files of the merge could not be removed; they are in a week" in caplog.text
    with pytest.raises(CheckpointError, match="models do not fit"), working_in(PLACE):
        raise CheckpointError("models do not fit")


def test_old_places_that_cannot_be_removed_fail_no_night(team: S3Server, caplog: pytest.LogCaptureFixture):
    put(team, "old")
    team.set_age("team", "cache/merged/old/2_Dense/model.safetensors", 8 * DAY_SECONDS)
    team.fail("DeleteObjects", "status", times=None, status=403)
    with caplog.at_level(logging.WARNING):
        sweep_places(PLACES)
    assert f"{PLACES}: old files could not be removed; the next run tries again" in caplog.text
    assert names(team) == ["model.safetensors"]
