"""What role hardening promises: checks in the manner of dev-sec's baselines and of CIS."""

from __future__ import annotations

import re

import pytest
from testinfra.host import Host as Connection

from ops.fleet import Fleet, Host
from ops.verify.firewall import TABLE, input_policy, openings_in_force, wanted_openings
from ops.verify.probes import ask, assert_unit_runs

CURE = "cure: ops provision --tags hardening"
MOST_EXPOSED = 2.0
"""What `systemd-analyze security` may say of a unit of ours."""
OUR_UNITS = (
    *("engine@*.service", "agent_app@*.service", "agent_app_*.service", "gpu_exporter.service"),
    *("rackhand-*.service", "remediator.service"),
)
SSHD = {
    "passwordauthentication": {"no"},
    "kbdinteractiveauthentication": {"no"},
    "hostbasedauthentication": {"no"},
    "permitemptypasswords": {"no"},
    "permitrootlogin": {"without-password", "prohibit-password", "no", "forced-commands-only"},
    "permituserenvironment": {"no"},
    "permittunnel": {"no"},
    "x11forwarding": {"no"},
    "allowagentforwarding": {"no"},
    "gatewayports": {"no"},
    "strictmodes": {"yes"},
    "ignorerhosts": {"yes"},
    "loglevel": {"VERBOSE", "INFO"},
}
"""What the effective settings of sshd may be (dev-sec ssh-baseline, CIS Debian 12 5.1)."""
WEAK = re.compile(r"cbc|arcfour|3des|md5|sha1($|[^0-9])|umac-64|group1-|group-exchange-sha1|96")
SYSCTL = {
    "net.ipv4.conf.all.rp_filter": {"1", "2"},
    "net.ipv4.conf.all.accept_redirects": {"0"},
    "net.ipv4.conf.all.secure_redirects": {"0"},
    "net.ipv4.conf.all.send_redirects": {"0"},
    "net.ipv4.conf.all.accept_source_route": {"0"},
    "net.ipv4.icmp_echo_ignore_broadcasts": {"1"},
    "net.ipv4.tcp_syncookies": {"1", "2"},
    "net.ipv6.conf.all.accept_redirects": {"0"},
    "kernel.kptr_restrict": {"1", "2"},
    "kernel.dmesg_restrict": {"1"},
    "kernel.randomize_va_space": {"2"},
    "kernel.yama.ptrace_scope": {"1", "2", "3"},
    "kernel.unprivileged_bpf_disabled": {"1", "2"},
    "fs.suid_dumpable": {"0"},
    "fs.protected_hardlinks": {"1"},
    "fs.protected_symlinks": {"1"},
}
GPU_STACK = ("nvidia-utils-580", "libnvidia-compute-580", "cuda-toolkit-13-0", "libcuda1")
"""Names that unattended upgrades have to pass by."""
KNOWN_SETUID = {
    *("chfn", "chsh", "gpasswd", "mount", "newgrp", "passwd", "su", "sudo", "umount"),
    *("expiry", "chage", "unix_chkpwd", "ssh-agent", "ssh-keysign", "crontab", "wall", "write"),
    *("dbus-daemon-launch-helper", "fusermount3", "fusermount", "pkexec", "polkit-agent-helper-1"),
    *("newuidmap", "newgidmap", "snap-confine", "nvidia-modprobe", "utempter", "dotlockfile"),
    *("exim4", "postdrop", "postqueue", "bsd-write", "at", "ping", "Xorg.wrap", "sudoedit"),
}
# Its own status of 255 would read as a connection that broke.
FAIL2BAN = "sh -c 'fail2ban-client $0 || exit 1' %s"
SHARED_MEMORY = "/dev/shm"  # noqa: S108
UNWANTED = ("telnetd", "rsh-server", "xinetd", "nis", "tftpd", "talkd", "inetutils-inetd")
MODES = {
    **{"/etc/passwd": 0o644, "/etc/group": 0o644, "/etc/shadow": 0o640, "/etc/gshadow": 0o640},
    **{"/etc/ssh/sshd_config": 0o600, "/etc/crontab": 0o600, "/etc/cron.d": 0o700},
    "/root": 0o700,
}


def skip_unless(target: Host, part: str) -> None:
    """Pass a check over where the inventory turned the part off."""
    name = f"hardening_{part}_enabled"
    if not target.variables.get(name, True):
        pytest.skip(f"{name} is false")


def skip_in_container(host: Connection, why: str) -> None:
    """Pass a check over where the machine below, not the host, decides."""
    if host.run("systemd-detect-virt --container -q").rc == 0:
        pytest.skip(f"a container: {why}")


@pytest.fixture(scope="module")
def sshd(host: Connection) -> dict[str, str]:
    """The settings of sshd as they take effect for everyone."""
    pairs = (line.split(None, 1) for line in ask(host, "sshd -T").splitlines())
    return {pair[0]: pair[1] if len(pair) > 1 else "" for pair in pairs}


# -- firewall -----------------------------------------------------------------------------------
def test_the_firewall_drops_what_is_not_named_and_is_there_after_a_boot(
    host: Connection, target: Host
) -> None:
    skip_unless(target, "firewall")
    assert_unit_runs(host, "rackhand-firewall.service")
    listed = host.run(f"nft -j list table {TABLE}")
    assert listed.rc == 0, f"table {TABLE} is not there: everything is open\n{CURE}"
    assert input_policy(listed.stdout) == "drop", f"{TABLE} does not drop by default\n{CURE}"


def test_the_firewall_lets_in_what_the_inventory_says_and_no_more(
    host: Connection, target: Host, fleet: Fleet
) -> None:
    skip_unless(target, "firewall")
    found = openings_in_force(ask(host, f"nft -j list table {TABLE}"))
    wanted = wanted_openings(fleet, target)
    extra = "; ".join(str(each) for each in sorted(found - wanted))
    missing = "; ".join(str(each) for each in sorted(wanted - found))
    assert not extra, f"open beyond the inventory: {extra}\n{CURE}"
    assert not missing, f"closed against the inventory: {missing}\n{CURE}"


# -- sshd ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("setting", sorted(SSHD))
def test_sshd_is_strict(host: Connection, target: Host, sshd: dict[str, str], setting: str) -> None:
    skip_unless(target, "ssh")
    found = sshd.get(setting, "")
    assert found in SSHD[setting], (
        f"sshd has {setting} {found}, not {' or '.join(sorted(SSHD[setting]))}\n"
        f"cure: look for it below /etc/ssh, then ops provision --tags hardening"
    )


def test_sshd_takes_strong_algorithms_only(
    host: Connection, target: Host, sshd: dict[str, str]
) -> None:
    skip_unless(target, "ssh")
    offered = [n for kind in ("ciphers", "macs", "kexalgorithms") for n in sshd[kind].split(",")]
    weak = [name for name in offered if WEAK.search(name)]
    assert not weak, f"sshd takes {', '.join(weak)}\n{CURE}"


def test_sshd_cuts_who_guesses(host: Connection, target: Host, sshd: dict[str, str]) -> None:
    skip_unless(target, "ssh")
    tries, grace = int(sshd["maxauthtries"]), int(sshd["logingracetime"])
    assert tries <= 6, f"sshd allows {tries} attempts per connection\n{CURE}"
    assert 0 < grace <= 60, f"sshd waits {grace} s for a login\n{CURE}"


# -- updates ------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def apt(host: Connection) -> list[tuple[str, str]]:
    """Apt's settings as they take effect, lists included."""
    found = re.findall(r'^(\S+) "(.*)";$', ask(host, "apt-config dump"), re.MULTILINE)
    return [(name.rstrip(":"), value) for name, value in found]


def test_security_fixes_and_nothing_else_come_by_themselves(
    host: Connection, target: Host, apt: list[tuple[str, str]]
) -> None:
    skip_unless(target, "upgrades")
    assert host.package("unattended-upgrades").is_installed, f"no unattended-upgrades\n{CURE}"
    assert ("APT::Periodic::Unattended-Upgrade", "1") in apt, f"updates are off\n{CURE}"
    lists = ("Unattended-Upgrade::Origins-Pattern", "Unattended-Upgrade::Allowed-Origins")
    origins = [value for name, value in apt if name in lists and value]
    assert origins, f"no origin is allowed: nothing is ever updated\n{CURE}"
    other = [origin for origin in origins if "ecurity" not in origin]
    assert not other, f"updates come also from {'; '.join(other)}\n{CURE}"


def test_updates_come_every_day(host: Connection, target: Host) -> None:
    skip_unless(target, "upgrades")
    skip_in_container(host, "its image decides about timers")
    for timer in ("apt-daily.timer", "apt-daily-upgrade.timer"):
        assert_unit_runs(host, timer)


def test_updates_leave_the_gpu_stack_alone(
    host: Connection, target: Host, apt: list[tuple[str, str]]
) -> None:
    skip_unless(target, "upgrades")
    passed = [value for name, value in apt if name == "Unattended-Upgrade::Package-Blacklist"]
    names = [*GPU_STACK, *(["linux-image-6.8.0-60-generic"] if "gpu" in target.groups else [])]
    moved = [name for name in names if not any(re.match(p, name) for p in passed if p)]
    assert not moved, f"an update would move {', '.join(moved)} under the engines\n{CURE}"


def test_no_update_reboots_the_host_unasked(
    host: Connection, target: Host, apt: list[tuple[str, str]]
) -> None:
    skip_unless(target, "upgrades")
    wanted = bool(target.variables.get("hardening_upgrades_reboot", False))
    found = dict(apt).get("Unattended-Upgrade::Automatic-Reboot", "false") == "true"
    assert found == wanted, f"automatic reboots are {'on' if found else 'off'}\n{CURE}"


# -- fail2ban -----------------------------------------------------------------------------------
def test_who_guesses_or_floods_is_shut_out(host: Connection, target: Host) -> None:
    skip_unless(target, "fail2ban")
    assert_unit_runs(host, "fail2ban.service")
    listed = ask(host, FAIL2BAN, "status").rpartition("Jail list:")[2]
    jails = {name.strip() for name in listed.split(",")}
    edge = {"rackhand-edge-refused", "rackhand-edge-flood"} if "edge" in target.groups else set()
    missing = ({"sshd"} | edge) - jails
    assert not missing, f"no jail {', '.join(sorted(missing))}\n{CURE}"


def test_the_fleets_own_hosts_are_never_shut_out(
    host: Connection, target: Host, fleet: Fleet
) -> None:
    skip_unless(target, "fail2ban")
    answer = host.run(FAIL2BAN, "get sshd ignoreip")
    assert answer.rc == 0, f"fail2ban does not tell whom it spares: {answer.stderr.strip()}\n{CURE}"
    ignored = answer.stdout.strip()
    peers = {each.private_address for each in fleet.hosts if not fleet.single}
    missing = [peer for peer in sorted(peers) if f" {peer}\n" not in f"{ignored}\n"]
    assert not missing, f"fail2ban may shut out {', '.join(missing)}\n{CURE}"


# -- kernel -------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", sorted(SYSCTL))
def test_the_kernel_is_set_strictly(host: Connection, target: Host, name: str) -> None:
    skip_unless(target, "kernel")
    if not name.startswith("net."):
        skip_in_container(host, "the kernel is its machine's")
    shown = host.run("sysctl -n %s", name)
    if shown.rc != 0:
        pytest.skip(f"this kernel has no {name}")
    found = shown.stdout.strip()
    wanted = " or ".join(sorted(SYSCTL[name]))
    assert found in SYSCTL[name], f"{name} is {found}, not {wanted}\n{CURE}"


def test_programs_leave_no_core_dumps(host: Connection, target: Host) -> None:
    skip_unless(target, "kernel")
    found = ask(host, "sh -c 'cat /etc/security/limits.conf /etc/security/limits.d/* || true'")
    assert re.search(r"^\*\s+hard\s+core\s+0", found, re.MULTILINE), f"no limit on cores\n{CURE}"


def test_unused_modules_cannot_be_loaded_and_nvidias_can(host: Connection, target: Host) -> None:
    skip_unless(target, "kernel")
    rules = ask(host, "sh -c 'cat /etc/modprobe.d/*.conf'")
    for name in ("cramfs", "dccp", "rds", "tipc"):
        assert f"install {name} /bin/false" in rules, f"module {name} may be loaded\n{CURE}"
    held = re.findall(r"^(?:install|blacklist) (nvidia\S*)(?: /bin/(?:false|true))?$", rules, re.M)
    assert not held, f"modprobe.d keeps the driver out: {', '.join(held)}\ncure: take that away"


def test_nothing_runs_from_shared_memory_where_no_engine_needs_it(
    host: Connection, target: Host
) -> None:
    skip_unless(target, "kernel")
    default = "gpu" not in target.groups
    if not target.variables.get("hardening_shm_noexec", default):
        pytest.skip("engines compile there")
    options = ask(host, "findmnt -no OPTIONS %s", SHARED_MEMORY).split(",")
    missing = sorted({"noexec", "nosuid", "nodev"} - set(options))
    assert not missing, f"{SHARED_MEMORY} is mounted without {', '.join(missing)}\n{CURE}"


def test_apparmor_is_on_where_the_kernel_has_it(host: Connection) -> None:
    skip_in_container(host, "the kernel is its machine's")
    shown = host.run("cat /sys/module/apparmor/parameters/enabled")
    if shown.rc != 0:
        pytest.skip("this kernel has no AppArmor")
    assert shown.stdout.strip() == "Y", "AppArmor is off\ncure: take apparmor=0 off the boot line"


# -- accounts and files -------------------------------------------------------------------------
def test_no_account_is_without_a_password(host: Connection, target: Host) -> None:
    skip_unless(target, "accounts")
    found = ask(host, "awk -F: '$2 == \"\" {print $1}' /etc/shadow").split()
    assert not found, f"no password: {', '.join(found)}\n{CURE}"


def test_root_alone_is_root(host: Connection) -> None:
    found = ask(host, "awk -F: '$3 == 0 {print $1}' /etc/passwd").split()
    assert found == ["root"], f"accounts with UID 0: {', '.join(found)}\ncure: userdel"


def test_system_accounts_have_no_shell(host: Connection, target: Host) -> None:
    skip_unless(target, "accounts")
    kept = target.variables.get("hardening_accounts_with_shell", ["postgres", "remediator_access"])
    lines = [line.split(":") for line in ask(host, "getent passwd").splitlines()]
    system = [line for line in lines if 0 < int(line[2]) < 1000 and line[0] not in kept]
    shells = ("nologin", "false", "sync", "true", "git-shell")
    with_shell = [line for line in system if line[6].rpartition("/")[2] not in shells]
    loose = [
        line[0]
        for line in with_shell
        if host.run("test -s %s/.ssh/authorized_keys", line[5]).rc != 0
        and host.run("grep -q '^%s:[$]' /etc/shadow", line[0]).rc != 0
    ]
    assert not loose, f"with a shell: {', '.join(loose)}\n{CURE}"


@pytest.mark.parametrize("path", sorted(MODES))
def test_files_are_no_looser_than_they_need_be(host: Connection, target: Host, path: str) -> None:
    skip_unless(target, "accounts")
    shown = host.run("stat -L -c '%%U %%a' %s", path)
    if shown.rc != 0:
        pytest.skip(f"no {path}")
    owner, mode = shown.stdout.split()
    assert owner == "root", f"{path} is {owner}'s\ncure: chown root {path}"
    loose = int(mode, 8) & ~MODES[path]
    assert not loose, f"{path} has mode {mode}, at most {MODES[path]:o} is wanted\n{CURE}"


def test_nothing_of_the_system_can_be_written_by_everyone(host: Connection) -> None:
    places = "/etc /usr /opt /srv /boot"
    found = host.run(f"find {places} -xdev -perm -o+w ! -type l ! -type s ! -perm -1000 -print")
    paths = found.stdout.split("\n")[:10]
    assert not found.stdout.strip(), f"writable by everyone: {', '.join(paths)}\ncure: chmod o-w"


def test_no_unknown_program_runs_as_its_owner(host: Connection) -> None:
    found = host.run("find /usr /opt /srv -xdev -type f -perm /4000 -printf '%f %p\\n'").stdout
    pairs = [line.split(" ", 1) for line in found.splitlines()]
    unknown = [path for name, path in pairs if name not in KNOWN_SETUID]
    assert not unknown, f"setuid: {', '.join(unknown)}\ncure: chmod u-s, or find out what it is"


def test_sudo_is_sound_and_uses_a_terminal_of_its_own(host: Connection, target: Host) -> None:
    skip_unless(target, "accounts")
    judged = host.run("visudo -c")
    assert judged.rc == 0, f"sudo's files are broken: {judged.stdout}{judged.stderr}"
    rules = ask(host, "sh -c 'cat /etc/sudoers /etc/sudoers.d/*'")
    assert re.search(r"^Defaults\s.*use_pty", rules, re.MULTILINE), f"no use_pty\n{CURE}"


def test_nobody_else_may_write_what_people_create(host: Connection, target: Host) -> None:
    skip_unless(target, "accounts")
    found = re.search(r"^UMASK\s+(\d+)", ask(host, "cat /etc/login.defs"), re.MULTILINE)
    mask = int(found.group(1), 8) if found else 0
    assert mask & 0o022 == 0o022, f"login.defs has UMASK {mask:03o}\n{CURE}"


def test_a_banner_stands_before_the_login(host: Connection, target: Host) -> None:
    skip_unless(target, "accounts")
    if target.variables.get("hardening_banner", "x") == "":
        pytest.skip("hardening_banner is empty")
    text = ask(host, "cat /etc/issue.net")
    assert not re.search(r"Debian|Ubuntu|\\[mrsv]", text), f"/etc/issue.net tells: {text}\n{CURE}"


def test_no_old_service_is_installed(host: Connection) -> None:
    found = [name for name in UNWANTED if host.package(name).is_installed]
    assert not found, f"installed: {', '.join(found)}\ncure: apt-get purge {' '.join(found)}"


# -- units --------------------------------------------------------------------------------------
def test_every_unit_of_ours_is_sandboxed(host: Connection) -> None:
    patterns = " ".join(f"'{pattern}'" for pattern in OUR_UNITS)
    listed = ask(host, f"systemctl list-units --all --plain --no-legend {patterns}")
    units = [line.split()[0] for line in listed.splitlines() if " not-found " not in line]
    exposed = []
    for unit in units:
        said = ask(host, "systemd-analyze security --no-pager %s", unit)
        level = float(re.search(r"Overall exposure level for \S+: ([\d.]+)", said).group(1))  # type: ignore[union-attr]
        if level > MOST_EXPOSED:
            exposed.append(f"{unit} {level}")
    assert not exposed, (
        f"exposed beyond {MOST_EXPOSED}: {', '.join(exposed)}\n"
        "cure: look for a drop-in that loosens it: systemctl cat UNIT"
    )
