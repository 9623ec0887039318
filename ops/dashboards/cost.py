"""Cost: GPU hours, tokens and energy of the period, and what an API would have taken for them.

Money is what the prices say, which are variables: their defaults are round numbers to be replaced
by one's own, not quotes. All sums are of the period, hardware by time whether it worked or not.
"""

from ops.dashboards.headline import HOST
from ops.dashboards.panel import Dashboard, Job, Price, Row, graph, stat, table
from ops.dashboards.unit import COUNT, HOURS, KWH, MONEY, SHARE, WATTS

PRICES = (
    Price("price_kwh", "Price of a kWh", 0.30),
    Price("overhead", "Watts of host and cooling per watt of GPU, 1 is none", 1.5),
    Price("gpu_price", "Price of a GPU with its share of the server", 30000),
    Price("years", "Years over which it is written off", 3),
    Price("api_prompt", "API: price of a million tokens read", 0.50),
    Price("api_completion", "API: price of a million tokens written", 1.50),
)
NOBODY = "nobody asked in the period"
NO_ENERGY = "these GPUs count no energy"
HOURS_A_YEAR = 8766

# A sample a minute, so that a period with hours that nobody watched has no more hours than it had.
GPU_HOURS = f"sum(sum_over_time(gpu_present{{{HOST}}}[$__range:1m])) / 60"
BUSY_HOURS = f"sum(sum_over_time(gpu_utilization_ratio{{{HOST}}}[$__range:1m])) / 60"
ENERGY = f"sum(increase(gpu_energy_joules_total{{{HOST}}}[$__range])) / 3.6e6"
HARDWARE_HOUR = f"$gpu_price / ($years * {HOURS_A_YEAR})"
OWN = f"({GPU_HOURS}) * {HARDWARE_HOUR} + ({ENERGY}) * $overhead * $price_kwh"


def tokens(kind: str, function: str = "increase", window: str = "$__range") -> str:
    """Return tokens that own engines read (`prompt`) or wrote (`completion`)."""
    metric = "vllm:prompt_tokens_total" if kind == "prompt" else "vllm:generation_tokens_total"
    return f"sum({function}({metric}{{{HOST}}}[{window}]))"


API = f"{tokens('prompt')} / 1e6 * $api_prompt + {tokens('completion')} / 1e6 * $api_completion"

PERIOD = Row(
    "The period",
    (
        stat(
            "GPU hours",
            "Hours in which a GPU was there, working or not, over all GPUs.",
            Job.GPU,
            GPU_HOURS,
            unit=HOURS,
        ),
        stat(
            "GPU hours at work",
            "The same, weighted by how busy each was.",
            Job.GPU,
            BUSY_HOURS,
            unit=HOURS,
        ),
        stat(
            "Energy of the GPUs",
            "From the GPUs' own counters, without host and cooling.",
            Job.GPU,
            ENERGY,
            unit=KWH,
            optional=NO_ENERGY,
        ),
        stat(
            "Tokens read",
            "Of prompts, by own engines.",
            Job.ENGINE,
            tokens("prompt"),
        ),
        stat(
            "Tokens written",
            "By own engines.",
            Job.ENGINE,
            tokens("completion"),
        ),
        stat(
            "Tokens per watt-hour",
            "Written, by the GPUs' energy: how well the batches are filled.",
            Job.GPU,
            f"{tokens('completion')} / ({ENERGY}) / 1000",
            unit=COUNT,
            optional=NO_ENERGY,
        ),
    ),
)

COMPARED = Row(
    "Own hardware against an API",
    (
        stat(
            "Own hardware",
            "Hardware written off by the hour, and electricity with host and cooling.",
            Job.GPU,
            OWN,
            unit=MONEY,
            optional=NO_ENERGY,
        ),
        stat(
            "of which electricity",
            "Energy of the GPUs times the overhead and the price of a kWh.",
            Job.GPU,
            f"({ENERGY}) * $overhead * $price_kwh",
            unit=MONEY,
            optional=NO_ENERGY,
        ),
        stat(
            "The same tokens from an API",
            "At the prices per million tokens above.",
            Job.ENGINE,
            API,
            unit=MONEY,
        ),
        stat(
            "Own cost by the API's",
            "Below 100 % own hardware is the cheaper one.",
            Job.GPU,
            f"({OWN}) / ({API})",
            unit=SHARE,
            optional=NOBODY,
        ),
        stat(
            "Own cost of a million tokens",
            "Read and written together.",
            Job.GPU,
            f"({OWN}) / (({tokens('prompt')} + {tokens('completion')}) / 1e6)",
            unit=MONEY,
            optional=NOBODY,
        ),
        stat(
            "Clouds' bills",
            "What answers of clouds cost in the period, by the app's configuration.",
            Job.APP,
            f"sum(increase(agent_app_cloud_cost_total{{{HOST}}}[$__range]))",
            unit=MONEY,
            events=True,
        ),
        graph(
            "Cost of an hour",
            "Own hardware and electricity, and an API's price of the tokens of that moment.",
            Job.GPU,
            (
                f"sum(gpu_present{{{HOST}}}) * {HARDWARE_HOUR} + "
                f"sum(rate(gpu_energy_joules_total{{{HOST}}}[$__rate_interval])) "
                "/ 1000 * $overhead * $price_kwh",
                "own",
            ),
            (
                f"({tokens('prompt', 'rate', '$__rate_interval')} * $api_prompt + "
                f"{tokens('completion', 'rate', '$__rate_interval')} * $api_completion) "
                "* 3600 / 1e6",
                "API",
            ),
            unit=MONEY,
            span=12,
            optional=NO_ENERGY,
        ),
        graph(
            "Power",
            "Of all GPUs together, from their energy counters.",
            Job.GPU,
            (
                f"sum by (host) (rate(gpu_energy_joules_total{{{HOST}}}[$__rate_interval]))",
                "{{host}}",
            ),
            unit=WATTS,
            span=12,
            optional=NO_ENERGY,
        ),
    ),
)

WHO = Row(
    "Who uses it",
    (
        table(
            "Tokens by key",
            "The ten keys that took most in the period; ops usage has them all.",
            Job.APP,
            f"topk(10, sum by (key) (increase(agent_app_key_tokens_total{{{HOST}}}[$__range])))",
            "{{key}}",
            optional=NOBODY,
        ),
        table(
            "Engine hours by model and key",
            "Wall clock of their streams, the ten largest.",
            Job.APP,
            "topk(10, sum by (model, key) "
            f"(increase(agent_app_key_engine_seconds_total{{{HOST}}}[$__range]))) / 3600",
            "{{model}}: {{key}}",
            unit=HOURS,
            optional=NOBODY,
        ),
    ),
)

COST = Dashboard(
    "cost",
    "Cost",
    "What did the period take in GPU hours, energy and money, and what would an API have taken?",
    (PERIOD, COMPARED, WHO),
    PRICES,
)
