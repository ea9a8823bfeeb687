"""What messages say of a value that is not of the type that was expected."""

from collections import OrderedDict

import pytest

from relay_mp.errors import described_type


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "None"), (3, "an int"), ("x", "a str"), (OrderedDict(), "an OrderedDict"), (object(), "an object")],
)
def test_a_values_type_is_said_with_its_article(value, said):
    assert described_type(value) == said
