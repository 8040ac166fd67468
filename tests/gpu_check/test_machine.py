"""What the check of a machine makes of nvidia-smi's answers, as its versions print them."""

from __future__ import annotations

from collections import Counter

import pytest

from gpu_check import machine

TWO_CARDS = """\
0, NVIDIA A100-SXM4-80GB, 535.161.08, 81920, 4, Disabled, Enabled
1, NVIDIA A100-SXM4-80GB, 535.161.08, 81920, 1024, Enabled, Enabled
"""
OLD_CARD = "0, GeForce GTX 1080 Ti, 470.57.02, 11178, 0, [N/A], [N/A]\n"
FAILED = 'Field "mig.mode.current" is not a valid field to query.\n'
TOPOLOGY = (
    "\t\x1b[4mGPU0\tGPU1\tGPU2\tGPU3\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m\n"
    "GPU0\t X \tNV12\tSYS\tSYS\tPXB\t0-31\t0\t\tN/A\n"
    "GPU1\tNV12\t X \tSYS\tSYS\tPXB\t0-31\t0\t\tN/A\n"
    "GPU2\tSYS\tSYS\t X \tNV12\tSYS\t32-63\t1\t\tN/A\n"
    "GPU3\tSYS\tSYS\tNV12\t X \tSYS\t32-63\t1\t\tN/A\n"
    "NIC0\tPXB\tPXB\tSYS\tSYS\t X \n\nLegend:\n\n  X    = Self\n  NIC0: mlx5_0\n"
)
OLD_TOPOLOGY = (
    "        GPU0    GPU1    mlx4_0  CPU Affinity\n"
    "GPU0     X      PIX     PHB     0-9,20-29\n"
    "GPU1    PIX      X      PHB     0-9,20-29\n"
    "mlx4_0  PHB     PHB      X \n"
)


def test_cards_are_read_with_what_they_do_not_tell_left_empty():
    first, second = machine.parse_cards(TWO_CARDS)
    assert (first["name"], first["memory.total"], first["mig.mode.current"]) == (
        "NVIDIA A100-SXM4-80GB",
        "81920",
        "Disabled",
    )
    assert second["index"] == "1" and second["mig.mode.current"] == "Enabled"
    (old,) = machine.parse_cards(OLD_CARD)
    assert (old["driver_version"], old["mig.mode.current"], old["ecc.mode.current"]) == ("470.57.02", "", "")
    assert machine.parse_cards(FAILED) == machine.parse_cards("") == []


@pytest.mark.parametrize(
    ("text", "links"),
    [(TOPOLOGY, {"NV12": 2, "SYS": 4}), (OLD_TOPOLOGY, {"PIX": 1}), ("", {}), ("Failed to run topology matrix\n", {})],
    ids=["four", "old", "none", "failed"],
)
def test_links_are_counted_for_each_pair_of_cards(text, links):
    assert machine.parse_links(text) == Counter(links)


def test_programs_on_the_cards_are_counted():
    assert machine.parse_processes("4021\n4022\n") == 2
    assert machine.parse_processes("") == machine.parse_processes("[Not Supported]\n") == 0


def test_nvidia_smi_may_be_missing_or_fail(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.ask_driver("-L") == ""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n")
    program.chmod(0o755)
    assert machine.ask_driver("-L") == ""
    program.write_text('#!/bin/sh\necho "$1"\n')
    assert machine.ask_driver("topo") == "topo\n"
