#!/usr/bin/python
# Copyright: the Rackhand founders
"""The apt repositories of a closed site, and no others."""

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_sources
short_description: Give a host the apt repositories of its site
description:
  - Each repository gets a deb822 file and a key of its own. Package lists are read anew when any of
    them changed, or when a run before ended in between.
  - With I(exclusive) every entry of other files is switched off, not removed. Files that other roles
    lay down (C(rackhand-*.sources)) stay on.
options:
  repositories:
    type: list
    elements: dict
    required: true
    description: name, url, suites, components, key (armored) and version, whatever tells a new content.
  exclusive: {type: bool, default: false, description: Switch all other repositories off.}
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [The Rackhand founders]
"""

RETURN = r"""
changed_paths:
  description: Files that changed.
  returned: always
  type: list
"""

import glob
import hashlib
import json
import os
import re
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackhand.host.plugins.module_utils.driver_repository import (
    KEYS_FOLDER,
    SOURCES_FOLDER,
    key_path,
    sources_path,
    sources_text,
)

STAMP = "/var/lib/rackhand/apt_sources"
OURS = "rackhand-"
OFF = "# switched off by Rackhand, the site has its own: "
LOCK_WAIT_S = 600


def one_lines_off(text: str) -> str:
    """A `.list` file whose entries are comments."""
    return re.sub(r"^(?=[ \t]*deb(-src)?[ \t])", OFF, text, flags=re.MULTILINE)


def stanzas_off(text: str) -> str:
    """A deb822 file whose stanzas are not enabled."""
    stanzas = re.split(r"(\n[ \t]*\n)", text)
    for index, stanza in enumerate(stanzas):
        if re.search(r"^URIs:", stanza, re.MULTILINE | re.IGNORECASE):
            body = re.sub(r"^Enabled:.*\n?", "", stanza, flags=re.MULTILINE | re.IGNORECASE)
            stanzas[index] = re.sub(
                r"^(Types:)", r"Enabled: no\n\1", body, count=1, flags=re.MULTILINE | re.IGNORECASE
            )
    return "".join(stanzas)


def read(path: str) -> str:
    """A file's text; nothing where there is none."""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""


def write(path: str, text: str) -> None:
    """Replace a file as a whole."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".rackhand-", dir=os.path.dirname(path))
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        os.fchmod(stream.fileno(), 0o644)
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def wanted_files(repositories: list[dict[str, Any]], exclusive: bool) -> dict[str, str]:
    """Text of every file that is to be there, keys before the sources that name them."""
    files = {key_path(each["name"]): each["key"].strip() + "\n" for each in repositories}
    files |= {sources_path(each["name"]): sources_text(each) for each in repositories}
    if not exclusive:
        return files
    for path in ["/etc/apt/sources.list", *sorted(glob.glob(f"{SOURCES_FOLDER}/*"))]:
        ours = path in files or os.path.basename(path).startswith(OURS)
        if path.endswith(".list") and not ours:
            files[path] = one_lines_off(read(path))
        elif path.endswith(".sources") and not ours:
            files[path] = stanzas_off(read(path))
    return files


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "repositories": {"type": "list", "elements": "dict", "required": True, "no_log": False},
            "exclusive": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    repositories = module.params["repositories"]
    files = wanted_files(repositories, module.params["exclusive"])
    now = {path: read(path) for path in files}
    different = [path for path, text in files.items() if now[path] != text]
    state = json.dumps([sorted(files.items()), [r.get("version", "") for r in repositories]])
    digest = hashlib.sha256(state.encode()).hexdigest() + "\n"
    unread = read(STAMP) != digest
    diff = [
        {"before": now[path], "after": files[path], "before_header": path, "after_header": path}
        for path in different
        if not path.startswith(KEYS_FOLDER)
    ]
    if not module.check_mode:
        for path in different:
            write(path, files[path])
        if unread:
            update = ["apt-get", "-q", "-o", f"DPkg::Lock::Timeout={LOCK_WAIT_S}"]
            code, out, err = module.run_command(
                [*update, "-o", "APT::Update::Error-Mode=any", "update"]
            )
            if code != 0:
                module.fail_json(
                    msg="the site's apt repositories cannot be read: "
                    f"{(err or out).strip()[-1500:]}. Cure: is `ops bundle serve` running, and does "
                    "this host reach its address (base_apt_repositories)?"
                )
            write(STAMP, digest)
    module.exit_json(changed=bool(different or unread), changed_paths=different, diff=diff)


if __name__ == "__main__":
    main()
