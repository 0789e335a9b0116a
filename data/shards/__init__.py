"""Tar shards: which there are, what is in them, an index of it, and the order to read them in.

`data.tar_shards` opens them; `data.shard_stream` reads them in sequence. A shard is on a disk,
or behind a URL that `remote` fetches.
"""
