"""Sources of examples, the streams over them, label noise, captions and tokenizers.

`specs.open_source` turns what `--config.train_data` takes into a `source.Source`;
`stream.IIDStream` draws batches from it for ever, or `shard_stream.ShardStream`; `captions`,
`noise` and `classes` show a source differently; `shards` reads tar shards. `decoding` makes
pixels of files, `augment` crops and mirrors them. Imports nothing else of classact but
`user_code`.
"""
