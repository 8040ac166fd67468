"""The processes of a run: which of them this one is."""

from __future__ import annotations

import os


def rank() -> int:
    """This process's number among all processes of the run; 0 outside ``paddle.distributed.launch``."""
    return int(os.environ.get("PADDLE_TRAINER_ID", "0"))


def is_first() -> bool:
    """Whether this is the process that writes and speaks for all, rank 0."""
    return rank() == 0


def world_size() -> int:
    """How many processes take part in the run."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))


def processes_on_this_machine() -> int:
    """How many ranks share this machine's processors (ranks of one host listen on one address)."""
    endpoints = os.environ.get("PADDLE_TRAINER_ENDPOINTS", "").split(",")
    host = os.environ.get("PADDLE_CURRENT_ENDPOINT", "").rpartition(":")[0]
    return max(1, sum(endpoint.rpartition(":")[0] == host for endpoint in endpoints))
