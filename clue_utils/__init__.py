"""What the CLUE scripts share: the task registry, data, features, the training loop, evaluation, submission.

Nothing is imported here. ``device``, ``models`` and what trains and predicts in ``training`` import PaddlePaddle at
their top; every other module does not, and answers at once.
"""
