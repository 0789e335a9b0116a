"""Policies, losses, scores and priorities: pure functions of arrays.

Imports nothing else of classact but `user_code`.
"""
