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
        # nmap tells the state that most ports have in one element, and each other port by itself.
        ports = {
            port: extra.get("state", "")
            for extra in host.iter("extraports")
            for reasons in extra.iter("extrareasons")
            for port in numbers(reasons.get("ports", ""))
        }
        ports |= {
            int(port.get("portid", 0)): port.find("state").get("state", "")  # type: ignore[union-attr]
            for port in host.iter("port")
        }
        assert len(ports) == len(numbers(SCANNED)), "the state of every port is known"
        found[host.find("address").get("addr", "")] = ports  # type: ignore[union-attr]
    return found


def numbers(ranges: str) -> list[int]:
    """The ports of `1-3,7`."""
    ends = (each.partition("-") for each in ranges.split(","))
    return [port for low, _, high in ends for port in range(int(low), int(high or low) + 1)]
