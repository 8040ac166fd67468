"""Which device --device leads to: alone, under the launcher, and with other values of CUDA_VISIBLE_DEVICES."""

from __future__ import annotations

from typing import Any

from clue_utils.grid import trial
from gpu_check import machine
from gpu_check.checks import Report
from gpu_check.jobs import NO_CARD, Bench

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def check(report: Report, bench: Bench) -> None:
    cards = bench.num_cards
    expected = "gpu:0" if bench.on_card else "cpu"
    # Without a GPU that is used, none must be seen either: --device cpu on a machine with cards.
    hidden = {} if bench.on_card else {_VISIBLE: "-1"}
    for requested, wanted in ((None, expected), ("cpu", "cpu"), ("gpu", expected)):
        name = f"--device {requested}" if requested else "no --device"
        with report.failing(name):
            found = bench.call("place", variables=hidden, requested=requested)
            if requested == "gpu" and not bench.on_card:
                report.equal(
                    f"{name} where there is none", "refused" if "refusal" in found else found["device"], "refused"
                )
            else:
                report.equal(name, _shown(found), wanted)
    with report.failing("--device cpu, 2 ranks"):
        ranks = bench.call("place", num_ranks=2, requested="cpu")
        report.equal("--device cpu, 2 ranks", ", ".join(map(_shown, ranks)), "cpu gloo, cpu gloo")
    if cards > 1:
        with report.failing("2 ranks"):
            ranks = bench.call("place", num_ranks=2, requested=None)
            report.equal("2 ranks", ", ".join(map(_shown, ranks)), "gpu:0 nccl, gpu:1 nccl")
    else:
        report.not_run("2 ranks, each on a card of its own", NO_CARD if not bench.on_card else "one card")
    check_visible(report, bench, cards)


def _shown(found: dict[str, Any]) -> str:
    if "refusal" in found:
        return f"refused: {found['refusal']}"
    is_same = found["device"].partition(":")[0] in found["place"].lower()
    lies = "" if is_same else f" with tensors on {found['place']}"
    return f"{found['device']}{lies} {found['backend']}".strip()


def check_visible(report: Report, bench: Bench, cards: int) -> None:
    """The first visible card is the one that is taken."""
    if not bench.on_card:
        report.not_run(f"{_VISIBLE}: reversed, a UUID, empty", NO_CARD)
        return
    if any(map(trial.is_part, trial.visible_gpus())):
        report.not_run(f"{_VISIBLE}: reversed, a UUID, empty", "a divided card (MIG)")
        return
    uuids = [line.strip() for line in machine.ask_driver("--query-gpu=uuid", "--format=csv,noheader").splitlines()]
    numbers = [str(number) for number in range(len(uuids))]
    # Cards are counted as nvidia-smi does; CUDA's own order is that of their speed.
    order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    cases = {"the last card first": (",".join(reversed(numbers)), uuids[-1]), "a UUID": (uuids[-1], uuids[-1])}
    for name, (value, uuid) in cases.items():
        with report.failing(f"{_VISIBLE}: {name}"):
            found = bench.call("place", variables={_VISIBLE: value, **order}, requested=None)
            if not found.get("uuid"):
                report.not_run(f"{_VISIBLE}: {name}", "the driver does not tell which card it is")
            else:
                report.equal(
                    f"{_VISIBLE}: {name}", "that card" if found["uuid"] == uuid else "another card", "that card"
                )
    with report.failing(f"{_VISIBLE}: -1"):
        report.equal(f"{_VISIBLE}: -1", _shown(bench.call("place", variables={_VISIBLE: "-1"}, requested=None)), "cpu")
