"""Options declared once: what functions take from a dataclass."""

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import Parameter, cleandoc, signature
from typing import Literal

import pytest

from dipy_dl_reg import DeepRegistration
from dipy_dl_reg.options import (
    OptionText,
    fill_docstring,
    insert_options,
    join_words,
    option_texts,
    takes_options,
)
from dipy_dl_reg.validation import check_number


@dataclass(frozen=True)
class Painting:
    """How a wall is painted.

    Parameters
    ----------
    colour : {"red", "blue"}, optional
        Of the paint.
    width, height : float, optional
        Of the wall, m; see `wall`.
    layers : sequence of int, optional
        Thickness of each layer:

        - the first is ``layers[0]``;
        - the last is the outermost.

    Raises
    ------
    ValueError
        If the width is negative.
    """

    colour: Literal["red", "blue"] = "red"
    width: float = 3.0
    height: float = 2.0
    layers: Sequence[int] | None = None

    def __post_init__(self):
        check_number("width", self.width)


@takes_options(Painting)
def paint(wall, *more, hurry=False, options):
    """Paint a wall.

    Parameters
    ----------
    wall : str
        Which.
    *more : str
        Others.
    hurry : bool, optional
        Be quick.
    options : Painting
        Replaced in the docstring.

    Returns
    -------
    painted : tuple
        All of it.
    """
    return wall, more, hurry, options


def test_texts_of_fields():
    texts = option_texts(Painting)
    assert list(texts) == ["colour", "width", "height", "layers"]
    assert texts["colour"] == OptionText('{"red", "blue"}, optional', "Of the paint.")
    assert texts["width"] == texts["height"]
    assert texts["layers"].text.splitlines()[1:3] == [
        "",
        "- the first is ``layers[0]``;",
    ]


def test_function_takes_fields():
    assert paint("a", "b", width=4, hurry=True) == (
        "a",
        ("b",),
        True,
        Painting(width=4),
    )
    assert paint("a")[-1] == Painting()
    options = Painting(colour="blue")
    assert paint("a", options=options)[-1] is options


def test_signature_has_the_fields():
    parameters = signature(paint).parameters
    assert list(parameters) == [
        *("wall", "more", "hurry", "colour", "width", "height", "layers"),
    ]
    assert parameters["width"].default == 3.0
    assert parameters["width"].kind is Parameter.KEYWORD_ONLY
    assert paint.__name__ == "paint"


def test_docstring_has_the_fields():
    doc = cleandoc(paint.__doc__)  # Python 3.13 removes the indentation itself
    assert "Replaced in the docstring" not in doc and "options : Painting" not in doc
    order = ["wall : str", "hurry : bool", "colour : {", "width : float", "Returns"]
    places = [doc.index(words) for words in order]
    assert places == sorted(places)
    assert "\n    Of the wall, m; see `wall`.\n" in doc


@pytest.mark.parametrize(
    "given, error, words",
    [
        ({"depth": 1}, TypeError, "paint has no option 'depth'; its options"),
        ({"depth": 1}, TypeError, r"options are ((?!'options').)*$"),
        ({"width": -1}, ValueError, "width must be 0 or more"),
        ({"options": Painting(), "width": 1}, TypeError, "not both"),
    ],
)
def test_wrong_options(given, error, words):
    with pytest.raises(error, match=words):
        paint("a", **given)


def test_other_keywords_are_passed_on():
    @takes_options(Painting, "painting")
    def both(painting, **others):
        """Give back both.

        Parameters
        ----------
        painting : Painting
            Of the wall.
        **others : dict
            Anything.
        """
        return painting, others

    assert both(width=1, depth=2) == (Painting(width=1), {"depth": 2})
    assert list(signature(both).parameters)[-1] == "others"


def test_docstring_without_the_entry():
    with pytest.raises(ValueError, match="no entry of type Painting"):
        insert_options("Nothing here.", Painting)


def test_option_that_must_be_given():
    @dataclass(frozen=True)
    class Needed:
        """A number.

        Parameters
        ----------
        number : int
            Any.
        """

        number: int

    @takes_options(Needed)
    def double(*, options):
        """Double a number.

        Parameters
        ----------
        options : Needed
            The number.
        """
        return 2 * options.number

    assert double(number=2) == 4
    with pytest.raises(TypeError, match="double requires the option 'number'"):
        double()


def test_names_in_a_docstring():
    @fill_docstring(colours=["red", "blue", "white"])
    def paint_all():
        """Paint in {colours}; {others} stays."""

    assert paint_all.__doc__ == 'Paint in "red", "blue" or "white"; {others} stays.'


@pytest.mark.parametrize(
    "words, text",
    [(["a"], "a"), (["a", "b"], "a or b"), (["a", "b", "c"], "a, b or c")],
)
def test_words_in_a_sentence(words, text):
    assert join_words(words) == text


def test_texts_and_names_are_written_into_a_docstring():
    @fill_docstring(kinds=["a", "b", "c"], text="Two\nlines.")
    def function():
        """One of {kinds}.

        option : int
            {text} {other}
        """

    assert cleandoc(function.__doc__).splitlines() == [
        'One of "a", "b" or "c".',
        "",
        "option : int",
        "    Two",
        "    lines. {other}",
    ]


def test_entries_of_some_fields():
    doc = "\n".join(
        [
            "Parameters",
            "----------",
            "width, colour : Painting",
            "brush : int",
            "    Its size.",
            "layers : Painting",
        ]
    )
    described = insert_options(doc + "\n", Painting)
    heads = [line for line in described.splitlines() if " : " in line]
    assert [head.split(" : ")[0] for head in heads] == [
        *("width", "colour", "brush", "layers")
    ]
    assert "    Of the wall, m; see `wall`.\n" in described


def test_a_constructor_is_named_by_its_class():
    """Named by its class, and without "self" among its options."""
    with pytest.raises(TypeError, match=r"^DeepRegistration has no option 'foo'") as e:
        DeepRegistration(foo=1)
    assert "'self'" not in str(e.value)
