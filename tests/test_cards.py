"""Which build of Paddle runs on which card: the table, and what a user is told when installing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clue_utils.cards import CARDS, builds_for, runs_on

TOP = Path(__file__).parents[1]


def test_no_card_is_in_two_rows():
    capabilities = [capability for cards in CARDS for capability in cards.capabilities]
    assert len(capabilities) == len(set(capabilities)) and capabilities == sorted(capabilities)


def test_the_builds_are_those_that_the_lock_lists():
    listed = re.findall(r"^# +CUDA (\d+\.\d) +http", (TOP / "requirements-gpu.txt").read_text(encoding="utf-8"), re.M)
    assert {build for cards in CARDS for build in cards.builds} == set(listed)


@pytest.mark.parametrize(
    ("capability", "first"), [((6, 1), "12.6"), ((7, 0), "12.6"), ((9, 0), "12.6"), ((12, 0), "12.9")]
)
def test_the_build_to_take_first(capability, first):
    assert builds_for(capability)[0] == first


def test_a_card_that_is_not_known_has_no_build():
    assert builds_for((3, 5)) == builds_for((14, 0)) == ()


@pytest.mark.parametrize(
    ("architectures", "capability", "runs"),
    [
        ([70, 75, 80], (8, 0), True),
        ([70, 75, 80], (8, 9), True),
        ([70, 75, 86], (8, 0), False),
        ([70, 75, 80], (9, 0), False),
        ([75, 80, 90, 100, 120], (7, 0), False),
        ([61, 70], (6, 0), False),
        ([100, 120], (10, 3), True),
        ([100], (12, 0), False),
        ([], (7, 0), True),
    ],
)
def test_machine_code_runs_on_its_major_version_only(architectures, capability, runs):
    assert runs_on(architectures, capability) is runs
