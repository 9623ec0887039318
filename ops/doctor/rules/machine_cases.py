"""What an engine's log says of GPUs, memory, tools and the machine.

The lines are those of vLLM 0.18 to 0.33, PyTorch, FlashInfer, Triton, NCCL and systemd; see
`model_cases.py` for where they are from.
"""

from __future__ import annotations

from ops.doctor.finding import CRITICAL, WARNING, Case
from ops.doctor.rules.model_cases import APPLY

DRIVER_OLD = Case(
    "driver-too-old-for-cuda", CRITICAL,
    "the driver is too old for this vLLM's CUDA",
    "each vLLM is built for one CUDA, and that wants a driver of at least its time",
    "ops driver upgrade --limit {host} --to 580   (CUDA 12: 525 or later, CUDA 13: 580 or later)",
    (r"NVIDIA driver on your system is too old",
     r"CUDA driver version is insufficient for CUDA runtime version",
     r"forward compatibility was attempted on non supported HW",
     r"the provided PTX was compiled with an unsupported toolchain"),
)  # fmt: skip
CUDA_INIT = Case(
    "cuda-not-initialized", CRITICAL,
    "CUDA does not start in the engine",
    "Fabric Manager is not up (error 802), libraries and driver differ (803), or a device node is "
    "missing",
    "ops doctor {host} names which above; then ops restart host {host}",
    (r"Error 80[234]: ", r"system not yet initialized",
     r"unsupported display driver / cuda driver combination",
     r"CUDA unknown error - this may be due to", r"Driver/library version mismatch"),
)  # fmt: skip
NO_DEVICE = Case(
    "engine-sees-no-gpu", CRITICAL,
    "the engine finds no GPU",
    "no driver, no access to /dev/nvidia*, gpus of another host in the inventory, or a vLLM built "
    "for another device",
    "ops doctor {host} names a driver's fault above; none there? look at gpus of the model, then "
    + APPLY,
    (r"Failed to infer device type", r"No CUDA GPUs are available",
     r"Found no NVIDIA driver on your system", r"no CUDA-capable device is detected",
     r"Torch not compiled with CUDA enabled"),
)  # fmt: skip
GPU_BROKE = Case(
    "gpu-failed-under-engine", CRITICAL,
    "the GPU failed under the engine: {what}",
    "its hardware or its link, not the model: the kernel log has an XID",
    "ops doctor {host} names the GPU; ops restart host {host}",
    (r"(?P<what>uncorrectable (?:ECC|NVLink) error)", r"(?P<what>GPU is lost)",
     r"(?P<what>GPU has fallen off the bus)", r"CUDA error: (?P<what>unspecified launch failure)",
     r"CUDA error: (?P<what>hardware stack error)"),
)  # fmt: skip
FREE_MEMORY = Case(
    "gpu-memory-taken", CRITICAL,
    "the GPU has {free} GiB free, the engine asks for {wanted}",
    "another process or engine has the rest; gpu_memory_utilization is a share of all memory, per "
    "engine",
    "ops doctor {host} names who holds it (gpu-memory-orphaned); else lower "
    "gpu_memory_utilization, then " + APPLY,
    (r"Free memory on device[^(]*\((?P<free>[\d.]+)/[\d.]+ GiB\) on startup is less than desired "
     r"GPU memory utilization \([\d.]+, (?P<wanted>[\d.]+ GiB)",
     r"Error in memory profiling\. Initial free memory"),
)  # fmt: skip
KV_CACHE = Case(
    "kv-cache-too-small", CRITICAL,
    "the KV cache is too small for one request of {asked} tokens (needs {needs}, has {has})",
    "beside the weights the memory that is left holds fewer tokens than max_model_len",
    "set max_model_len to {most} or less, or raise gpu_memory_utilization (on a CPU "
    "engine_cpu_kvcache_gb), or tensor_parallel; then " + APPLY,
    (r"max seq len \((?P<asked>\d+)\), \(?(?P<needs>[\d.]+ [GM]i?B) KV cache is ?needed, which is "
     r"larger than the available KV [cC]ache memory \((?P<has>[\d.]+ [GM]i?B)\)"
     r"(?:[\s\S]{0,120}?estimated maximum model length is (?P<most>\d+))?",
     r"max seq len \((?P<asked>\d+)\) is larger than the maximum number of tokens that can be "
     r"stored in KV cache \((?P<most>\d+)\)"),
)  # fmt: skip
NO_CACHE = Case(
    "no-memory-for-kv-cache",
    CRITICAL,
    "nothing is left for the KV cache once the weights are loaded",
    "the model does not fit this GPU at this share of its memory",
    "raise gpu_memory_utilization, use tensor_parallel or a quantized model (ops fit MODEL --gpu "
    "GPU says which), then " + APPLY,
    (r"No available memory for the cache blocks",),
)
OOM_PATTERNS = (
    r"CUDA out of memory\. Tried to allocate (?P<tried>[\d.]+ [GMK]iB)",
    r"CUDA out of memory occurred when warming up", r"torch\.(?:cuda\.)?OutOfMemoryError",
    r"CUDA error: out of memory", r"CUBLAS_STATUS_ALLOC_FAILED", r"CUDA_ERROR_OUT_OF_MEMORY",
)  # fmt: skip
OOM_RUN = Case(
    "cuda-out-of-memory-at-run",
    CRITICAL,
    "CUDA ran out of memory while serving ({tried} more were asked for)",
    "gpu_memory_utilization leaves too little beside the KV cache for long prompts, or something "
    "else took memory meanwhile",
    "lower gpu_memory_utilization by 0.05, or --max-num-batched-tokens and --max-num-seqs, then "
    + APPLY,
)
OOM_LOAD = Case(
    "cuda-out-of-memory-at-load",
    CRITICAL,
    "CUDA ran out of memory while loading ({tried} more were asked for)",
    "the weights and the start-up's own buffers do not fit the GPU, or something else holds memory",
    "ops fit MODEL --gpu GPU says what fits: tensor_parallel, quantization, fewer --max-num-seqs; "
    "held by others: ops doctor {host}",
)
HOST_MEMORY = Case(
    "engine-host-memory", CRITICAL,
    "the engine was short of the host's memory",
    "loading wants about 1.5 times the weights; or the unit's MemoryMax is lower than that",
    "raise engine_memory_max, lower engine_cpu_kvcache_gb (on a CPU), or add memory, then "
    + APPLY,
    (r"killed by the OOM killer", r"Failed with result 'oom-kill'",
     r"DefaultCPUAllocator: (?:can't|not enough) .*memory",
     r"^(?:\S+ )*MemoryError", r"Cannot allocate memory",
     r"Not enough available memory for CPU KV",
     r"[Aa]vailable memory on node \d+ .* is less than (?:desired|requested)",
     r"VLLM_CPU_KVCACHE_SPACE.*(?:too large|exceed|larger)"),
)  # fmt: skip
KERNEL_FAULT = Case(
    "engine-kernel-fault", CRITICAL,
    "a kernel of the engine crashed on the GPU: {what}",
    "a fault of vLLM or of the model's kernels, as a rule; a GPU that does it with all models is "
    "broken",
    "ops restart engine --limit {host}; again? --enforce-eager in extra_args, or another vLLM "
    "(ops model upgrade)",
    (r"CUDA error: (?P<what>an illegal memory access was encountered)",
     r"CUDA error: (?P<what>device-side assert triggered)",
     r"CUDA error: (?P<what>an illegal instruction was encountered)",
     r"(?P<what>CUBLAS_STATUS_\w+) when calling"),
)  # fmt: skip
SHARED_MEMORY = Case(
    "engine-shared-memory", CRITICAL,
    "the engine's workers ran out of shared memory",
    "the file system that holds it (/dev/shm) is too small for tensors between processes",
    "mount -o remount,size=50% /dev/shm, then ops restart engine --limit {host}",
    (r"insufficient shared memory \(shm\)", r"No space left on device.*/dev/shm",
     r"dev/shm.*No space left on device", r"Bus error", r"status=7/BUS",
     r"unable to mmap \d+ bytes from file </"),
)  # fmt: skip
NO_SPACE = Case(
    "engine-disk-full", CRITICAL,
    "the engine could not write: the disk is full",
    "its compile cache, its state or /tmp has no room",
    "ops doctor {host} names the disk (disk-filling) and what fills it",
    (r"No space left on device", r"Disk quota exceeded"),
)  # fmt: skip
TOOLKIT = Case(
    "cuda-toolkit-missing", CRITICAL,
    "the engine wants to compile a kernel and has no {tool}",
    "some kernels (FlashInfer, Triton, DeepGEMM) are compiled at the first start, by CUDA's "
    "toolkit or a C compiler",
    "set cuda_toolkit_version (\"12-9\" or \"13-0\", as vLLM's CUDA), then ops provision --tags "
    "cuda,engine --limit {host}; or environment: {{VLLM_USE_FLASHINFER_SAMPLER: \"0\"}} in the "
    "model's entry",
    (r"Could not find (?P<tool>nvcc)", r"(?P<tool>CUDA_HOME) environment variable is not set",
     r"No such file or directory: '[^']*(?P<tool>nvcc|ptxas|ninja|gcc|cc|c\+\+|g\+\+)'",
     r"Cannot find (?P<tool>ptxas)", r"(?P<tool>ptxas) (?:fatal|not found)",
     r"Failed to find (?P<tool>C compiler)", r"InvalidCxxCompiler: .*(?P<tool>C\+\+ compiler)",
     r"InvalidCxxCompiler", r"(?P<tool>ninja): (?:command )?not found",
     r"Ninja is required to load C\+\+ extensions", r"fatal error: (?P<tool>Python\.h)",
     r"(?P<tool>nvcc): (?:command )?not found", r"PTXASError"),
)  # fmt: skip
LIBRARY_MISSING = Case(
    "engine-library-missing", CRITICAL,
    "the engine's program does not load: {library}",
    "a library that it was built against is missing on the host, or is of another version",
    "ops provision --tags engine --limit {host}; still so: rm -r /opt/vllm/VERSION, then again",
    (r"ImportError: (?P<library>lib[\w.+-]+): cannot open shared object file",
     r"ImportError: \S*?(?P<library>[\w.+-]+\.so[\w.]*): undefined symbol",
     r"(?P<library>operator torchvision::nms does not exist)",
     r"ModuleNotFoundError: No module named (?P<library>'[\w.]+')"),
)  # fmt: skip
PERMISSION = Case(
    "engine-permission", CRITICAL,
    "the engine may not read or write {path}",
    "a file belongs to somebody else: staged or started by hand, as root",
    "ops provision --tags engine --limit {host}; or: chown -R root:engine and chmod -R g+rX it",
    (r"PermissionError: \[Errno 13\] Permission denied: '(?P<path>[^']+)'",
     r"Permission denied: '?(?P<path>/srv/models[^'\s]*)"),
)  # fmt: skip
PORT = Case(
    "engine-port-taken", CRITICAL,
    "the engine's port is in use",
    "another process listens there: an engine started by hand, or one that did not end",
    "ss -ltnp names it; end it, then systemctl restart {subject}",
    (r"Address already in use", r"error while attempting to bind on address"),
)  # fmt: skip
NCCL = Case(
    "gpus-cannot-talk", CRITICAL,
    "the engine's GPUs do not reach one another",
    "NVLink, PCIe peer access, /dev/shm or the network between them: {what}",
    "nvidia-smi topo -m; environment: {{NCCL_DEBUG: INFO}} tells more; NCCL_P2P_DISABLE=1 goes "
    "round a bad link",
    (r"(?P<what>NCCL error[^\n]{0,120})", r"(?P<what>ncclUnhandledCudaError|ncclSystemError|"
     r"ncclInternalError)", r"(?P<what>custom_all_reduce\.cuh:\d+ '[^']+')",
     r"(?P<what>NVLink.*not (?:connected|supported))"),
)  # fmt: skip
HUNG = Case(
    "engine-worker-hung", CRITICAL,
    "the engine's core stopped answering",
    "a kernel or a link between GPUs hangs: the engine waited for it in vain",
    "ops restart engine --limit {host}; ops doctor {host} names a GPU that failed",
    (r"RPC call to \w+ timed out", r"No available shared memory broadcast block found",
     r"Watchdog caught collective operation timeout", r"sample_tokens.*timed out"),
)  # fmt: skip
KV_GIB = Case(
    "engine-setting-invalid", CRITICAL,
    "the engine refuses a setting: {what}",
    "a variable of its environment, or a combination of flags, is not allowed",
    "mend the model's entry (extra_args, environment), then " + APPLY,
    (r"ValueError: (?P<what>invalid literal for int\(\) with base 10: '[^']*')",
     r"(?P<what>--enable-auto-tool-choice requires --tool-call-parser)",
     r"Value error, (?P<what>[^\n\[]{10,200})",
     r"(?P<what>\w+ must be (?:greater|less|positive|at least|in)[^\n]{0,120})"),
)  # fmt: skip
TIMEOUT = Case(
    "engine-start-timed-out", CRITICAL,
    "the engine did not become ready in time",
    "loading takes longer than its time-out: slow disk, large model, first compilation",
    "raise engine_start_timeout_s, and look at the disk (ops doctor {host}); then " + APPLY,
    (r"start operation timed out", r"Failed with result 'timeout'",
     r"Timed out waiting for engine", r"did not (?:start|respond|become ready) (?:with)?in \d+",
     r"TimeoutError: .*engine"),
)  # fmt: skip
KILLED = Case(
    "engine-killed",
    WARNING,
    "the engine was killed by a signal ({signal})",
    "neither the kernel's memory nor systemd's limits: somebody or something killed it",
    "journalctl -b -u {subject} and last -x tell who was there; it restarts by itself",
    (r"code=(?:killed|dumped), status=\d+/(?P<signal>KILL|SEGV|ABRT|BUS|ILL)",),
)
UNKNOWN = Case(
    "engine-failed",
    CRITICAL,
    "the engine does not start or ends: {what}",
    "no cause that the doctor knows; its own last error says most",
    "journalctl -b -u {subject}; ops restart engine --limit {host} once it is mended",
)
TABLE: tuple[Case, ...] = (
    DRIVER_OLD, CUDA_INIT, NO_DEVICE, GPU_BROKE, FREE_MEMORY, KV_CACHE, NO_CACHE, OOM_RUN,
    OOM_LOAD, HOST_MEMORY, KERNEL_FAULT, SHARED_MEMORY, NO_SPACE, TOOLKIT, LIBRARY_MISSING,
    PERMISSION, PORT, NCCL, HUNG, KV_GIB, TIMEOUT, KILLED,
)  # fmt: skip
"""More exact causes first: what one of them breaks often breaks the later ones too."""
