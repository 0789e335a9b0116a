"""Models, their registry and their cost.

Imports nothing else of classact.
"""
