"""The learner in `classact serve`: it hands every sub-batch on to a trainer that is not ours.

`shelf` keeps numbered sub-batches until they are not needed any more, `server` gives them to trainers,
`handed` makes what a trainer gets of what was sampled, and `selector` is the learner with these.
What is said between a selector and a trainer is in `client/protocol.py`.
"""
