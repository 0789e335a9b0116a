"""Data in records, one behind the other in shards: TFRecord, ArrayRecord, and what TFDS has prepared of both.

A record is a `tf.train.Example` or a map of msgpack. `framing` and `array_files` read shards,
`examples` says what is in a record, `index` remembers where the records are, and `table` shows
them to `tables`, which chooses fields, numbers labels and counts what is left out, as for all tables.
Imports nothing of classact but `data`, and never TensorFlow.
"""
