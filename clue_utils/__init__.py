"""What the CLUE scripts share: the task registry, data, features, the training loop, evaluation, submission.

Nothing is imported here. ``pipeline`` and what it is made of (``models``, ``training``, ``inference`` and so on) import
PaddlePaddle; whatever only reads and writes files does not, and answers at once.
"""
