"""The program's nodes as plain classes that work without Launchpad.

May import `replay`, `models`, `selection` and `data`.
"""
