"""YAML as a recipe means it: core scalars of 1.2, positions, and nothing that hides."""

import pytest

from etude.recipe.document import Problems, read


def said(text: str) -> tuple[object, list[str]]:
    problems = Problems()
    node = read(text, "f", "/", problems)
    return (node.plain() if node else None), problems.lines()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("2e-5", 2e-5),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("+1.", 1.0),
        ("-3", -3),
        ("012", 12),
        ("0o17", 15),
        ("0x1F", 31),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("No", "No"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("'1e-4'", "1e-4"),
        ('"true"', "true"),
        ("1e", "1e"),
        ("-", None),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    if text == "-":
        assert said("key:\n  -\n") == ({"key": [None]}, [])
    else:
        found, problems = said(f"key: {text}")
        assert problems == []
        assert found == {"key": value} and type(found["key"]) is type(value)


def test_places_are_of_the_first_character() -> None:
    node = read("a:\n  - x\n  - {b: 'é', c: 7}\n", "f", "/", Problems())
    item = node.value["a"].value[1]
    assert (str(item.place), str(item.value["c"].key), str(item.value["c"].place)) == ("f:3:5", "f:3:14", "f:3:17")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: 2\na: 3\n", "f:3:1: `a` stands here a second time; the first is in line 1"),
        ("a: !!python/name:os.system x", "f:1:4: tags such as !!python/name:os.system are not read; write the value plainly"),
        ("a: {<<: {b: 1}}", "f:1:5: merge keys"),
        ("a: 1\n---\nb: 1", "f:2:1: a second document"),
        ("", "f:1:1: there is nothing in it"),
        ("a: *b", "f:1:4: nothing before this is anchored as &b"),
        ("a: &b [*b]", "f:1:8: nothing before this is anchored as &b"),
        ("a: {{ text }}", "f:1:5: a key must be a plain word"),
        ("a:\n\t- b", "f:2:1: not valid YAML: found character '\\t'"),
        ("a: b: c", "f:1:5: not valid YAML: mapping values are not allowed here"),
        ("a: 'x\nb: 1\n", "f:3:1: not valid YAML: found unexpected end of stream, while scanning a quoted scalar that begins in line 1"),
        ("a: \x07", "f:1:4: the character '\\x07' may not stand in YAML"),
        ('a: "\\ud800"', "f:1:4: half of a surrogate pair"),
        ('a: "\\UFFFFFFFF"', "f:1:7: not valid YAML"),
        ("a: 99999999999999999999", "f:1:4: this integer is beyond 64 bits"),
        ("[" * 60, "f:1:41: nested more than 40 deep"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, line: str) -> None:
    _, problems = said(text)
    assert any(problem.startswith(line) for problem in problems), problems


def test_aliases_are_followed_but_a_billion_laughs_are_not() -> None:
    assert said("a: &x [1, 2]\nb: *x\n") == ({"a": [1, 2], "b": [1, 2]}, [])
    lol = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(9))
    found, problems = said(lol)
    assert found is None and "more than 10,000 values" in problems[0]
    deep = "a0: &a0 [x]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}]\n" for i in range(60))
    assert "nested more than 40 deep" in said(deep)[1][0]
