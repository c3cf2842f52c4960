"""The tree of errors: whole when they cross processes, and told apart for retries."""

import pickle

import pytest

from tasks import errors
from tasks.errors import CocktailError, PreflightError, TransientStoreError, is_transient

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, CocktailError)]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_goes_whole_from_process_to_process(kind):
    error = kind(["a", "b"]) if kind is PreflightError else kind("s3://models: what, and what to do")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (kind, str(error), vars(error))


def test_what_a_server_asked_for_and_how_often_it_was_tried_go_along():
    copy = pickle.loads(pickle.dumps(TransientStoreError("busy", retry_after=7.0, attempts=3)))
    assert (str(copy), copy.retry_after, copy.attempts) == ("busy", 7.0, 3)


@pytest.mark.parametrize("kind", CLASSES)
def test_only_faults_that_may_pass_are_tried_again(kind):
    passing = {"TransientStoreError", "WorkerDiedError", "WorkerTimeoutError"}
    assert is_transient(kind("what")) == (kind.__name__ in passing)


def test_a_broken_connection_may_pass_and_a_missing_file_does_not():
    assert is_transient(ConnectionResetError())
    assert not is_transient(FileNotFoundError())


def test_the_tree_in_the_docstring_is_the_tree():
    for kind in CLASSES:
        assert kind.__name__ in (errors.__doc__ or "")
