from tasks.messages import list_lines, list_some


def test_the_first_few_are_listed_and_the_others_counted():
    assert list_some(["a"]) == "a"
    assert list_some(["a", "b", "c"], most=3) == "a, b, c"
    assert list_some(["a", "b", "c", "d"], most=2) == "a, b and 2 more"
    assert list_lines(["a", "b"]) == "\n  a\n  b"
    assert list_lines(["a", "b", "c"], most=1) == "\n  a\n  and 2 more"
