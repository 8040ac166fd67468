"""The machine: cards and driver as nvidia-smi tells them, the build of Paddle, the disk.

Nothing that tells the machine from others of its kind is reported: no UUIDs, addresses or values of variables that
may hold a password.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

from clue_utils.cards import builds_for, runs_on
from clue_utils.cli import timed
from clue_utils.environment import num_processors
from gpu_check.checks import SLOW, Report
from gpu_check.jobs import NO_CARD, Bench

# Fields of nvidia-smi --query-gpu.
FIELDS = ("index", "name", "driver_version", "memory.total", "memory.used", "mig.mode.current", "ecc.mode.current")
_UNKNOWN = ("[N/A]", "[Not Supported]", "N/A", "")
# What the host side of NCCL shares between the processes of a machine.
_SHARED_MEMORY_BYTES = 1 << 30
_DISK_MB, _DISK_MB_PER_SECOND = 256, 100
_PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


def ask_driver(*words: str) -> str:
    """What nvidia-smi prints, "" where it is missing or fails."""
    try:
        done = subprocess.run(["nvidia-smi", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def parse_cards(text: str) -> list[dict[str, str]]:
    """Field -> value for each card, from ``--format=csv,noheader,nounits``; "" for what a card does not tell."""
    cards = []
    for line in filter(str.strip, text.splitlines()):
        values = [value.strip() for value in line.split(",")]
        if len(values) == len(FIELDS):
            cards.append({k: "" if v in _UNKNOWN else v for k, v in zip(FIELDS, values, strict=True)})
    return cards


def parse_links(text: str) -> Counter[str]:
    """How many pairs of cards have which connection, such as NV12 or PHB, from ``nvidia-smi topo -m``."""
    lines = [line.split() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()]
    is_card = re.compile(r"GPU\d+").fullmatch
    header = next((words for words in lines if words and is_card(words[0]) and "X" not in words), [])
    columns = [word for word in header if is_card(word)]
    links: Counter[str] = Counter()
    for words in lines:
        if words and words[0] in columns and "X" in words:
            row = columns.index(words[0])
            links.update(words[1 + row + 1 : 1 + len(columns)])
    return links


def parse_processes(text: str) -> int:
    """How many programs compute on the cards, from ``--query-compute-apps=pid --format=csv,noheader``."""
    return sum(line.strip().isdecimal() for line in text.splitlines())


def written_per_second(folder: Path, megabytes: int) -> float:
    """MB a second that are written to a file and are on disk."""
    block, file = os.urandom(1 << 20), folder / "written"
    with timed() as seconds, open(file, "wb") as written:
        for _ in range(megabytes):
            written.write(block)
        written.flush()
        os.fsync(written.fileno())
        taken = seconds()
    file.unlink()
    return megabytes * 1.048576 / max(taken, 1e-9)


def check(report: Report, bench: Bench) -> None:
    report.info("processors", num_processors())
    check_cards(report, bench)
    check_build(report, bench)
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        if name in os.environ:
            report.info(name, re.sub(r"(GPU|MIG)-[0-9a-fA-F-]+", r"\1-<uuid>", os.environ[name]) or "empty")
    given = sorted(name for name in os.environ if name.startswith("FLAGS_"))
    report.info("flags of Paddle in the environment", ", ".join(f"{n}={os.environ[n]}" for n in given) or "none")
    report.info("proxies in the environment", ", ".join(name for name in _PROXIES if os.environ.get(name)) or "none")
    if Path("/dev/shm").is_dir():
        size = shutil.disk_usage("/dev/shm").total
        if bench.num_cards > 1:
            report.at_least(
                "/dev/shm, which the cards' processes share", size / 2**30, _SHARED_MEMORY_BYTES / 2**30, "GiB"
            )
        else:
            report.info("/dev/shm", size / 2**30, "GiB")
    megabytes = _DISK_MB if bench.on_card else 32
    speed = written_per_second(bench.scratch, megabytes)
    report.at_least(
        f"disk of --output_dir, {megabytes} MB with fsync", speed, _DISK_MB_PER_SECOND, "MB/s", otherwise=SLOW
    )


def check_cards(report: Report, bench: Bench) -> None:
    """What the driver tells."""
    cards = parse_cards(ask_driver(f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"))
    if not cards:
        report.not_run(
            "cards and driver", "nvidia-smi lists no card" if shutil.which("nvidia-smi") else "no nvidia-smi"
        )
        return
    kinds = Counter(f"{card['name']}, {int(float(card['memory.total'] or 0)):,} MiB" for card in cards)
    for kind, number in kinds.items():
        report.info("cards", f"{number} x {kind}")
    report.info("driver", cards[0]["driver_version"])
    report.info(
        "MIG, ECC",
        ", ".join(dict.fromkeys(f"{c['mig.mode.current'] or '-'}/{c['ecc.mode.current'] or '-'}" for c in cards)),
    )
    if len(cards) > 1:
        links = parse_links(ask_driver("topo", "-m"))
        report.info("links between cards", ", ".join(f"{n} x {kind}" for kind, n in links.items()) or "not known")
    others = parse_processes(ask_driver("--query-compute-apps=pid", "--format=csv,noheader"))
    report.at_most("other programs on the cards, which times suffer from", others, 0, otherwise=SLOW)


def check_build(report: Report, bench: Bench) -> None:
    """What Paddle is built for, and whether its code runs on the cards."""
    with report.failing("PaddlePaddle can be imported"):
        build = bench.call("build")
        version = f"{build['version']}, " + (f"CUDA {build['cuda']}" if build["is_for_cuda"] else "for CPUs alone")
        if not bench.on_card:
            report.info("PaddlePaddle", version)
            report.not_run("code of this build runs on the cards", NO_CARD)
            return
        if not build["is_for_cuda"]:
            report.fail(
                "PaddlePaddle for GPUs", f"{version}; bash scripts/setup_env.sh --cuda installs the build for GPUs"
            )
            return
        report.info("PaddlePaddle", version)
        report.info("cuDNN, NCCL compiled", f"{build['cudnn']}, {build['nccl']}")
        report.info("cuDNN, NCCL loaded", f"{build.get('loaded_cudnn')}, {build.get('loaded_nccl')}")
        report.info("flags in force", ", ".join(f"{name} {value}" for name, value in build["flags"].items()))
        code = " ".join(map(str, build["architectures"]))
        for number, (major, minor) in enumerate(build.get("capabilities", [])):
            name, capability = f"code of this build runs on card {number}", f"{major}.{minor}"
            if not build["architectures"]:
                report.not_run(name, f"it has {capability}; the build does not say what it is for")
            elif runs_on(build["architectures"], (major, minor)):
                report.holds(name, f"{capability} by {code}")
            else:
                builds = " or ".join(builds_for((major, minor))) or "another CUDA version"
                report.fail(name, f"it has {capability}, the code is for {code}: take the build for {builds}")
