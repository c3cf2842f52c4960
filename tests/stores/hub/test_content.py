"""What content is known by on the Hub, and what is remembered of it."""

import pytest

from tasks.stores.hub.content import Recent, find_identity, identities


def test_content_is_known_by_git_and_by_sha256():
    # `printf 'hello\\n' | git hash-object --stdin`, and the same to sha256sum.
    assert identities(b"hello\n") == (
        "ce013625030ba8dba906f756967f9e9ca394464a",
        "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
    )


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([{"ETag": f'W/"{"a" * 40}"'}], "a" * 40),
        ([{"ETag": f'"{"a" * 40}"', "X-Linked-Etag": f'"{"b" * 64}"'}, {"ETag": f'"{"c" * 40}"'}], "b" * 64),
        ([{"Location": "elsewhere"}, {"ETag": f'"{"c" * 40}"'}], "c" * 40),
        ([{"ETag": '"0123456789abcdef0123456789abcdef"'}], None),
        ([], None),
    ],
)
def test_the_hub_itself_says_what_an_answer_holds(headers: list[dict[str, str]], expected: str | None):
    assert find_identity(headers) == expected


def test_what_was_not_used_for_longest_is_forgotten():
    recent: Recent[int] = Recent(2)
    for number, key in enumerate("ab"):
        assert recent.put(key, number) == number
    assert recent.get("a") == 0
    recent.put("c", 2)
    assert [recent.get(key) for key in "abc"] == [0, None, 2]
