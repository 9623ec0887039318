#!/usr/bin/python
# Copyright: the Rackhand founders
"""Lay down what a role leaves on a host, in one call: packages, accounts, files, units."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tree
short_description: Lay down packages, accounts, files and units in one call
description:
  - Brings accounts, folders, files and links to their state, in the order given, then units.
  - Where I(packages) are missing, the action plugin has M(ansible.builtin.apt) install them first.
  - Every candidate is validated before the first file of the call is replaced. When the command
    in I(validate) then refuses the whole, every file is put back as it was.
  - Has systemd read its files anew when one below C(/etc/systemd/system) changed.
  - The action plugin of the same name renders templates on the control machine.
options:
  files:
    description:
      - Entries with C(path) and one of a template (default), C(copy), C(content), C(link), C(state).
      - Those with C(early) are laid down before missing packages are installed, unjudged, so that a
        package's service has them at its first start.
    type: list
    elements: dict
    required: true
  users:
    description: System accounts that own the files, made first.
    type: list
    elements: dict
    default: []
  packages:
    description: Debian packages, installed first.
    type: list
    elements: str
    default: []
  install_recommends:
    description: Whether apt installs what they recommend; apt's own setting without it.
    type: bool
  units:
    description: Brought to their state last, before the handlers; entries as of M(rackhand.host.units).
    type: list
    elements: dict
    default: []
  validate:
    description: Command that judges the whole after the files are in place.
    type: str
    default: ""
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [The Rackhand founders]
"""

EXAMPLES = r"""
- name: The service is configured
  rackhand.host.tree:
    packages: [service]
    users:
      - {name: service, home: /var/lib/service}
    files:
      - {path: /var/lib/service, state: directory, owner: service}
      - path: /etc/service/config.yml
        group: service
        mode: "0640"
        notify: [Service restarts]
    units:
      - {name: service.service, enabled: true, state: started}
"""

RETURN = r"""
changed_paths:
  description: The paths that differed.
  returned: always
  type: list
missing:
  description: Packages that are not installed. Nothing was done, unless in check mode.
  returned: always
  type: list
"""

import base64
import grp
import os
import pwd
import shlex
import shutil
import stat
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.rackhand.host.plugins.module_utils.unit_states import Units, unknown_keys

DIFF_LIMIT_BYTES = 200_000


class Tree:
    """The work of one call: compare, stage, validate, replace, judge."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.changed_paths: list[str] = []
        self.diffs: list[dict[str, str]] = []
        self.staged: list[tuple[str, dict[str, Any]]] = []
        self.originals: list[tuple[str, bytes | None, os.stat_result | None]] = []

    # -- accounts ---------------------------------------------------------------------------
    def ensure_user(self, user: dict[str, Any]) -> None:
        """Make a system account, or add the supplementary groups that it lacks."""
        name = user["name"]
        groups = [g for g in user.get("groups", []) if not self._is_member(name, g)]
        try:
            pwd.getpwnam(name)
            command = ["usermod", "-a", "-G", ",".join(groups), name] if groups else []
        except KeyError:
            command = ["useradd", "--system", "--user-group", "--no-create-home"]
            command += ["--home-dir", user.get("home", "/nonexistent")]
            command += ["--shell", user.get("shell", "/usr/sbin/nologin")]
            command += (["-G", ",".join(groups)] if groups else []) + [name]
        if not command:
            return
        self.note(f"user {name}", {"before": "", "after": shlex.join(command) + "\n"})
        if not self.module.check_mode:
            self.module.run_command(command, check_rc=True)

    @staticmethod
    def _is_member(name: str, group: str) -> bool:
        try:
            found = grp.getgrnam(group)
            account = pwd.getpwnam(name)
        except KeyError:
            return False
        return name in found.gr_mem or account.pw_gid == found.gr_gid

    # -- entries ----------------------------------------------------------------------------
    def note(self, path: str, diff: dict[str, str]) -> None:
        """Record a difference for the result and for diff mode."""
        self.changed_paths.append(path)
        self.diffs.append({"before_header": path, "after_header": path, **diff})

    def ensure(self, entry: dict[str, Any]) -> None:
        """Bring one entry to its state; files are staged and replaced together later."""
        if entry["state"] == "absent":
            self.remove(entry["path"])
        elif entry["state"] == "directory":
            self.ensure_directory(entry)
        elif entry["state"] == "link":
            self.ensure_link(entry)
        else:
            self.stage(entry)

    def remove(self, path: str) -> None:
        if not os.path.lexists(path):
            return
        self.note(path, {"before": "present\n", "after": "absent\n"})
        if self.module.check_mode:
            return
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            self.remember(path)
            os.unlink(path)

    def ensure_directory(self, entry: dict[str, Any]) -> None:
        path = entry["path"]
        if not os.path.isdir(path):
            if os.path.lexists(path):
                self.fail(entry, "is there and is no folder")
            self.note(path, {"before": "absent\n", "after": "directory\n"})
            if self.module.check_mode:
                return
            os.makedirs(path, exist_ok=True)
            self.apply_attributes(path, entry)
        elif self.attributes_differ(path, entry):
            self.note(path, self.attribute_diff(path, entry))
            if not self.module.check_mode:
                self.apply_attributes(path, entry)

    def ensure_link(self, entry: dict[str, Any]) -> None:
        path, target = entry["path"], entry["link"]
        current = os.readlink(path) if os.path.islink(path) else None
        if current == target:
            return
        self.note(path, {"before": f"{current}\n", "after": f"-> {target}\n"})
        if self.module.check_mode:
            return
        if os.path.isdir(path) and not os.path.islink(path):
            self.fail(entry, "is a folder where a link is wanted")
        self.remember(path)
        self.ensure_parent(path)
        temporary = f"{path}.rackhand-{os.getpid()}"
        os.symlink(target, temporary)
        os.replace(temporary, path)

    def stage(self, entry: dict[str, Any]) -> None:
        """Compare a file and, when it differs, write and validate its candidate."""
        path = entry["path"]
        wanted = base64.b64decode(entry["content"])
        current = self.read(path)
        if current == wanted:
            if self.attributes_differ(path, entry):
                self.note(path, self.attribute_diff(path, entry))
                if not self.module.check_mode:
                    self.apply_attributes(path, entry)
            return
        self.note(path, self.content_diff(current, wanted, entry["sensitive"]))
        self.validate_candidate(path, wanted, entry)

    def validate_candidate(self, path: str, wanted: bytes, entry: dict[str, Any]) -> None:
        if self.module.check_mode:
            folder = self.module.tmpdir
        else:
            self.ensure_parent(path)
            folder = os.path.dirname(path)
        handle, temporary = tempfile.mkstemp(prefix=".rackhand-", dir=folder)
        with os.fdopen(handle, "wb") as stream:
            stream.write(wanted)
            stream.flush()
            os.fsync(stream.fileno())
        self.staged.append((temporary, entry))
        if self.module.check_mode:
            os.chmod(temporary, 0o600)
        else:
            self.apply_attributes(temporary, entry)
        command = entry.get("validate") or ""
        if not command:
            return
        argv = [part.replace("%s", temporary) for part in shlex.split(command)]
        if self.module.check_mode and not self.module.get_bin_path(argv[0]):
            return
        code, out, err = self.module.run_command(argv)
        if code != 0:
            self.fail(entry, f"was refused by `{command}`: {(err or out).strip()}")

    # -- going live -------------------------------------------------------------------------
    def commit(self) -> None:
        """Replace every staged file, then let the whole be judged; put all back if refused."""
        for temporary, entry in self.staged:
            if self.module.check_mode:
                os.unlink(temporary)
                continue
            self.remember(entry["path"])
            os.replace(temporary, entry["path"])
        self.staged = []
        command = self.module.params["validate"]
        if not command or not self.changed_paths or self.module.check_mode:
            return
        code, out, err = self.module.run_command(shlex.split(command))
        if code != 0:
            self.put_back()
            self.module.fail_json(
                msg=f"`{command}` refused the new files; everything was put back as it was: "
                f"{(err or out).strip()}",
                changed_paths=self.changed_paths,
            )

    def reload_systemd(self) -> None:
        """Have systemd read its files anew; before 253 it overlooks new drop-in folders itself."""
        concerned = any(path.startswith("/etc/systemd/system/") for path in self.changed_paths)
        if concerned and not self.module.check_mode:
            self.module.run_command(["systemctl", "daemon-reload"], check_rc=True)

    def remember(self, path: str) -> None:
        status = os.lstat(path) if os.path.lexists(path) else None
        if status is not None and stat.S_ISLNK(status.st_mode):
            self.originals.append((path, os.readlink(path).encode(), status))
        else:
            self.originals.append((path, self.read(path), status))

    def put_back(self) -> None:
        for path, content, status in reversed(self.originals):
            if os.path.lexists(path):
                os.unlink(path)
            if content is None or status is None:
                continue
            if stat.S_ISLNK(status.st_mode):
                os.symlink(content.decode(), path)
                continue
            with open(path, "wb") as stream:
                os.fchmod(stream.fileno(), stat.S_IMODE(status.st_mode))
                os.fchown(stream.fileno(), status.st_uid, status.st_gid)
                stream.write(content)

    # -- attributes -------------------------------------------------------------------------
    @staticmethod
    def read(path: str) -> bytes | None:
        try:
            with open(path, "rb") as stream:
                return stream.read()
        except FileNotFoundError:
            return None

    def ensure_parent(self, path: str) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)

    def attributes_differ(self, path: str, entry: dict[str, Any]) -> bool:
        status = os.stat(path)
        uid, gid = self.ids(entry)
        mode = int(entry["mode"], 8)
        return (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) != (uid, gid, mode)

    def ids(self, entry: dict[str, Any]) -> tuple[int | None, int | None]:
        """User and group id; None for an account that only a real run would have made."""
        try:
            uid = pwd.getpwnam(entry["owner"]).pw_uid
            gid = grp.getgrnam(entry["group"]).gr_gid
        except KeyError as error:
            if self.module.check_mode:
                return None, None
            self.fail(entry, f"wants an account that this host does not have: {error}")
        return uid, gid

    def apply_attributes(self, path: str, entry: dict[str, Any]) -> None:
        uid, gid = self.ids(entry)
        os.chown(path, uid, gid)
        os.chmod(path, int(entry["mode"], 8))

    def attribute_diff(self, path: str, entry: dict[str, Any]) -> dict[str, str]:
        status = os.stat(path)
        before = f"{status.st_uid}:{status.st_gid} {stat.S_IMODE(status.st_mode):04o}\n"
        uid, gid = self.ids(entry)
        return {"before": before, "after": f"{uid}:{gid} {int(entry['mode'], 8):04o}\n"}

    @staticmethod
    def content_diff(before: bytes | None, after: bytes, sensitive: bool) -> dict[str, str]:
        if sensitive:
            return {"before": "(secret)\n", "after": "(another secret)\n"}
        if len(after) > DIFF_LIMIT_BYTES or b"\0" in after or b"\0" in (before or b""):
            return {"before": "(not shown)\n", "after": "(not shown, too large or binary)\n"}
        return {
            "before": (before or b"").decode("utf-8", "replace"),
            "after": after.decode("utf-8", "replace"),
        }

    def fail(self, entry: dict[str, Any], why: str) -> None:
        for temporary, _ in self.staged:
            if os.path.exists(temporary):
                os.unlink(temporary)
        self.module.fail_json(msg=f"{entry['path']} {why}", changed_paths=self.changed_paths)


def missing_packages(module: AnsibleModule, names: list[str]) -> list[str]:
    """Those packages that dpkg does not have installed."""
    if not names:
        return []
    command = ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\\n", *names]
    _, out, _ = module.run_command(command)
    installed = {line.split()[0] for line in out.splitlines() if line.endswith(" installed")}
    return [name for name in names if name not in installed]


class QuietModule(AnsibleModule):
    """A module whose arguments, contents of secrets among them, are told by their paths alone.

    What Ansible itself would do is to write all of them into the host's journal, and at `-vvv` into
    the run's output; `no_log` on the contents would hide every path of the result.
    """

    def _log_invocation(self) -> None:
        paths = [str(entry.get("path")) for entry in self.params["files"]]
        self.log(f"Invoked with {len(paths)} files: {' '.join(paths)}")

    def _return_formatted(self, kwargs: dict[str, Any]) -> None:
        files = [{**entry, "content": "(not shown)"} if "content" in entry else entry
                 for entry in self.params["files"]]  # fmt: skip
        kwargs.setdefault("invocation", {"module_args": {**self.params, "files": files}})
        super()._return_formatted(kwargs)


def main() -> None:
    """Entry point of the module."""
    os.umask(0o022)  # whatever the login's is: services read what is made for them
    module = QuietModule(
        argument_spec={
            "files": {"type": "list", "elements": "dict", "required": True},
            "users": {"type": "list", "elements": "dict", "default": []},
            "packages": {"type": "list", "elements": "str", "default": []},
            "units": {"type": "list", "elements": "dict", "default": []},
            "validate": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    if why := unknown_keys(module.params["units"]):
        module.fail_json(msg=why)
    missing = missing_packages(module, module.params["packages"])
    if missing and not module.check_mode:
        module.exit_json(changed=False, changed_paths=[], missing=missing)
    tree, units = Tree(module), Units(module)
    for user in module.params["users"]:
        tree.ensure_user(user)
    for entry in module.params["files"]:
        tree.ensure(entry)
    tree.commit()
    tree.reload_systemd()
    if module.params["units"]:
        units.ensure(module.params["units"])
    if units.actions:
        after = "".join(f"{action}\n" for action in units.actions)
        tree.diffs.append({"before": "", "after": after})
    module.exit_json(
        changed=bool(tree.changed_paths or units.actions),
        changed_paths=tree.changed_paths,
        actions=units.actions,
        missing=missing,
        diff=tree.diffs,
    )


if __name__ == "__main__":
    main()
