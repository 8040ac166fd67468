"""What the check has computed, on the CPU: the project's own scripts, watched."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest


@pytest.fixture(scope="module")
def on_device(demo):
    from gpu_check import on_device

    return on_device


@pytest.fixture
def flags(few_examples):
    return ["--data_dir", few_examples, "--device", "cpu", "--max_seq_length", 16, "--batch_size", 4, "--num_proc", 1]


def test_products_tell_number_types_apart(on_device, monkeypatch):
    from gpu_check.precision import kind_of

    errors = on_device.product_errors("cpu", "fp32", 64)
    assert {kind_of(error) for error in errors.values()} == {"fp32"}

    def cut(values, bits):
        """Values with so many bits behind the leading one."""
        mantissa, exponent = np.frexp(values)
        return np.ldexp(np.round(mantissa * 2 ** (bits + 1)) / 2 ** (bits + 1), exponent)

    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((256, 256)) for _ in range(2))
    for bits, kind in ((23, "fp32"), (10, "TF32"), (7, "half")):
        off = cut(a, bits) @ cut(b, bits) - a @ b
        assert kind_of(np.sqrt(np.mean(off**2) / np.mean((a @ b) ** 2))) == kind


def test_updates_are_counted_and_what_comes_after_them(on_device, demo, tmp_path, flags):
    cost = on_device.updates("TNEWS", str(demo / "model"), str(tmp_path), flags, warm=1, steps=2, profiled=True)
    assert cost["records"] == 4 and 4 < cost["tokens"] <= 64
    assert cost["seconds"] >= cost["host_seconds"] > 0 and cost["evaluation"] > 0
    assert (cost["kernels"], cost["copies"], cost["waits"]) == (0, 0, 0)  # there is no card
    assert {path.name for path in tmp_path.iterdir()} >= {"result.json"}


def test_a_profile_is_counted_for_each_update(on_device):
    def call(name, *devices):
        done = [SimpleNamespace(type=f"TracerEventType.{kind}", start_ns=0, end_ns=ns) for kind, ns in devices]
        return SimpleNamespace(name=name, device_node=done)

    def node(*calls, children=()):
        return SimpleNamespace(runtime_node=list(calls), children_node=list(children))

    kernel = call("cudaLaunchKernel", ("Kernel", 3000))
    copy = call("cudaMemcpyAsync", ("Memcpy", 500))
    waiting = node(call("cudaStreamSynchronize"), call("cudaDeviceSynchronize"))
    trees = [node(kernel, children=[node(kernel, copy), waiting]), node(kernel)]
    found = on_device.profile_counts(trees, 2)
    assert found == {"kernels": 1.5, "copies": 0.5, "waits": 1.0, "kernel_seconds": 4.5e-6}


def test_a_run_goes_on_after_it_was_stopped(on_device, demo, tmp_path, flags):
    found = on_device.resumed_speed(str(demo / "model"), str(tmp_path), flags, steps=4)
    assert found["before"] > 0 and found["after"] > 0


def test_evaluation_that_does_not_fit_is_counted(on_device, demo, tmp_path, flags):
    model = str(tmp_path / "trained")
    on_device.train("TNEWS", str(demo / "model"), model, [*flags, "--max_steps", 1])
    evaluated = str(tmp_path / "evaluated")
    assert on_device.evaluate_limited("TNEWS", model, evaluated, flags, tokens=64) == 0
    assert on_device.evaluate_limited("TNEWS", model, evaluated, flags, tokens=32) == 1
    first, second = on_device.evaluate(model, str(tmp_path / "scores"), flags, [2, 8])
    np.testing.assert_allclose(first["logits"], second["logits"], atol=1e-5)


def test_a_batch_is_computed_in_as_many_parts_as_it_takes(on_device, demo, tmp_path, flags, monkeypatch):
    """The loop around a card's memory, with the CPU's in its place."""
    import paddle

    peaks = []
    for name in ("empty_cache", "reset_max_memory_allocated"):
        monkeypatch.setattr(paddle.device.cuda, name, lambda: peaks.append(1))
    model = str(demo / "model")
    with on_device.limited(tokens=2 * 96):
        more = [*flags, "--eval_batch_size", 2, "--overwrite_output_dir"]
        found = on_device.peaks({"TNEWS": 4, "CMRC2018": 4}, model, str(tmp_path), [*more, "--max_seq_length", 96])
    assert {name: answer["parts"] for name, answer in found.items()} == {"TNEWS": 1, "CMRC2018": 2}
    assert all(answer["update"] > 0 and answer["evaluation"] > 0 for answer in found.values())
    with on_device.limited(tokens=0):
        found = on_device.peaks({"TNEWS": 4}, model, str(tmp_path), more)
    assert "out of memory with one example" in found["TNEWS"]["error"]


def test_a_card_without_a_driver_has_no_uuid(on_device, monkeypatch):
    monkeypatch.setattr(on_device.ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    assert on_device.card_uuid(0) == ""


def test_a_uuid_is_written_as_nvidia_smi_does(on_device, monkeypatch):
    def get_uuid(found, handle):
        found[:] = range(16)
        return 0

    driver = SimpleNamespace(cuInit=lambda _: 0, cuDeviceGet=lambda *_: 0, cuDeviceGetUuid=get_uuid)
    monkeypatch.setattr(on_device.ctypes, "CDLL", lambda _: driver)
    assert on_device.card_uuid(0) == "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f"
    driver.cuInit = lambda _: 100  # CUDA_ERROR_NO_DEVICE
    assert on_device.card_uuid(0) == ""
