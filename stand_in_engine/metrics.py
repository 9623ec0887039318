"""vLLM's metrics with vLLM's names, labels and buckets, and true values."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LATENCY = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920)
FIRST_TOKEN = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
BETWEEN_TOKENS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
ITERATION = tuple(2**power for power in (0, *range(3, 15)))
REASONS = ("stop", "length", "abort", "error", "repetition")
WAITING_FOR = ("capacity", "deferred")


class Metrics:
    """One engine's metrics in a registry of their own.

    Args:
        model: The served name, label `model_name` of every metric.
        max_model_len: Tokens; it bounds the buckets of token counts.
    """

    def __init__(self, model: str, max_model_len: int) -> None:
        self.registry = CollectorRegistry()
        self._labels = {"model_name": model, "engine": "0"}
        sizes = _one_two_five(max_model_len)
        self.running = self._gauge("num_requests_running", "Requests in execution.")
        self.waiting = self._gauge("num_requests_waiting", "Requests waiting to be processed.")
        by_reason = Gauge(
            "vllm:num_requests_waiting_by_reason",
            "Requests waiting, by what for.",
            [*self._labels, "reason"],
            registry=self.registry,
        )
        self.waiting_for = {r: by_reason.labels(**self._labels, reason=r) for r in WAITING_FOR}
        self.cache_usage = self._gauge("kv_cache_usage_perc", "KV cache in use, 1 is all of it.")
        self.prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts.")
        self.generation_tokens = self._counter("generation_tokens", "Tokens generated.")
        self._counter("prefix_cache_queries", "Tokens looked up in the prefix cache.")
        self._counter("prefix_cache_hits", "Tokens found in the prefix cache.")
        self.preemptions = self._counter("num_preemptions", "Preemptions.")
        finished = Counter(
            "vllm:request_success",
            "Requests done, by how they ended.",
            [*self._labels, "finished_reason"],
            registry=self.registry,
        )
        self.finished = {r: finished.labels(**self._labels, finished_reason=r) for r in REASONS}
        self.first_token = self._times("time_to_first_token_seconds", FIRST_TOKEN)
        self.between_tokens = self._times("inter_token_latency_seconds", BETWEEN_TOKENS)
        self.per_token = self._times("request_time_per_output_token_seconds", BETWEEN_TOKENS)
        self.whole = self._times("e2e_request_latency_seconds", LATENCY)
        self.queued = self._times("request_queue_time_seconds", LATENCY)
        self.inference = self._times("request_inference_time_seconds", LATENCY)
        self.prefill = self._times("request_prefill_time_seconds", LATENCY)
        self.decode = self._times("request_decode_time_seconds", LATENCY)
        self.iteration = self._times("iteration_tokens_total", ITERATION)
        self.prompt_size = self._times("request_prompt_tokens", sizes)
        self.generation_size = self._times("request_generation_tokens", sizes)
        self.asked_size = self._times("request_params_max_tokens", sizes)
        self.asked_n = self._times("request_params_n", (1, 2, 5, 10, 20))

    def _gauge(self, name: str, text: str) -> Gauge:
        labels = [*self._labels]
        return Gauge(f"vllm:{name}", text, labels, registry=self.registry).labels(**self._labels)

    def _counter(self, name: str, text: str) -> Counter:
        labels = [*self._labels]
        return Counter(f"vllm:{name}", text, labels, registry=self.registry).labels(**self._labels)

    def _times(self, name: str, buckets: tuple[float, ...]) -> Histogram:
        text = f"Histogram of {name.replace('_', ' ')}."
        return Histogram(
            f"vllm:{name}", text, [*self._labels], buckets=buckets, registry=self.registry
        ).labels(**self._labels)


def _one_two_five(largest: int) -> tuple[float, ...]:
    """1, 2, 5, 10, 20, 50 … up to `largest`, as vLLM's buckets of token counts."""
    sizes = (digit * 10**power for power in range(12) for digit in (1, 2, 5))
    return tuple(float(size) for size in sizes if size <= largest)
