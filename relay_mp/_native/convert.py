"""What people pass as a payload besides JSON types, and what it becomes.

Runs in the emitting process, called by the native encoder (encoder.pyx) for a value of another type
than None, bool, int, float, str, dict, list, tuple. It takes one step: the result may hold, or be, another
value that needs a step of its own; the encoder goes on from there and knows the path to it.

| passed | encoded as |
| --- | --- |
| enum member | its value |
| dataclass instance | map of its fields |
| subclass of str, int, float, dict, list, tuple (OrderedDict, namedtuple, ...) | the base's content |
| set, frozenset, deque | array, in iteration order |
| types.MappingProxyType | map |
| datetime, date, time | ISO 8601 string |
| timedelta | seconds, as a float |
| UUID, and any os.PathLike | string |
| NumPy array | nested arrays (`tolist()`); a 0-d array is its item |
| pydantic models, SDK responses: what has `model_dump`, or `to_dict` | what that returns |
| attrs instance | map of its fields |
| NumPy scalar | its Python value; datetime64 an ISO 8601 string, timedelta64 seconds, NaT nil |

Nothing is imported to recognise a type. An instance of a class exists only where its module has been
loaded, so asking `sys.modules` is enough, and `import relay_mp` stays free of NumPy, dataclasses, uuid.
"""

import sys
from collections import deque
from collections.abc import Callable
from types import MappingProxyType
from typing import Any


class Unsupported(TypeError):
    """The value cannot be a payload; the message follows the path in PayloadError's."""


def simplify(value: Any) -> Any:
    """One step towards JSON types.

    May run the value's own code (properties, `__fspath__`, iteration), whose exceptions pass through.

    Raises:
        Unsupported: a type that is not in the table above.
    """
    convert = _conversion(value)
    if convert is None:
        raise _unsupported(type(value))
    return convert(value)


def as_text(value: Any) -> str | None:
    """What stands for an unsupported value that has an exact text; None: it has none."""
    return str(value) if _is(value, "decimal", "Decimal") else None


def _conversion(value: Any) -> Callable[[Any], Any] | None:  # noqa: PLR0911
    # Before the builtin types: a member of `class Colour(str, Enum)` may have a value that is not its
    # text, and a dataclass that derives from dict is meant as its fields.
    if _is(value, "enum", "Enum"):
        return _enum_value
    if hasattr(type(value), "__dataclass_fields__"):
        return _dataclass_fields
    for bases, convert in _BUILTIN:
        if isinstance(value, bases):
            return convert
    for module_name, class_name, convert in _LIBRARY:
        if _is(value, module_name, class_name):
            return convert
    for method, convert in _KNOW_THEIR_JSON:
        if callable(getattr(type(value), method, None)):
            return convert
    if hasattr(type(value), "__attrs_attrs__"):
        return _attrs_fields
    return _path_text if hasattr(type(value), "__fspath__") else None


def _is(value: Any, module_name: str, class_name: str) -> bool:
    known = getattr(sys.modules.get(module_name), class_name, None)
    # A test double in sys.modules may answer with something that is not a class.
    return isinstance(known, type) and isinstance(value, known)


def _enum_value(member: Any) -> Any:
    return member.value


def _dataclass_fields(value: Any) -> dict[str, Any]:
    # Shallow, unlike dataclasses.asdict: the encoder recurses by itself and needs no deep copy.
    fields = sys.modules["dataclasses"].fields(value)
    return {field.name: getattr(value, field.name) for field in fields}


def _model_dump(value: Any) -> Any:
    try:
        return value.model_dump(mode="json")
    except Exception:  # a field that is not JSON: the encoder replaces it alone
        return value.model_dump()


def _to_dict(value: Any) -> Any:
    return value.to_dict()


_KNOW_THEIR_JSON = (("model_dump", _model_dump), ("to_dict", _to_dict))


def _attrs_fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in type(value).__attrs_attrs__}


def _path_text(value: Any) -> Any:
    return type(value).__fspath__(value)


def _iso_text(value: Any) -> Any:
    return value.isoformat()


def _seconds(value: Any) -> Any:
    return value.total_seconds()


def _numpy_scalar(value: Any) -> Any:
    kind = value.dtype.kind
    if kind == "c":
        raise Unsupported(f"unsupported type {type(value).__name__}; {_COMPLEX_ADVICE}")
    if kind == "M":
        # item() would lose nanoseconds, and give an int for them.
        text = str(value)
        return None if text == "NaT" else text
    if kind == "m":
        return float(value / sys.modules["numpy"].timedelta64(1, "s"))
    if kind == "f":
        # item() of a longdouble is that longdouble again.
        return float(value)
    return value.item()


def _numpy_array(value: Any) -> Any:
    kind = value.dtype.kind
    if kind == "c":
        raise Unsupported(f"unsupported type ndarray of {value.dtype.name}; {_COMPLEX_ADVICE}")
    if kind in "mM":
        # tolist() has the same loss as item(): take the scalars apart one by one.
        return list(value) if value.ndim else value[()]
    return value.tolist()


# str.__str__ and its like give the base's content whatever the subclass overrides.
_BUILTIN: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    ((dict, MappingProxyType), dict),
    ((list, tuple, set, frozenset, deque), list),
)
_LIBRARY: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
    ("datetime", "date", _iso_text),
    ("datetime", "time", _iso_text),
    ("datetime", "timedelta", _seconds),
    ("uuid", "UUID", str),
    ("numpy", "generic", _numpy_scalar),
    ("numpy", "ndarray", _numpy_array),
)

_BYTES_ADVICE = "encode it as text, for instance with base64.b64encode(value).decode()"
_COMPLEX_ADVICE = "pass its real and imaginary parts"
_ADVICE: tuple[tuple[str, str, str], ...] = (
    ("builtins", "bytes", _BYTES_ADVICE),
    ("builtins", "bytearray", _BYTES_ADVICE),
    ("builtins", "memoryview", _BYTES_ADVICE),
    ("builtins", "complex", _COMPLEX_ADVICE),
    ("decimal", "Decimal", "pass str(value) or float(value)"),
)
_EXPECTED = "expected JSON types, dataclasses, enums, dates, UUIDs, paths or NumPy values, so convert it first"


def _unsupported(kind: type) -> Unsupported:
    for module_name, class_name, advice in _ADVICE:
        known = getattr(sys.modules.get(module_name), class_name, None)
        if isinstance(known, type) and issubclass(kind, known):
            return Unsupported(f"unsupported type {kind.__name__}; {advice}")
    return Unsupported(f"unsupported type {kind.__name__}; {_EXPECTED}")
