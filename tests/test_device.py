"""What a run computes on, with builds of Paddle for cards whose C++ side is played by recorders."""

from __future__ import annotations

import enum
import os
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import paddle
import paddle.distributed.parallel as parallel
import pytest
from paddle.base import core
from paddle.distributed.fleet.base import topology

from clue_utils import device, environment
from clue_utils.errors import UserError

auto_cast = sys.modules["paddle.amp.auto_cast"]
BACKENDS = {"gpu": "nccl", "xpu": "bkcl"}


class Generation(enum.IntEnum):
    """Stands for Paddle's ``XPUVersion``."""

    XPU1 = 1
    XPU2 = 2
    XPU3 = 3


@dataclass
class Place:
    """Stands for ``CUDAPlace`` and its like."""

    kind: str
    index: int = 0

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"

    def get_device_id(self) -> int:
        return self.index

    def is_gpu_place(self) -> bool:
        return self.kind == "gpu"

    def is_xpu_place(self) -> bool:
        return self.kind == "xpu"

    def is_custom_place(self) -> bool:
        return False


@dataclass
class Build:
    """A build of Paddle for cards of a kind, "gpu" or "xpu", on a machine with two of them.

    Attributes:
        place: where Paddle computes.
        backends: of the groups of processes that were made.
        flags: those that Paddle was told to set.
    """

    kind: str
    capability: tuple[int, int] = (8, 0)
    architectures: tuple[int, ...] = (61, 70, 75, 80, 90)
    generation: Generation = Generation.XPU3
    place: Place = field(default_factory=lambda: Place("cpu"))
    backends: list[str] = field(default_factory=list)
    flags: dict[str, Any] = field(default_factory=dict)


class Tracer:
    """Paddle's own, but for the place."""

    def __init__(self, build: Build) -> None:
        vars(self).update(_build=build, _real=auto_cast._dygraph_tracer())

    def __getattr__(self, name: str) -> Any:
        return self._build.place if name == "_expected_place" else getattr(self._real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._real, name, value)


@pytest.fixture
def install(monkeypatch):
    """Have Paddle be a build for cards: the kind, what is special about it -> the build."""
    for name in (
        *("CUDA_VISIBLE_DEVICES", "FLAGS_selected_gpus", "FLAGS_selected_xpus", "PADDLE_DISTRI_BACKEND"),
        *("NVIDIA_TF32_OVERRIDE", "http_proxy", "https_proxy"),
    ):
        monkeypatch.setenv(name, "")  # for what is set there to go with the test
        monkeypatch.delenv(name)

    def install(kind: str, **more: Any) -> Build:
        build = Build(kind, **more)

        def set_device(name: str) -> None:
            words = name.split(":")
            index = words[1:] or [os.environ.get(f"FLAGS_selected_{words[0]}s", "0")]
            build.place = Place(words[0], 0 if name == "cpu" else int(index[0]))

        def get_flags(names: Any) -> dict[str, Any]:
            return {name: build.flags.get(name, False) for name in ([names] if isinstance(names, str) else names)}

        def patch(holder: Any, **attributes: Any) -> None:
            for name, value in attributes.items():
                monkeypatch.setattr(holder, name, value, raising=False)

        for holder in (core, paddle):
            patch(
                holder,
                is_compiled_with_cuda=lambda: kind == "gpu",
                is_compiled_with_xpu=lambda: kind == "xpu",
                is_compiled_with_rocm=lambda: False,
            )
        patch(
            paddle,
            set_device=set_device,
            get_device=lambda: str(build.place),
            set_flags=build.flags.update,
            get_flags=get_flags,
        )
        patch(
            paddle.device.cuda,
            device_count=lambda: 2,
            get_device_capability=lambda index=None: build.capability,
            get_device_name=lambda index=None: "NVIDIA Test",
            get_device_properties=lambda index=None: SimpleNamespace(total_memory=16 << 30),
            max_memory_allocated=lambda: 123,
        )
        patch(
            paddle.device.xpu,
            device_count=lambda: 2,
            memory_total=lambda: 64 << 30,
            max_memory_allocated=lambda: 321,
        )
        patch(
            paddle.version,
            cuda_archs=lambda: list(build.architectures),
            cuda=lambda: "13.0",
            xpu_xre=lambda: "5.0",
        )
        # What decides which place and which backend the ranks get is Paddle's own; what that leads to is recorded.
        patch(
            core,
            CPUPlace=lambda: Place("cpu"),
            CUDAPlace=lambda index: Place("gpu", index),
            XPUPlace=lambda index: Place("xpu", index),
            create_or_get_global_tcp_store=lambda: None,
            CommContextManager=SimpleNamespace(set_device_id=lambda index: None),
        )
        patch(
            parallel,
            _global_parallel_env=None,
            _set_expected_place=lambda place: setattr(build, "place", place),
            _new_process_group_impl=lambda backend, *_, **__: build.backends.append(backend),
            _set_default_store=lambda store: None,
            _set_default_backend=lambda backend: None,
            _get_group_map_by_name=lambda: {},
            _set_group_map_by_name=lambda *_: None,
            _set_group_map=lambda *_: None,
            _set_group_map_backend=lambda *_: None,
            _add_new_group=lambda group: None,
            Group=lambda *_, **__: None,
        )
        patch(parallel.parallel_helper, _set_parallel_ctx=lambda is_set: None)
        patch(topology, message2nccl_config=lambda *_: None)
        tracer = Tracer(build)
        patch(auto_cast, _dygraph_tracer=lambda: tracer, _current_expected_place=lambda: build.place)
        patch(core, XPUVersion=Generation, get_xpu_device_version=lambda index: build.generation)
        monkeypatch.setattr(device, "tune_cpu", lambda: None)
        return build

    return install


@pytest.fixture
def second_of_two_ranks(monkeypatch):
    """What the launcher tells the second of two processes, on either kind of card."""
    endpoints = "127.0.0.1:5001,127.0.0.1:5002"
    told = {
        "PADDLE_TRAINER_ID": "1",
        "PADDLE_TRAINERS_NUM": "2",
        "PADDLE_CURRENT_ENDPOINT": "127.0.0.1:5002",
        "PADDLE_TRAINER_ENDPOINTS": endpoints,
        "PADDLE_MASTER": "127.0.0.1:5000",
        "FLAGS_selected_gpus": "1",
        "FLAGS_selected_xpus": "1",
    }
    return lambda: [monkeypatch.setenv(name, value) for name, value in told.items()]


@pytest.mark.parametrize("num_ranks", [1, 2])
@pytest.mark.parametrize(
    ("kind", "requested", "taken"),
    [
        ("gpu", "gpu", "gpu"),
        ("gpu", None, "gpu"),
        ("gpu", "cpu", "cpu"),
        ("xpu", "xpu", "xpu"),
        ("xpu", None, "cpu"),
        ("xpu", "cpu", "cpu"),
    ],
)
def test_device_and_backend(install, second_of_two_ranks, capsys, kind, requested, taken, num_ranks):
    build = install(kind)
    if num_ranks == 2:
        second_of_two_ranks()
    assert device.set_device(requested) == str(build.place) == str(Place(taken, num_ranks - 1))
    assert build.backends == [BACKENDS.get(taken, "gloo")] * (num_ranks - 1)
    assert capsys.readouterr().err == ""


def test_another_device_than_asked_for_is_refused(install, second_of_two_ranks, monkeypatch):
    install("gpu")
    second_of_two_ranks()
    monkeypatch.setenv("PADDLE_DISTRI_BACKEND", "gloo")
    with pytest.raises(UserError, match="^--device gpu: PaddlePaddle computes on cpu instead of gpu:1; unset PADDLE_"):
        device.set_device("gpu")


@pytest.mark.parametrize(
    ("kind", "requested", "line"),
    [
        ("xpu", "gpu", "is built without gpu support; bash scripts/setup_env.sh --cuda installs one"),
        ("gpu", "xpu", "is built without xpu support; install paddlepaddle-xpu, "),
    ],
)
def test_a_card_of_another_kind_is_told_with_its_own_remedy(install, kind, requested, line):
    install(kind)
    with pytest.raises(UserError, match=f"^--device {requested}: .*{line}.* or pass --device cpu$"):
        device.set_device(requested)


@pytest.mark.parametrize("value", ["", "-1", "NoDevFiles"])
def test_hidden_gpus_are_none(install, monkeypatch, value):
    install("gpu")
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: pytest.fail("CUDA ends with an error here"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert device.set_device(None) == "cpu"
    with pytest.raises(UserError, match="no card is visible; check CUDA_VISIBLE_DEVICES, or pass --device cpu"):
        device.set_device("gpu")


def test_no_xpu_names_its_own_variable(install, monkeypatch):
    install("xpu")
    monkeypatch.setattr(paddle.device.xpu, "device_count", lambda: 0)
    with pytest.raises(UserError, match="no card is visible; check XPU_VISIBLE_DEVICES"):
        device.set_device("xpu")


@pytest.mark.parametrize("requested", [None, "gpu"])
def test_a_driver_that_does_not_work_is_one_line(install, monkeypatch, requested):
    def device_count():
        raise OSError(
            "(External) CUDA error(35), CUDA driver version is insufficient for CUDA runtime version. \n[Hint]"
        )

    install("gpu")
    monkeypatch.setattr(paddle.device.cuda, "device_count", device_count)
    with pytest.raises(UserError, match=r"cannot use a gpu here \(.*driver version is insuff.*\); see what nvidia-smi"):
        device.set_device(requested)
    assert device.set_device("cpu") == "cpu"


@pytest.mark.parametrize(
    ("capability", "architectures", "remedy"),
    [
        ((7, 0), (75, 80, 86, 90, 100, 120), "for CUDA 12.6 or 11.8 as README.md says, or pass --device cpu"),
        ((12, 0), (61, 70, 75, 80, 90), "for CUDA 12.9 as README.md says, or pass --device cpu"),  # 13.0 is there
        ((6, 0), (61, 70), "for CUDA 12.6 or 11.8"),
        ((14, 0), (75, 80), "it needs another build, or pass --device cpu"),
        ((8, 6), (70, 80), None),
        ((8, 9), (75, 80, 86), None),
        ((7, 0), (), None),
    ],
)
def test_a_gpu_that_the_build_has_no_code_for(install, capability, architectures, remedy):
    build = install("gpu", capability=capability, architectures=architectures)
    if remedy is None:
        assert device.set_device("gpu") == "gpu:0"
        return
    with pytest.raises(UserError) as caught:
        device.set_device("gpu")
    major, minor = capability
    assert f"NVIDIA Test has compute capability {major}.{minor}, but the installed" in str(caught.value)
    assert str(caught.value).endswith(remedy) or remedy in str(caught.value)
    assert str(build.place) == "cpu"  # nothing was tried


@pytest.mark.parametrize(
    ("kind", "properties", "able"),
    [
        ("gpu", {"capability": (6, 1)}, {"fp32"}),
        ("gpu", {"capability": (7, 0)}, {"fp32", "fp16"}),
        ("gpu", {"capability": (8, 0)}, {"fp32", "tf32", "bf16", "fp16"}),
        ("xpu", {"generation": Generation.XPU2}, {"fp32", "fp16"}),
        ("xpu", {"generation": Generation.XPU3}, {"fp32", "bf16", "fp16"}),
    ],
)
def test_precisions_are_those_that_products_come_out_in(install, monkeypatch, kind, properties, able):
    build = install(kind, **properties)
    device.set_device(kind)
    product = paddle.Tensor.__matmul__

    def as_auto_cast_says(one: paddle.Tensor, other: paddle.Tensor) -> paddle.Tensor:
        """The CPU's kernels take no notice of it."""
        tracer, result = auto_cast._dygraph_tracer(), product(one, other)
        return result.astype(tracer._amp_dtype) if tracer._amp_level == core.AmpLevel.O1 else result

    monkeypatch.setattr(paddle.Tensor, "__matmul__", as_auto_cast_says)
    for precision in ("fp32", "tf32", "bf16", "fp16"):
        if precision in able:
            device.require_precision(precision)
            continue
        others = " or ".join(name for name in ("fp32", "tf32", "bf16", "fp16") if name in able)
        with pytest.raises(UserError, match=f"^--precision {precision}: {kind}:0 cannot compute .*; pass {others}$"):
            device.require_precision(precision)
    assert build.flags == ({flag: True for flag in device._TF32_FLAGS} if "tf32" in able else {})


def test_a_build_without_the_flags_has_no_tf32(install, monkeypatch):
    def get_flags(names):
        raise ValueError(f"Flag {names} cannot get its value through this function.")

    install("gpu")
    device.set_device("gpu")
    monkeypatch.setattr(paddle, "get_flags", get_flags)
    with pytest.raises(UserError, match="^--precision tf32: gpu:0 cannot compute with it; pass fp32"):
        device.require_precision("tf32")


def test_the_log_says_which_arithmetic_is_in_force(install, monkeypatch, caplog):
    caplog.set_level("INFO", "clue_utils")
    build = install("gpu")
    device.start("gpu", "fp32")
    device.start("gpu", "tf32")
    build.flags["FLAGS_cublas_allow_tf32"] = True
    device.start(None, "fp32")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    device.start(None, "fp32")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    device.start(None, "fp32")
    build.capability = (7, 0)  # knows no TF32
    device.start(None, "fp32")
    assert [record.message for record in caplog.records] == [
        "device: gpu:0 (--device), fp32",
        "device: gpu:0 (--device), tf32",
        "device: gpu:0 (chosen), fp32 with products in TF32, as FLAGS_cublas_allow_tf32 says",
        "device: gpu:0 (chosen), fp32",
        "device: gpu:0 (chosen), fp32 with products in TF32, as NVIDIA_TF32_OVERRIDE says",
        "device: gpu:0 (chosen), fp32",
    ]


def test_tf32_that_the_environment_turns_off_is_refused(install, monkeypatch):
    install("gpu")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    with pytest.raises(UserError, match="^--precision tf32: NVIDIA_TF32_OVERRIDE=0 turns it off; unset that$"):
        device.start("gpu", "tf32")


def test_proxies_come_back_once_the_ranks_have_found_each_other(install, second_of_two_ranks, monkeypatch):
    install("gpu")
    second_of_two_ranks()
    seen = []
    monkeypatch.setattr(parallel, "_new_process_group_impl", lambda *_, **__: seen.append("https_proxy" in os.environ))
    monkeypatch.setenv("https_proxy_original", "http://proxy:1")
    device.start("gpu", "fp32")
    assert seen == [False] and os.environ["https_proxy"] == "http://proxy:1"


def test_a_gpu_that_the_installed_build_cannot_use_is_told_once(monkeypatch, caplog):
    monkeypatch.setattr(environment, "has_gpu", lambda: True)
    device.start("cpu", "fp32")
    assert not caplog.records
    device.start(None, "fp32")
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "there is a GPU, but the installed PaddlePaddle" in record.message


def test_memory_is_the_cards(install):
    build = install("gpu")
    assert device.card() is None and device.card_memory_bytes() == 0
    assert device.peak_memory_bytes() == environment.peak_memory_bytes()
    build.place = Place("gpu")
    assert device.peak_memory_bytes() == 123
    assert device.card() == {
        "name": "NVIDIA Test",
        "compute_capability": "8.0",
        "memory_bytes": 16 << 30,
        "cuda": "13.0",
        "cudnn": str(paddle.version.cudnn()),
        "nccl": str(paddle.version.nccl()),
    }
    build.place = Place("xpu")
    assert device.peak_memory_bytes() == 321 and device.card() == {"memory_bytes": 64 << 30, "xre": "5.0"}
