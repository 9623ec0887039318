"""Every log of an engine yields exactly its cause."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.doctor.rules.engine_logs import read_log
from tests.unit.doctor.record import LOGS, SCENARIOS

TRACE = ["Traceback (most recent call last):", '  File "/opt/vllm/x.py", line 1, in <module>']
LAST = ["(APIServer pid=7) RuntimeError: Engine core initialization failed. See root cause above. "
        "Failed core proc(s): {}"]  # fmt: skip
SERVED = ["(APIServer pid=7) INFO:     Application startup complete."]

# Where the words are from: vLLM unless another project is named.
TEXTS: dict[str, tuple[str, str]] = {
    # v1/core/kv_cache_utils.py
    "kv cache": ("kv-cache-too-small",
        "ValueError: To serve at least one request with the models's max seq len (131072), (16.00 "
        "GiB KV cache is needed, which is larger than the available KV cache memory (2.97 GiB). "
        "Based on the available memory, the estimated maximum model length is 24320. Try "
        "increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the "
        "engine."),
    "no blocks": ("no-memory-for-kv-cache",
        "ValueError: No available memory for the cache blocks. Try increasing "
        "`gpu_memory_utilization` when initializing the engine."),
    # v1/worker/utils.py
    "free memory": ("gpu-memory-taken",
        "ValueError: Free memory on device cuda:0 (6.32/79.11 GiB) on startup is less than desired "
        "GPU memory utilization (0.9, 71.2 GiB). Decrease GPU memory utilization or reduce GPU "
        "memory used by other processes."),
    # PyTorch, c10/cuda/CUDACachingAllocator.cpp
    "oom": ("cuda-out-of-memory-at-load",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total "
        "capacity of 79.25 GiB of which 1.10 GiB is free. Including non-PyTorch memory, this "
        "process has 78.14 GiB memory in use."),
    # v1/worker/gpu_model_runner.py
    "oom warming up": ("cuda-out-of-memory-at-load",
        "RuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy "
        "requests. Please try lowering `max_num_seqs` or `gpu_memory_utilization` when "
        "initializing the engine."),
    # PyTorch, torch/cuda/__init__.py
    "no gpus": ("engine-sees-no-gpu", "RuntimeError: No CUDA GPUs are available"),
    "no driver": ("engine-sees-no-gpu",
        "RuntimeError: Found no NVIDIA driver on your system. Please check that you have an NVIDIA "
        "GPU and installed a driver from http://www.nvidia.com/Download/index.aspx"),
    "old driver": ("driver-too-old-for-cuda",
        "RuntimeError: The NVIDIA driver on your system is too old (found version 12020). Please "
        "update your GPU driver"),
    "802": ("cuda-not-initialized",
        "RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions "
        "before calling NumCudaDevices() that might have already set an error? Error 802: system "
        "not yet initialized"),
    "803": ("cuda-not-initialized",
        "UserWarning: CUDA initialization: Unexpected error from cudaGetDeviceCount(). Error 803: "
        "system has unsupported display driver / cuda driver combination"),
    "ordinal": ("too-few-gpus", "RuntimeError: CUDA error: invalid device ordinal"),
    "illegal": ("engine-kernel-fault",
        "RuntimeError: CUDA error: an illegal memory access was encountered"),
    "ecc": ("gpu-failed-under-engine",
        "RuntimeError: CUDA error: uncorrectable ECC error encountered"),
    # config/parallel.py
    "world": ("too-few-gpus",
        "  Value error, World size (4) is larger than the number of available GPUs (2) in this "
        "node. If this is intentional and you are using:"),
    "heads": ("tensor-parallel-not-divisible",
        "  Value error, Total number of attention heads (14) must be divisible by tensor parallel "
        "size (4). [type=value_error, input_value=ArgsKwargs]"),
    # platforms/cuda.py
    "bfloat16": ("gpu-capability-too-low",
        "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. "
        "Your Tesla T4 GPU has compute capability 7.5. You can use float16 instead by explicitly "
        "setting the `dtype` flag in CLI, for example: --dtype=half."),
    # config/vllm.py
    "awq on volta": ("gpu-capability-too-low",
        "ValueError: The quantization method awq is not supported for the current GPU. Minimum "
        "capability: 75. Current capability: 70."),
    "image": ("gpu-capability-too-low",
        "RuntimeError: CUDA error: no kernel image is available for execution on the device"),
    "mismatch": ("quantization-wrong",
        "  Value error, Quantization method specified in the model config (compressed-tensors) "
        "does not match the quantization method specified in the `quantization` argument (awq)."),
    # FlashInfer, jit/cpp_ext.py
    "nvcc": ("cuda-toolkit-missing",
        "RuntimeError: Could not find nvcc and default cuda_home='/usr/local/cuda' doesn't exist"),
    # Triton, runtime/build.py
    "cc": ("cuda-toolkit-missing",
        "RuntimeError: Failed to find C compiler. Please specify via CC environment variable or "
        "set triton.knobs.build.impl."),
    "ninja": ("cuda-toolkit-missing",
        "FileNotFoundError: [Errno 2] No such file or directory: 'ninja'"),
    # huggingface_hub, utils/_http.py
    "gated": ("model-access-refused",
        "huggingface_hub.errors.GatedRepoError: 401 Client Error. (Request ID: Root=1-a)  Cannot "
        "access gated repo for url https://huggingface.co/meta-llama/Llama-3.1-70B/resolve/main/"
        "config.json. Access to model meta-llama/Llama-3.1-70B is restricted."),
    "revision": ("model-revision-not-found",
        "huggingface_hub.errors.RevisionNotFoundError: 404 Client Error. Revision Not Found for "
        "url: https://huggingface.co/Qwen/Qwen2.5-7B/resolve/deadbeef/config.json."),
    # transformers, dynamic_module_utils.py
    "trust": ("model-needs-trust",
        "ValueError: The repository /srv/models/demo/1 contains custom code which must be executed "
        "to correctly load the model. Please pass the argument `trust_remote_code=True`"),
    # PyTorch, torch/utils/data and ATen
    "shm": ("engine-shared-memory",
        "RuntimeError: DataLoader worker is killed by signal: Bus error. It is possible that "
        "dataloader's workers are out of shared memory. insufficient shared memory (shm)"),
    "nccl": ("gpus-cannot-talk",
        "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:3356, unhandled "
        "cuda error, NCCL version 2.27.5"),
    "disk": ("engine-disk-full", "OSError: [Errno 28] No space left on device"),
    # v1/executor/multiproc_executor.py
    "rpc": ("engine-worker-hung", "TimeoutError: RPC call to execute_model timed out."),
    # systemd, src/core/service.c
    "oom kill": ("engine-host-memory",
        "engine@demo-blue.service: A process of this unit has been killed by the OOM killer."),
    "start timeout": ("engine-start-timed-out",
        "engine@demo-blue.service: start operation timed out. Terminating."),
    "killed": ("engine-killed",
        "engine@demo-blue.service: Main process exited, code=killed, status=9/KILL"),
    "libcuda": ("engine-library-missing",
        "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory"),
    "unknown": ("engine-failed", "KeyError: 'model.layers.0.mixer'"),
}  # fmt: skip


def recorded(name: str) -> list[str]:
    return (LOGS / f"{name}.txt").read_text().splitlines()


def test_every_scenario_is_recorded() -> None:
    assert {path.stem for path in LOGS.glob("*.txt")} == set(SCENARIOS)


@pytest.mark.parametrize("path", sorted(LOGS.glob("*.txt")), ids=lambda path: path.stem)
def test_a_recorded_log_yields_its_cause(path: Path) -> None:
    told = read_log(recorded(path.stem))
    assert (told.case.name if told else "") == SCENARIOS[path.stem].case, told


@pytest.mark.parametrize("name", TEXTS)
def test_what_only_a_gpu_or_a_hub_writes_yields_its_cause(name: str) -> None:
    case, text = TEXTS[name]
    told = read_log([*TRACE, text, *LAST])
    assert told is not None
    assert told.case.name == case
    assert told.line == text if case != "engine-failed" else told.line in text
    finding = told.case.found("gpu1", "engine@demo-blue.service", told.line, **told.values)
    assert not any("{" in t for t in (finding.symptom, finding.cause)), finding


def test_memory_that_ends_while_serving_is_another_case_than_at_load() -> None:
    told = read_log([*SERVED, *TRACE, TEXTS["oom"][1], *LAST])
    assert told is not None
    assert (told.case.name, told.values) == ("cuda-out-of-memory-at-run", {"tried": "2.00 GiB"})


def test_what_a_log_names_is_in_the_symptom_and_the_cure() -> None:
    told = read_log([TEXTS["kv cache"][1]])
    assert told is not None
    found = told.case.found("gpu1", "engine@demo-blue.service", told.line, **told.values)
    assert "131072 tokens (needs 16.00 GiB, has 2.97 GiB)" in found.symptom
    assert "24320 or less" in found.cure


def test_lines_that_only_inform_are_no_cause() -> None:
    assert read_log(["INFO 11-26 10:00:00 [a.py:1] Retrying after: CUDA out of memory. x"]) is None
    assert read_log([]) is None
