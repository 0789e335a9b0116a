"""The messages of Reverb's protocol that we use, made at run time.

Written from `reverb_service.proto` and `schema.proto` of Reverb, the same in 0.7.2 and in
0.14.0 but for one field, and from TensorFlow's `tensor.proto`, `struct.proto`. Only the numbers
and the types of fields matter on the wire, so names are ours. There is no generated code, which
would be bound to the version of protobuf that generated it.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "/deepmind.reverb.ReverbService/"
UINT8 = 4  # As TensorFlow numbers types.

_PACKAGE = "classact.replay"
_MESSAGES = {
    "Dim": {"size": (1, "int64")},
    "Shape": {"dim": (2, "repeated Dim"), "unknown_rank": (3, "bool")},
    # `content` is a raw Snappy block.
    "Tensor": {"dtype": (1, "int32"), "shape": (2, "Shape"), "content": (4, "bytes")},
    "Range": {"episode": (1, "uint64"), "start": (2, "int32"), "end": (3, "int32"), "sparse": (4, "bool")},
    "Tensors": {"tensors": (1, "repeated Tensor")},
    "Chunk": {
        "key": (1, "uint64"),
        "range": (2, "Range"),
        "delta_encoded": (4, "bool"),
        "data": (5, "Tensors"),
        "tensors_len": (6, "int32"),
        # Not in 0.7.2, which keeps it as it is.
        "uncompressed_size": (7, "int64"),
    },
    "Slice": {
        "chunk_key": (1, "uint64"),
        "offset": (2, "int32"),
        "length": (3, "int32"),
        "index": (4, "int32"),
    },
    "Column": {"slices": (1, "repeated Slice"), "squeeze": (2, "bool")},
    "Trajectory": {"columns": (1, "repeated Column")},
    "Item": {
        "key": (1, "uint64"),
        "table": (2, "string"),
        "priority": (5, "double"),
        "times_sampled": (6, "int32"),
        "trajectory": (8, "Trajectory"),
    },
    "InsertRequest": {
        "chunks": (1, "repeated Chunk"),
        "items": (2, "repeated Item"),
        "keep": (3, "repeated uint64"),
    },
    "InsertResponse": {"keys": (1, "repeated uint64")},
    "Timeout": {"milliseconds": (1, "int64")},
    "SampleRequest": {
        "table": (1, "string"),
        "num_samples": (2, "int64"),
        "limiter_timeout": (3, "Timeout"),
    },
    "SampleInfo": {
        "item": (1, "Item"),
        "probability": (2, "double"),
        "table_size": (3, "int64"),
        "rate_limited": (4, "bool"),
    },
    "SampleEntry": {
        "info": (1, "SampleInfo"),
        "chunks": (2, "repeated Chunk"),
        "ends_item": (3, "bool"),
    },
    "SampleResponse": {"entries": (1, "repeated SampleEntry")},
    "Update": {"key": (1, "uint64"), "priority": (2, "double")},
    "MutateRequest": {
        "table": (1, "string"),
        "updates": (2, "repeated Update"),
        "deletes": (3, "repeated uint64"),
    },
    "ResetRequest": {"table": (1, "string")},
    "Empty": {},
    "CheckpointResponse": {"path": (1, "string")},
    "TensorSpec": {"name": (1, "string"), "shape": (2, "Shape"), "dtype": (3, "int32")},
    # TensorFlow's StructuredValue, of which our tables have one kind.
    "Signature": {"tensor_spec": (33, "TensorSpec")},
    "Calls": {"completed": (2, "int64")},
    "Limiter": {
        "samples_per_insert": (1, "double"),
        "min_diff": (2, "double"),
        "max_diff": (3, "double"),
        "min_size_to_sample": (4, "int64"),
        "inserts": (5, "Calls"),
        "samples": (6, "Calls"),
    },
    "Table": {
        "name": (8, "string"),
        "max_size": (3, "int64"),
        "max_times_sampled": (4, "int32"),
        "limiter": (5, "Limiter"),
        "signature": (6, "Signature"),
        "current_size": (7, "int64"),
    },
    "ServerInfo": {"tables": (2, "repeated Table")},
}


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="classact/replay/protocol.proto", package=_PACKAGE, syntax="proto3"
    )
    types = descriptor_pb2.FieldDescriptorProto
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            repeated, _, kind = kind.rpartition(" ")
            label = types.LABEL_REPEATED if repeated else types.LABEL_OPTIONAL
            added = message.field.add(name=field, number=number, label=label)
            if kind in _MESSAGES:
                added.type, added.type_name = types.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                added.type = types.Type.Value(f"TYPE_{kind.upper()}")
    # A pool of its own: the default one is everybody's.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


_made = _classes()
CheckpointResponse: Any = _made["CheckpointResponse"]
Empty: Any = _made["Empty"]
InsertRequest: Any = _made["InsertRequest"]
InsertResponse: Any = _made["InsertResponse"]
MutateRequest: Any = _made["MutateRequest"]
ResetRequest: Any = _made["ResetRequest"]
SampleInfo: Any = _made["SampleInfo"]
SampleRequest: Any = _made["SampleRequest"]
ServerInfo: Any = _made["ServerInfo"]
Signature: Any = _made["Signature"]
