"""Configurations, the cost ledger and the comparison report.

May import `models`, `selection` and `data`; `launch` imports it.
"""
