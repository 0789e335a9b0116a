"""Tables, writer and the learner's iterator: the only folder that knows Reverb and TensorFlow.

Imports nothing else of classact.
"""
