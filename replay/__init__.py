"""Tables, writer and the learner's iterator: the only folder that knows Reverb's protocol.

Imports nothing else of classact. `server_program` alone runs under another Python, which has Reverb.
"""
