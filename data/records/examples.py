"""What is in a record: the fields of a `tf.train.Example`, or of a map of msgpack."""

from typing import Any

import msgpack
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

_PACKAGE = "classact.records"
# How a map of msgpack begins.
_MAPS = frozenset(bytes([first]) for first in (*range(0x80, 0x90), 0xDE, 0xDF))


def fields(content: bytes) -> dict[str, list[Any]]:
    """The fields of a record, each with its values: bytes, texts or numbers.

    Args:
        content: a serialised `tf.train.Example`, or a map of msgpack, whose values are
            single ones or lists. Which of the two is told by the first byte.

    Raises:
        ValueError: if it is neither, in a few words; equal ones for records of the same kind.
    """
    if _is_example(content):
        return {name: _values(feature) for name, feature in _features(content).items()}
    return {_text(name): _listed(value) for name, value in _map(content).items()}


def values(content: bytes, field: str) -> list[Any]:
    """The values of one field of a record, as `fields` gives them, in a third of its time; none if it lacks.

    Raises:
        ValueError: as `fields` does.
    """
    if _is_example(content):
        features = _features(content)
        return _values(features[field]) if field in features else []
    return next((_listed(value) for name, value in _map(content).items() if _text(name) == field), [])


def _is_example(content: bytes) -> bool:
    first = content[:1]
    # The tag of an Example's only field; a record without features has no bytes.
    if first == b"\n" or not content:
        return True
    if first in _MAPS:
        return False
    raise ValueError("no tf.train.Example and no map of msgpack")


def _features(content: bytes) -> Any:
    try:
        return _Example.FromString(content).features.feature
    except DecodeError as error:
        raise ValueError("a tf.train.Example that is damaged") from error


def _values(feature: Any) -> list[Any]:
    kind = feature.WhichOneof("kind")
    return [] if kind is None else list(getattr(feature, kind).value)


def _map(content: bytes) -> dict[Any, Any]:
    try:
        # Maps within may have keys of other kinds.
        found: dict[Any, Any] = msgpack.unpackb(content, strict_map_key=False)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        # A pickle begins as a map does; reading it would run code.
        kind = "a pickle" if content[:1] == b"\x80" and content[-1:] == b"." else "a map that is damaged"
        raise ValueError(f"{kind}, and neither a tf.train.Example nor msgpack") from error
    return found


def _text(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _example_class() -> Any:
    """The message, from `example.proto` and `feature.proto` of TensorFlow.

    It is made at run time, as `replay.protocol` does: generated code is bound to a version of protobuf.
    """
    types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="classact/records/example.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, kind in (("BytesList", "BYTES"), ("FloatList", "FLOAT"), ("Int64List", "INT64")):
        file.message_type.add(name=name).field.add(
            name="value", number=1, label=types.LABEL_REPEATED, type=types.Type.Value(f"TYPE_{kind}")
        )
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("BytesList", "FloatList", "Int64List"), 1):
        added = _message_field(feature, name.lower(), number, name)
        added.oneof_index = 0
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=types.LABEL_OPTIONAL, type=types.TYPE_STRING)
    _message_field(entry, "value", 2, "Feature")
    _message_field(features, "feature", 1, "Features.FeatureEntry").label = types.LABEL_REPEATED
    _message_field(file.message_type.add(name="Example"), "features", 1, "Features")
    # A pool of its own: the default one is everybody's.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Example"))


def _message_field(message: Any, name: str, number: int, kind: str) -> Any:
    types = descriptor_pb2.FieldDescriptorProto
    return message.field.add(
        name=name,
        number=number,
        label=types.LABEL_OPTIONAL,
        type=types.TYPE_MESSAGE,
        type_name=f".{_PACKAGE}.{kind}",
    )


_Example = _example_class()
