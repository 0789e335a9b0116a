"""From a configuration to sources, shapes, networks and measures, usable without any launch.

Everything here is a plain function of a configuration: it knows neither Launchpad nor an
engine, starts nothing and writes nothing. `docs/from_python.md` shows how to call it from
Python. The rest of `launch` builds its nodes of it.
"""
