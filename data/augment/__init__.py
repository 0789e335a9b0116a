"""Random crops and mirrorings of training images, the same whenever an example comes in the same epoch.

`recipe` reads what a configuration says, `draws` makes the random numbers, `augmented` shows a source so.
"""
