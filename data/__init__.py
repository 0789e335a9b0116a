"""Sources of examples, the IID stream over them, label noise, captions and tokenizers.

`specs.open_source` turns what `--config.train_data` takes into a `source.Source`;
`stream.IIDStream` draws batches from it for ever; `captions`, `noise` and `classes`
show a source differently. `decoding` makes pixels of files, `augment` crops and mirrors
them. Imports nothing else of classact but `user_code`.
"""
