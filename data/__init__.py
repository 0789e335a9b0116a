"""Sources of examples, the IID stream over them, and the label-noise wrapper.

`specs.open_source` turns what `--config.train_data` takes into a `source.Source`;
`stream.IIDStream` draws batches from it for ever. Imports nothing else of classact.
"""
