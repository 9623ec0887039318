"""What a machine outside the fleet sees of its hosts' ports."""

import subprocess
from xml.etree import ElementTree

# Every port of docs/architecture.md, and what lies around them.
SCANNED = "1-1024,3000-3010,5000-5500,6379-6390,8000-8600,9000-9900"


def scan(addresses: list[str]) -> dict[str, dict[int, str]]:
    """What nmap sees of hosts' TCP ports from this machine, which is no host of the fleet."""
    command = ["nmap", "-n", "-Pn", "-sS", "-T5", "--max-retries", "1", "-p", SCANNED, "-oX", "-"]
    done = subprocess.run([*command, *addresses], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[int, str]] = {}
    for host in ElementTree.fromstring(done.stdout).iter("host"):
        ports = {
            int(port.get("portid", 0)): port.find("state").get("state", "")  # type: ignore[union-attr]
            for port in host.iter("port")
        }
        found[host.find("address").get("addr", "")] = ports  # type: ignore[union-attr]
    return found
