"""What an engine's log says of its command line, its model and its weights.

The lines are those of vLLM 0.18 to 0.33, transformers, huggingface_hub and safetensors. Recorded
ones lie in tests/unit/doctor/logs/; those that only a GPU or a hub brings about are from these
projects' sources, named beside their tests.
"""

from __future__ import annotations

from ops.doctor.finding import CRITICAL, Case

APPLY = "ops provision --tags engine --limit {host} -e engine_accept_restart=true"
COMMAND_MISSING = Case(
    "engine-environment-missing", CRITICAL,
    "the engine's program is not there",
    "its environment was never finished, or was removed: {path}",
    "ops provision --tags engine --limit {host}",
    (r"/usr/bin/env: \W?(?P<path>/[^\s'\u2019:]+)\W?: (?:No such file|Permission denied)",
     r"No package metadata was found for (?P<path>vllm)"),
)  # fmt: skip
PARSER = Case(
    "engine-parser-unknown", CRITICAL,
    "the engine does not know the tool-call or reasoning parser {parser}",
    "the registry of parsers changes between vLLM's releases",
    "set tool_call_parser (or --reasoning-parser in extra_args) to one that the log lists, then "
    + APPLY,
    (r"invalid tool call parser: (?P<parser>[\w.-]+)",
     r"invalid reasoning parser: (?P<parser>[\w.-]+)",
     r"(?:[Rr]easoning|[Tt]ool) parser '(?P<parser>[\w.-]+)' not found",
     r"--(?:tool-call|reasoning)-parser: invalid choice: '(?P<parser>[\w.-]+)'"),
)  # fmt: skip
QUANTIZATION = Case(
    "quantization-wrong", CRITICAL,
    "the quantization does not fit the model: {what}",
    "--quantization says another method than the model's own config.json, or one vLLM lacks",
    "remove --quantization from extra_args: vLLM reads it from the model; then " + APPLY,
    (r"Quantization method specified in the model config \((?P<what>[^)]+)\) does not match",
     r"Unknown quantization method: (?P<what>[\w-]+)",
     r"Cannot find the config file for (?P<what>[\w-]+)",
     r"argument --quantization.*: invalid choice: '(?P<what>[\w-]+)'"),
)  # fmt: skip
DTYPE = Case(
    "dtype-unsupported", CRITICAL,
    "the number format is refused: {what}",
    "the model, the quantization or the processor does not support that --dtype",
    "set --dtype auto (or float32 on a CPU) in extra_args, then " + APPLY,
    (r"Unknown dtype: (?P<what>\S+)",
     r"(?P<what>torch\.\w+) is not supported for quantization",
     r"[Tt]he model type \S+ does not support (?P<what>float16)",
     r"argument --dtype: invalid choice: '?(?P<what>[\w.]+)",
     r"(?P<what>torch\.\w+ is not supported) for the (?:CPU|current)"),
)  # fmt: skip
FLAG = Case(
    "engine-flag-unknown", CRITICAL,
    "the engine refuses its command line: {what}",
    "this version of vLLM does not know that flag, or not that value",
    "mend extra_args of the model in the inventory (vllm serve --help=all lists flags), then "
    + APPLY,
    (r"error: unrecognized arguments: (?P<what>.+)",
     r"error: (?P<what>argument [\w/ ,-]+: .+)",
     r"error: (?P<what>ambiguous option: .+)"),
)  # fmt: skip
CHAT_TEMPLATE = Case(
    "engine-chat-template", CRITICAL,
    "the model's chat template cannot be used",
    "the file named by --chat-template is missing, or is no valid Jinja",
    "mend --chat-template in extra_args, or stage the weights anew, then " + APPLY,
    (r"The supplied chat template .* appears path-like, but doesn't exist",
     r"jinja2\.exceptions\.TemplateSyntaxError"),
)  # fmt: skip
GATED = Case(
    "model-access-refused", CRITICAL,
    "the hub refuses the model {model}",
    "it is gated or private, and the token is missing, wrong, or has not accepted its licence",
    "accept the licence on the model's page, put a token into engine_hub_token_file, then ops "
    "model stage MODEL",
    (r"Cannot access gated repo for url \S+/(?P<model>[\w.-]+/[\w.-]+)/resolve",
     r"GatedRepoError", r"401 Client Error", r"403 Client Error: Forbidden",
     r"You are trying to access a gated repo", r"Invalid user token",
     r"Access to model (?P<model>\S+) is restricted"),
)  # fmt: skip
NO_REVISION = Case(
    "model-revision-not-found", CRITICAL,
    "the hub has no such revision of the model",
    "models[].revision of the inventory is wrong, or was deleted at the hub",
    "set a commit that exists (the model's page, Files and versions), then ops model stage MODEL",
    (r"Revision Not Found for url", r"RevisionNotFoundError",
     r"is not a valid git identifier \(branch name, tag name or commit id\)"),
)  # fmt: skip
CUSTOM_CODE = Case(
    "model-needs-trust", CRITICAL,
    "the model brings code of its own, and nobody allowed it",
    "its architecture is no part of transformers or vLLM; its files would run as the engine",
    "read that code; then add --trust-remote-code to the model's extra_args, and " + APPLY,
    (r"trust_remote_code=True", r"contains custom code which must be executed"),
)  # fmt: skip
NO_WEIGHTS = Case(
    "weights-missing", CRITICAL,
    "weights of the model are missing: {what}",
    "the revision on the disk is not whole: staged by hand, or a file was removed",
    "on {host}: mv the revision's folder to the same name with .staging behind it; then ops model "
    "stage MODEL fetches what is missing or wrong, and keeps the rest",
    (r"Cannot find any model weights with [`'](?P<what>[^`']+)",
     r"No such file or directory: '?(?P<what>[^'\n]+\.(?:safetensors|bin|pt|index\.json))",
     r"(?P<what>[\w.-]+\.safetensors) (?:does not exist|not found)"),
)  # fmt: skip
BROKEN_WEIGHTS = Case(
    "weights-broken", CRITICAL,
    "weights of the model cannot be read",
    "a file is cut off or damaged: an interrupted copy, a full disk, a bad disk",
    "on {host}: mv the revision's folder to the same name with .staging behind it; then ops model "
    "stage MODEL fetches what is missing or wrong, and keeps the rest",
    (r"SafetensorError: .*", r"Error while deserializing header", r"PytorchStreamReader failed",
     r"invalid load key, '", r"InvalidHeaderDeserialization", r"MetadataIncompleteBuffer",
     r"incomplete metadata, file not fully covered",
     # A header of nonsense asks for nonsense: petabytes, or no text.
     r"in parse_safetensors_file_metadata\n[\s\S]{0,900}"
     r"^(?:\S+ )*(?:MemoryError|\S*JSONDecodeError|UnicodeDecodeError|OverflowError)"),
)  # fmt: skip
OTHER_WEIGHTS = Case(
    "weights-of-another-model", CRITICAL,
    "the weights do not fit the model's config.json",
    "files of two revisions were mixed, or the quantization is another",
    "on {host}: mv the revision's folder to the same name with .staging behind it; then ops model "
    "stage MODEL",
    (r"[Ff]ollowing weights were not initialized from checkpoint",
     r"There is no module or parameter named",
     r"size mismatch for ", r"start \(\d+\) \+ length \(\d+\) exceeds dimension size",
     r"Attempted to load weight \(.*\) into parameter \(.*\)",
     r"json\.decoder\.JSONDecodeError.*config", r"It looks like the config file at '[^']+' is not "
     r"a valid JSON file"),
)  # fmt: skip
NOT_FOUND = Case(
    "model-not-found", CRITICAL,
    "the model is not there: {model}",
    "the folder is missing or no model, or the hub has none of that name; engines are offline by "
    "design and use staged weights",
    "ops model stage MODEL, or mend models[].source and revision, then " + APPLY,
    (r"Invalid repository ID or local directory specified: ?'(?P<model>[^']+)'",
     r"Repository Not Found for url: \S+/(?P<model>[\w.-]+/[\w.-]+)/resolve",
     r"RepositoryNotFoundError",
     r"HFValidationError: Repo id must be .*: '(?P<model>[^']+)'",
     r"(?P<model>\S+) is not a local folder and is not a valid model identifier",
     r"Can't load the configuration of '(?P<model>[^']+)'",
     r"LocalEntryNotFoundError", r"OfflineModeIsEnabled",
     r"(?P<model>\S+) does not appear to have a file named config\.json",
     r"stand-in-engine: .*?(?P<model>/\S+).*(?:no folder|not a folder|does not exist)"),
)  # fmt: skip
HUB = Case(
    "hub-unreachable", CRITICAL,
    "the hub cannot be reached",
    "no network, a proxy, DNS, or a site without the hub",
    "check engine_hub_endpoint and the proxy; from another source: ops model stage MODEL --source",
    (r"We couldn't connect to 'https?://[^']+' to load",
     r"(?:MaxRetryError|ConnectionError|ConnectError).*(?:huggingface|hf\.co|hub)"),
)  # fmt: skip
TOKENIZER = Case(
    "tokenizer-unreadable", CRITICAL,
    "the model has no tokenizer that can be read",
    "tokenizer.json (or its like) is missing, broken, or needs a package that is not there",
    "ops model stage MODEL with a revision that has it, or name one by --tokenizer in extra_args, "
    "then " + APPLY,
    (r"Can't load tokenizer for", r"Couldn't instantiate the backend tokenizer",
     r"Unable to load vocabulary from file", r"sentencepiece.*Not found: ",
     r"Tokenizer class \S+ does not exist",
     r"tokenization_\w+\.py\"[\s\S]{0,2500}JSONDecodeError",
     r"Exception: data did not match any variant",
     r"Exception: expected .* at line \d+ column \d+"),
)  # fmt: skip
ARCHITECTURE = Case(
    "model-architecture-unsupported", CRITICAL,
    "this vLLM does not know the model's architecture {architecture}",
    "the model is newer than this vLLM, or is no language model",
    "move to a vLLM that has it: vllm in the model's entry, then ops model upgrade MODEL; or take "
    "another model",
    (r"Model architectures \['?(?P<architecture>[\w', ]+?)'?\] (?:are not supported|failed)",
     r"model type [`'](?P<architecture>[\w-]+)[`'] but Transformers does not recognize",
     r"Cannot find model module\W+(?P<architecture>\w*)",
     r"(?P<architecture>\w+ForCausalLM) has no vLLM implementation"),
)  # fmt: skip
CAPABILITY = Case(
    "gpu-capability-too-low", CRITICAL,
    "this GPU cannot do what the model wants",
    "its compute capability is too low for the number format or the kernels: {what}",
    "set --dtype half, or another quantization of the model (ops fit says which), then " + APPLY,
    (r"(?P<what>Bfloat16 is only supported on GPUs with compute capability of at least [\d.]+)",
     r"is not supported for the current GPU\. (?P<what>Min(?:imum)? capability: \d+.*?\d+)",
     r"(?P<what>no kernel image is available for execution on the device)",
     r"(?P<what>CUDA capability sm_\d+ is not compatible with the current PyTorch)",
     r"(?P<what>FlashAttention only supports Ampere GPUs or newer)"),
)  # fmt: skip
MAX_LEN = Case(
    "context-longer-than-model", CRITICAL,
    "max_model_len {asked} is more than the model's own {most}",
    "the model was not made for so long a context",
    "set max_model_len of the model to {most} or less, then " + APPLY,
    (r"max_model_len \((?P<asked>\d+)\) is greater than the derived max_model_len "
     r"\(\w+=(?P<most>[\d]+)",),
)  # fmt: skip
DIVISIBLE = Case(
    "tensor-parallel-not-divisible", CRITICAL,
    "the model's {heads} attention heads cannot be shared by {parallel} GPUs",
    "tensor_parallel must divide the number of attention heads",
    "set tensor_parallel (and gpus) to a divisor of {heads}, then " + APPLY,
    (r"attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size "
     r"\((?P<parallel>\d+)\)",
     r"(?P<heads>\d+) is not divisible by (?P<parallel>\d+)"),
)  # fmt: skip
TOO_FEW = Case(
    "too-few-gpus", CRITICAL,
    "the engine wants {wanted} GPUs and sees {seen}",
    "tensor_parallel is larger than the number of gpus that the model is given",
    "set tensor_parallel and gpus of the model to what the host has, then " + APPLY,
    (r"World size \((?P<wanted>\d+)\) is larger than the number of available GPUs \((?P<seen>\d+)",
     r"ensor parallel size \((?P<wanted>\d+)\) cannot be larger than the number of available GPUs "
     r"\((?P<seen>\d+)",
     r"CUDA error: invalid device ordinal"),
)  # fmt: skip
TABLE: tuple[Case, ...] = (
    COMMAND_MISSING, PARSER, QUANTIZATION, DTYPE, FLAG, CHAT_TEMPLATE, GATED, NO_REVISION,
    CUSTOM_CODE, NO_WEIGHTS, BROKEN_WEIGHTS, OTHER_WEIGHTS, NOT_FOUND, HUB, TOKENIZER,
    ARCHITECTURE, CAPABILITY, MAX_LEN, DIVISIBLE, TOO_FEW,
)  # fmt: skip
"""More exact causes first: what one of them breaks often breaks the later ones too."""
