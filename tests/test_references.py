"""References say by their form alone where they lead."""

from pathlib import Path

import pytest

from tasks.references import Place, Reference, canonical, local_path, make_absolute, parse_reference


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/name", Reference(Place.HUB, "org/name")),
        ("org/name@main", Reference(Place.HUB, "org/name", "main")),
        ("hub://org/name@v1.0", Reference(Place.HUB, "org/name", "v1.0")),
        ("s3://bucket/models/law/", Reference(Place.S3, "s3://bucket/models/law")),
        ("./models/law", Reference(Place.FOLDER, "./models/law")),
        ("/models/a@b", Reference(Place.FOLDER, "/models/a@b")),
        ("release:./releases/demo@champion", Reference(Place.RELEASE, "./releases/demo", "champion")),
        ("release:s3://models/demo", Reference(Place.RELEASE, "s3://models/demo")),
    ],
)
def test_every_form_is_told_apart(text: str, expected: Reference):
    assert parse_reference(text) == expected


@pytest.mark.parametrize("text", ["name", "", "models/law/v7", "org/na me", "s3://", "release:nowhere", "hub://"])
def test_anything_else_is_refused(text: str):
    with pytest.raises(ValueError, match=r"is not a reference|names no bucket"):
        parse_reference(text)


@pytest.mark.parametrize("place", ["mlflow://{}host:5000", "s3://{}bucket/models", "release:s3://{}bucket/a@champion"])
def test_an_address_with_a_password_is_refused_without_repeating_it(place: str):
    assert parse_reference(place.format("")).place in (Place.MLFLOW, Place.S3, Place.RELEASE)
    with pytest.raises(ValueError, match="this address holds a password") as caught:
        parse_reference(place.format("anna:hunter2@"))
    assert "hunter2" not in str(caught.value)


def test_a_file_uri_is_a_path_of_this_machine_and_others_are_not():
    assert local_path("file:///models/my%20news") == Path("/models/my news")
    with pytest.raises(ValueError, match="s3://models/news is not a file on this machine; download it first"):
        local_path("s3://models/news")


def test_a_name_is_never_taken_for_a_folder_that_happens_to_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert parse_reference("org/name").place is Place.HUB


def test_relative_paths_are_made_absolute_also_inside_a_release_reference():
    folder = Path("/recipes")
    assert make_absolute("./law", folder) == "/recipes/law"
    assert make_absolute("../law", folder) == "/law"
    assert make_absolute("release:./r/demo@champion", folder) == "release:/recipes/r/demo@champion"
    assert make_absolute("org/name", folder) == "org/name"
    with pytest.raises(ValueError, match="relative path"):
        make_absolute("./law", None)


@pytest.mark.parametrize("other", ["org/base", "hub://org/base", "org/base@main", "hub://org/base@main"])
def test_the_default_branch_may_be_written_or_left_out(other: str):
    assert canonical(other) == "hub://org/base@main"


@pytest.mark.parametrize(
    "other", ["org/base@v1", "org/other", "./org/base", "hub://org/base/file@main", "s3://org/base"]
)
def test_another_revision_path_or_place_is_another_model(other: str):
    assert canonical(other) != canonical("org/base")
