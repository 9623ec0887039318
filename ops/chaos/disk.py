"""A full disk: a folder gets a small file system of its own, which is then filled.

The host's own disk is this machine's, and is never filled. The small one is a file with ext4 in
it; a unit mounts it at boot, so that a host that loses its power finds what it wrote there.
Services that have files open in the folder are stopped while it moves, and started again.
"""

from __future__ import annotations

import shlex

HOME = "/var/lib/rackhand-chaos"
ROOM_MIB = 64  # room beside the folder's content before it is filled: the journal of ext4 is in it

MOUNT = """\
[ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237
device=$(losetup -f)
[ -b "$device" ] || mknod "$device" b 7 "${device#/dev/loop}"
mount -o loop="$device" "$image" "$at"
"""
USERS = """\
users() {
  for entry in /proc/[0-9]*/fd/* /proc/[0-9]*/cwd; do
    case "$(readlink "$entry" 2>/dev/null)" in "$at"|"$at"/*)
      process=${entry#/proc/}
      sed -n 's,^0::.*/\\([^/]*\\.service\\).*,\\1,p' "/proc/${process%%/*}/cgroup" 2>/dev/null ;;
    esac
  done | sort -u | grep -v -e '^ssh' -e '^chaos-disk' || true
}
"""
UNIT = """\
[Unit]
DefaultDependencies=no
Before=local-fs.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -eu {home}/{name}.mount
[Install]
WantedBy=local-fs.target
"""


def fill(folder: str) -> str:
    """The script that makes a folder's file system small, unless it is, and fills it."""
    name, head = _names(folder)
    unit = UNIT.format(home=HOME, name=name)
    return f"""\
{head}
if ! mountpoint -q "$at"; then
  [ -d "$at" ] || {{ echo "$at is no folder" >&2; exit 4; }}
  mkdir -p -m 700 {HOME}
  busy=$(users)
  [ -z "$busy" ] || systemctl stop $busy
  rm -f "$image"
  truncate -s $(( $(du -sm "$at" | cut -f1) * 5 / 4 + {ROOM_MIB} ))M "$image"
  mkfs.ext4 -q -m 0 "$image"
  cat > {HOME}/{name}.mount <<'END'
image={HOME}/{name}.img
at={shlex.quote(folder)}
{MOUNT}END
  mkdir -p {HOME}/{name}.new
  sed "s,^at=.*,at={HOME}/{name}.new," {HOME}/{name}.mount | sh -eu
  cp -a "$at/." {HOME}/{name}.new/
  umount {HOME}/{name}.new
  rmdir {HOME}/{name}.new
  cat > /etc/systemd/system/chaos-disk-{name}.service <<'END'
{unit}END
  systemctl daemon-reload
  systemctl --quiet enable --now chaos-disk-{name}.service
  [ -z "$busy" ] || systemctl start $busy
fi
umask 077
dd if=/dev/zero of="$at/.chaos-ballast" bs=1M status=none 2>/dev/null || true
# By the block, which a small ext4 has of 1 KiB: of a page that has no room nothing is written. And
# once more: what ext4 held back for blocks that were not written yet is free once they are.
for _ in 1 2; do
  dd if=/dev/zero bs=1k status=none 2>/dev/null >> "$at/.chaos-ballast" || true
  sync -f "$at"
done
"""


def free(folder: str) -> str:
    """The script that frees the folder, and brings its content back to the host's own disk."""
    name, head = _names(folder)
    return f"""\
{head}
rm -f "$at/.chaos-ballast"
if mountpoint -q "$at"; then
  busy=$(users)
  [ -z "$busy" ] || systemctl stop $busy
  rm -rf "$at.chaos-new"
  cp -a "$at" "$at.chaos-new"
  rm -rf "$at.chaos-new/lost+found"
  systemctl --quiet disable --now chaos-disk-{name}.service
  umount "$at"
  mv "$at" "$at.chaos-old"
  mv "$at.chaos-new" "$at"
  rm -rf "$at.chaos-old"
  [ -z "$busy" ] || systemctl start $busy
fi
rm -f /etc/systemd/system/chaos-disk-{name}.service {HOME}/{name}.*
systemctl daemon-reload
"""


def _names(folder: str) -> tuple[str, str]:
    name = folder.strip("/").replace("/", "-")
    return name, f"set -eu\nat={shlex.quote(folder)}\nimage={HOME}/{name}.img\n{USERS}"
