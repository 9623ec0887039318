"""The lab's inventory: an ordinary one, as a person would write it for these hosts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from ops.lab import demo_model, environment, outside, wheelhouse
from ops.lab.fleet_plan import ACME_NAME, DOMAIN, MIRROR_NAME, LabPlan
from ops.lab.mirror import signing
from ops.lab.paths import write_atomically

HEADER = "# Written by `ops lab up`; it writes this file anew whenever the lab changes.\n---\n"
MAX_MODEL_LEN = 2048  # tokens; the demo model's dialogues are short, and memory is shared
CUDA_NAMES = {"bookworm": "debian12", "trixie": "debian13", "ubuntu-24.04-facade": "ubuntu2404"}


def write(plan: LabPlan, say: Callable[[str], None] = lambda _: None) -> Path:
    """Write the lab's inventory; for an unchanged lab the files stay as they are.

    Args:
        plan: The lab.
        say: Told what goes on: the demo model is trained where it misses.

    Returns:
        The inventory's folder.
    """
    folder = plan.paths.inventory
    training = "training the demo model"
    model = demo_model.ensure(
        lambda news: say(training if news == training else f"{training}: {news}")
    )
    files = {"hosts.yml": hosts(plan), "group_vars/all.yml": variables(plan, model)}
    for name, content in files.items():
        text = HEADER + yaml.safe_dump(content, sort_keys=False, width=100)
        path = folder / name
        if not path.exists() or path.read_text() != text:
            write_atomically(path, text)
    return folder


def hosts(plan: LabPlan) -> dict[str, Any]:
    """Hosts with their addresses, and the groups they are in."""
    addresses = {
        node: {"ansible_host": plan.address(node), "private_address": plan.address(node)}
        for node in plan.nodes
    }
    groups: dict[str, Any] = {
        group: {"hosts": {member: {} for member in members}}
        for group, members in plan.groups().items()
    }
    return {"all": {"hosts": addresses, "children": groups}}


def variables(plan: LabPlan, model: Path) -> dict[str, Any]:
    """What holds for every host of the lab."""
    ssh = f"-o UserKnownHostsFile={plan.paths.known_hosts} -o StrictHostKeyChecking=yes"
    return {
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(plan.paths.private_key),
        "ansible_ssh_common_args": f"{ssh} -o IdentitiesOnly=yes",
        "ansible_python_interpreter": "/usr/bin/python3",
        "domain": DOMAIN,
        "models": [
            {
                "name": "demo",
                "source": f"file://{model}",
                "revision": model.name,
                "max_model_len": MAX_MODEL_LEN,
                "tool_call_parser": "hermes",
                "gpus": [],
                "tensor_parallel": 1,
                "gpu_memory_utilization": 0.90,
                "extra_args": [],
            }
        ],
        "engine_accelerator": "cpu",
        "engine_environment": environment.NAME,
        "engine_cpu_kvcache_gb": 1,
        "engine_max_num_seqs": 8,
        "preflight_models_disk_gb": 2,
        "preflight_root_disk_gb": 2,
        "agent_app_find_links": [wheelhouse.HOME],
        "agent_app_offline": True,
        "gpu_exporter_find_links": [wheelhouse.HOME],
        "gpu_exporter_offline": True,
        "remediator_find_links": [wheelhouse.HOME],
        "remediator_offline": True,
        # As the demo model learned them: examples.py of its trainer.
        "agent_app_knowledge": {"passage_characters": 400, "overlap_characters": 0, "results": 3},
        # This machine is every client of the lab at once.
        "hardening_fail2ban_ignore": [plan.gateway],
        "certbot_email": f"operator@{DOMAIN}",
        "certbot_acme_directory_url": f"https://{ACME_NAME}:{outside.ACME_PORT}/dir",
        "certbot_acme_ca_file": str(plan.paths.authority / outside.CA_FILE),
        **(driver_variables(plan) if plan.gpus else {}),
    }


def driver_variables(plan: LabPlan) -> dict[str, Any]:
    """Where the roles of the GPU layer find packages, as on a site with a mirror of its own."""
    base = f"http://{MIRROR_NAME}/current"
    distribution = CUDA_NAMES[plan.image_name]
    variables: dict[str, Any] = {
        "nvidia_cuda_repo_url": f"{base}/cuda/{distribution}/x86_64/",
        "nvidia_cuda_repo_key_file": str(signing.public_key("cuda")),
        "nvidia_cuda_repo_key_fingerprint": signing.fingerprint("cuda"),
        "container_toolkit_repo_url": f"{base}/libnvidia-container/stable/deb/amd64/",
        "container_toolkit_repo_key_file": str(signing.public_key("container")),
        "container_toolkit_repo_key_fingerprint": signing.fingerprint("container"),
    }
    if plan.image.identity:  # says that it is Ubuntu, on Debian's packages
        variables |= {
            "nvidia_driver_ubuntu_repo_url": f"{base}/ubuntu",
            "nvidia_driver_ubuntu_repo_key_file": str(signing.public_key("ubuntu")),
            "postgres_version": 17,
        }
    return variables


def ssh_options(plan: LabPlan) -> list[str]:
    """Options of `ssh` that reach this lab's hosts by their names and by nothing of the user's."""
    return [
        *("-F", "none", "-i", str(plan.paths.private_key), "-l", "root"),
        *("-o", f"UserKnownHostsFile={plan.paths.known_hosts}"),
        *("-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR"),
    ]
