"""What the CLUE scripts share: the task registry, data, features, the training loop, evaluation, submission.

Nothing is imported here: ``tasks``, ``arguments`` and ``data`` answer at once, the rest import PaddlePaddle.
"""
