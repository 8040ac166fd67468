"""Which build of PaddlePaddle runs on which NVIDIA card. Imports nothing that takes long."""

from __future__ import annotations

from typing import NamedTuple


class Cards(NamedTuple):
    """Cards that run with the same builds.

    Attributes:
        names: the best known of them.
        capabilities: their compute capabilities, (major, minor).
        builds: CUDA versions of the builds of PaddlePaddle that hold code for them, the one to take first.
    """

    names: str
    capabilities: tuple[tuple[int, int], ...]
    builds: tuple[str, ...]


# A build holds machine code for some architectures and none to be compiled later. CUDA 13 dropped what is older than
# Turing, and Paddle did so from its 12.9 build on; Hopper came with CUDA 12, Blackwell with 12.8 (Paddle's
# cmake/cuda.cmake, and its users' reports for 12.9). It is what the installed build says of itself that counts, see
# ``runs_on``; this table is for the advice, before there is one.
CARDS = (
    Cards("GTX 10, P4, P40, P100", ((6, 0), (6, 1)), ("12.6", "11.8")),
    Cards("V100, Titan V", ((7, 0),), ("12.6", "11.8")),
    Cards("T4, RTX 20", ((7, 5),), ("12.6", "12.9", "13.0", "11.8")),
    Cards("A100, A10, A40, RTX 30, L4, L40, RTX 40", ((8, 0), (8, 6), (8, 9)), ("12.6", "12.9", "13.0", "11.8")),
    Cards("H100, H20, H200", ((9, 0),), ("12.6", "12.9", "13.0")),
    Cards("B200, B300, RTX 50, RTX PRO", ((10, 0), (10, 3), (12, 0), (12, 1)), ("12.9", "13.0")),
)


def builds_for(capability: tuple[int, int]) -> tuple[str, ...]:
    """CUDA versions of the builds for a card of a compute capability, the one to take first; none if it is unknown."""
    return next((cards.builds for cards in CARDS if capability in cards.capabilities), ())


def runs_on(architectures: list[int], capability: tuple[int, int]) -> bool:
    """Whether machine code for ``architectures``, such as 80 and 86, runs on a card of a compute capability.

    That for the same major version and a minor one that is not higher does (CUDA C++ Programming Guide, binary
    compatibility). True where nothing is known of the code.
    """
    major, minor = capability
    return not architectures or any(n // 10 == major and n % 10 <= minor for n in architectures)
