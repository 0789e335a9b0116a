"""Builds the program and starts it: the only folder that knows Launchpad.

May import everything below it: `nodes`, `experiments`, `replay`, `models`,
`selection`, `data`.
"""
