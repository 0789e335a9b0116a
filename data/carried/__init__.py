"""What the replay carries of an image: its pixels, its file, or nothing but its id.

`kinds` names the three, `sealing` makes records' fields of a batch that has been scored, `opening` makes
the same images of these fields again. With files and ids an example is decoded twice: before it is scored,
and, if it is chosen, where the learner is.
"""
