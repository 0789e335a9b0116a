"""Tokenizers that published checkpoints were trained with, equal to their own tools' to the token.

`opening` loads one by its spec, which `data.tokenizer` has passed on; `rows` is what all of them make; the
other modules have each one tool's ways.
"""
