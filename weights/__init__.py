"""Weights in and out: checkpoints of other tools as models of ours, and back.

`opening` reads one by its spec, `exporting` writes one. `architecture` says what a
checkpoint's model is and what it takes, `entries` how arrays are named and laid out
elsewhere, `families` has one module for each tool, `files` the formats. Nothing is
unpickled. It may be imported by `launch`, `nodes` and `experiments`; it imports `models`.
"""
