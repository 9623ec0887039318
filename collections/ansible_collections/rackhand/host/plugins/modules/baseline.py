#!/usr/bin/python
# Copyright: the Rackhand founders
"""Tighten what a distribution leaves loose: lines of shared files, modes, accounts, mounts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: baseline
short_description: Tighten lines of shared files, modes, accounts and mounts in one call
description:
  - For what no package's drop-in folder reaches. Everything else is M(rackhand.host.tree)'s.
  - Takes away only, never loosens. What is not there is passed over.
options:
  lines:
    description:
      - Entries with C(path), C(key) (a regular expression that a line begins with) and C(line), which
        stands in the place of the first such line, or at the end.
    type: list
    elements: dict
    default: []
  modes:
    description: The most that a path's mode may be, by path; further bits are taken away.
    type: dict
    default: {}
  accounts:
    description:
      - Whether accounts without any password are locked, and system accounts get C(nologin) as their
        shell unless they have a password or an authorized_keys of their own.
    type: bool
    default: false
  accounts_with_shell:
    description: System accounts that keep their shell.
    type: list
    elements: str
    default: []
  mounts:
    description: Options that a mounted file system has, by mount point; it is mounted again where it lacks one.
    type: dict
    default: {}
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [The Rackhand founders]
"""

EXAMPLES = r"""
- name: Files are created for their owner and group
  rackhand.host.baseline:
    lines:
      - {path: /etc/login.defs, key: UMASK, line: UMASK 027}
    modes:
      /etc/crontab: "0600"
"""

RETURN = r"""
changes:
  description: What was done, a line each.
  returned: always
  type: list
"""

import os
import pwd
import re
import stat
import tempfile

from ansible.module_utils.basic import AnsibleModule

SYSTEM_UIDS = range(1, 1000)
NO_SHELLS = {"nologin", "false", "sync", "true", "git-shell"}
SHADOW = "/etc/shadow"


class Baseline:
    """The work of one call."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.changes: list[str] = []
        self.diffs: list[dict[str, str]] = []

    def change(self, what: str, *command: str) -> None:
        """Note a change and, outside check mode, make it by a command."""
        self.changes.append(what)
        self.diffs.append({"before": "", "after": what + "\n"})
        if command and not self.module.check_mode:
            self.module.run_command(list(command), check_rc=True)

    # -- lines --------------------------------------------------------------------------------
    def ensure_lines(self, path: str, wanted: list[dict[str, str]]) -> None:
        """Bring a file's lines to their state in one replacement."""
        if not os.path.exists(path):
            return
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            before = stream.read()
        lines = before.splitlines()
        for entry in wanted:
            pattern = re.compile(rf"^\s*{entry['key']}(\s|$)")
            found = [number for number, line in enumerate(lines) if pattern.match(line)]
            if found:
                lines[found[0]] = entry["line"]
            else:
                lines.append(entry["line"])
        after = "".join(f"{line}\n" for line in lines)
        if after == before:
            return
        self.changes.append(path)
        self.diffs.append(
            {"before_header": path, "after_header": path, "before": before, "after": after}
        )
        if not self.module.check_mode:
            self.replace(path, after)

    @staticmethod
    def replace(path: str, text: str) -> None:
        """Put a file in the place of another, with its owner and mode."""
        status = os.stat(path)
        handle, temporary = tempfile.mkstemp(prefix=".rackhand-", dir=os.path.dirname(path))
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chown(temporary, status.st_uid, status.st_gid)
        os.chmod(temporary, stat.S_IMODE(status.st_mode))
        os.replace(temporary, path)

    # -- modes --------------------------------------------------------------------------------
    def ensure_mode(self, path: str, most: int) -> None:
        """Take away the bits of a path's mode that go beyond the most."""
        if not os.path.lexists(path) or os.path.islink(path):
            return
        mode = stat.S_IMODE(os.stat(path).st_mode)
        if mode & ~most:
            self.change(f"{path} {mode:04o} -> {mode & most:04o}")
            if not self.module.check_mode:
                os.chmod(path, mode & most)

    # -- accounts -----------------------------------------------------------------------------
    def ensure_accounts(self, with_shell: set[str]) -> None:
        """Lock accounts without a password; take the shell from system accounts."""
        with open(SHADOW, encoding="utf-8") as stream:
            secrets = dict(line.split(":", 2)[:2] for line in stream if line.count(":") > 1)
        for name, secret in secrets.items():
            if not secret:
                self.change(f"{name} has no password: locked", "passwd", "-l", name)
        for account in pwd.getpwall():
            if account.pw_uid not in SYSTEM_UIDS or account.pw_name in with_shell:
                continue
            if os.path.basename(account.pw_shell) in NO_SHELLS:
                continue
            if self.logs_in(account, secrets.get(account.pw_name, "")):
                continue
            self.change(
                f"{account.pw_name} has no shell",
                *("usermod", "--shell", "/usr/sbin/nologin", account.pw_name),
            )

    @staticmethod
    def logs_in(account: pwd.struct_passwd, secret: str) -> bool:
        """Whether a person or a machine may log in as this account today."""
        keys = os.path.join(account.pw_dir, ".ssh", "authorized_keys")
        has_key = os.path.isfile(keys) and os.path.getsize(keys) > 0
        return has_key or secret.startswith("$")

    # -- mounts -------------------------------------------------------------------------------
    def ensure_mount(self, point: str, options: list[str]) -> None:
        """Mount a file system again with the options that it lacks."""
        with open("/proc/self/mounts", encoding="utf-8") as stream:
            mounted = {fields[1]: fields[3].split(",") for fields in map(str.split, stream)}
        lacking = [option for option in options if option not in mounted.get(point, options)]
        if lacking:
            self.change(
                f"{point} is mounted {','.join(lacking)}",
                *("mount", "-o", f"remount,{','.join(options)}", point),
            )


def main() -> None:
    """Entry point of the module."""
    os.umask(0o022)  # whatever the login's is
    module = AnsibleModule(
        argument_spec={
            "lines": {"type": "list", "elements": "dict", "default": []},
            "modes": {"type": "dict", "default": {}},
            "accounts": {"type": "bool", "default": False},
            "accounts_with_shell": {"type": "list", "elements": "str", "default": []},
            "mounts": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    baseline = Baseline(module)
    by_path: dict[str, list[dict[str, str]]] = {}
    for entry in module.params["lines"]:
        if set(entry) != {"path", "key", "line"}:
            module.fail_json(msg=f"lines: {entry} has other keys than path, key, line")
        by_path.setdefault(entry["path"], []).append(entry)
    for path, wanted in by_path.items():
        baseline.ensure_lines(path, wanted)
    for path, most in module.params["modes"].items():
        baseline.ensure_mode(path, int(str(most), 8))
    if module.params["accounts"]:
        baseline.ensure_accounts(set(module.params["accounts_with_shell"]))
    for point, options in module.params["mounts"].items():
        baseline.ensure_mount(point, options)
    module.exit_json(changed=bool(baseline.changes), changes=baseline.changes, diff=baseline.diffs)


if __name__ == "__main__":
    main()
