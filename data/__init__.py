"""Sources of examples, the IID stream over them, and the label-noise wrapper.

Imports nothing else of classact.
"""
