# Copyright: the Rackhand founders
"""From the inventory's words to one apt transaction of exact versions, judged before it starts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.rackhand.host.plugins.module_utils.driver_apt import (
    Apt,
    AptError,
    kept_package,
)
from ansible_collections.rackhand.host.plugins.module_utils.driver_judgement import (
    choose_version,
    judge_steps,
    uncovered_kernels,
)
from ansible_collections.rackhand.host.plugins.module_utils.driver_packages import (
    Host,
    Plan,
    Refusal,
    Step,
    Wanted,
    branch_in,
    branch_of,
    dcgm_names,
    driver_names,
    is_driver,
    is_other_kind,
    leftovers,
    pins,
    upstream,
)
from ansible_collections.rackhand.host.plugins.module_utils.gpu_hardware import kernel_order

KERNEL_IMAGE = re.compile(r"linux-image-(?:unsigned-)?(\d\S+)$")


@dataclass
class Resolution:
    """One question to apt: what is wanted on this host, and what is there.

    Args:
        host: The host.
        wanted: The inventory's words.
        module: `open` or `proprietary`, as chosen.
        installed: Installed packages of the driver and the kernel.
        cuda_url: Where NVIDIA's repository is, to tell its packages from Ubuntu's of the same name.
        update: Whether to go to the newest version of the branch.
    """

    host: Host
    wanted: Wanted
    module: str
    installed: Mapping[str, str]
    cuda_url: str = ""
    update: bool = False
    packages: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """All packages to ask for by name, the driver's own first."""
        names = driver_names(self.host, self.wanted, self.module)
        names += dcgm_names(self.wanted.branch) if self.wanted.dcgm else []
        return list(dict.fromkeys([*names, *self.wanted.extra]))

    @property
    def kernel_image(self) -> str:
        """The kernel's metapackage, which moves with signed modules."""
        return f"linux-image-{self.wanted.flavour}"

    def version(self, packages: Mapping[str, str]) -> str:
        """The driver's version among these packages: `580.178.04`, or nothing."""
        names = self.packages or self.names
        found = (upstream(packages.get(name, "")) for name in names if is_driver(name))
        return next(filter(None, found), "")

    def stack(self, packages: Mapping[str, str]) -> dict[str, str]:
        """Of these packages the driver's, and the kernel's where its modules are bound to it."""
        modules = [n for n in packages if n.startswith("linux-modules-nvidia-")]
        signed = modules if self.wanted.channel == "archive" else []
        return {
            name: version
            for name, version in packages.items()
            if is_driver(name)
            or (signed and name == self.kernel_image)
            or (signed and any(m.endswith(kernel_of(name) or "?") for m in signed))
        }

    def is_settled(self) -> bool:
        """Whether dpkg has what is wanted, so that apt need not be asked."""
        if leftovers(self.installed, self.wanted, self.module):
            return False
        if self.packages:
            return all(self.installed.get(n) == v for n, v in self.packages.items())
        if self.update or not all(name in self.installed for name in self.names):
            return False
        version = self.installed[self.names[0]]
        if branch_of(version) != self.wanted.branch:
            return False
        if self.wanted.version and upstream(version) != self.wanted.version:
            return False
        return all(
            upstream(self.installed[name]) in ("", upstream(version))
            for name in self.names
            if is_driver(name)
        )

    # -- the plan -----------------------------------------------------------------------------
    def plan(self, apt: Apt) -> Plan:
        """The transaction, judged.

        Raises:
            Refusal: it would not be what was asked for.
            AptError: apt would not do it.
        """
        steps = self._steps_back(apt) if self.packages else self._steps_forward(apt)
        judge_steps(steps, self.wanted, self.module)
        plan = Plan.of(steps)
        plan.files = {n: kept_package(n, v) for n, v in self._gone(apt, plan.install).items()}
        return self._cover_kernels(plan)

    def _versions(self, apt: Apt, *names: str) -> dict[str, list[str]]:
        if self.wanted.channel == "cuda":
            return apt.versions(*names, url=self.cuda_url)
        return apt.versions(*names, without=self.cuda_url)

    def _steps_forward(self, apt: Apt) -> list[Step]:
        asked = [name for name in self.names if is_driver(name)]
        offered = self._versions(apt, *asked)
        anchor = asked[0]
        known = self._branches(apt)
        target = self._stub_target(apt, anchor, offered[anchor])
        version = choose_version(self.wanted, anchor, offered[anchor], known, target)
        current = self.installed.get(anchor, "")
        if not self.update and not self.wanted.version and current in offered[anchor]:
            version = current if branch_of(current) == self.wanted.branch else version
        exact = at_upstream(offered, version)
        self._judge_missing(asked, exact, offered, version)
        self._judge_headers(apt)
        exact |= at_upstream(self._versions(apt, *self._companions(asked)), version)
        free = [name for name in self.names if name not in exact and not self._is_modules(name)]
        gone = [f"{name}-" for name in self._foreign() if name not in exact]
        words = [*(f"{n}={v}" for n, v in exact.items()), *free, *gone]
        preferences = pins(exact) + self._seed(version)
        if self.wanted.channel != "archive":
            return apt.simulate(words, preferences)
        return self._steps_with_kernel(apt, words, preferences)

    def _companions(self, asked: Sequence[str]) -> list[str]:
        """What else of a driver is installed, and has a name that the wanted one would have too."""
        return [
            name
            for name in self.installed
            if is_driver(name)
            and name not in asked
            and branch_in(name) in ("", self.wanted.branch)
            and not is_other_kind(name, self.module)
        ]

    def _foreign(self) -> list[str]:
        """Installed packages that cannot stay beside the wanted driver, or move to it."""
        bare_dcgm = ["datacenter-gpu-manager"] if self.wanted.dcgm else []
        gone = leftovers(self.installed, self.wanted, self.module)
        return [*gone, *(name for name in bare_dcgm if name in self.installed)]

    def _stub_target(self, apt: Apt, name: str, versions: Sequence[str]) -> str:
        """The branch at which a stub ends, maybe by way of other stubs; empty if it is none."""
        if not versions or any(branch_of(v) == self.wanted.branch for v in versions):
            return ""
        coming = {s.name: s.version for s in apt.simulate([name], "")}
        packages = {**self.installed, **coming}
        libraries = [v for n, v in packages.items() if n.startswith("libnvidia-compute")]
        return branch_of(libraries[-1]) if libraries else ""

    @staticmethod
    def _is_modules(name: str) -> bool:
        return name.startswith("linux-modules-nvidia-")

    def _seed(self, version: str) -> str:
        """Preferences that lead apt's own choice of dependencies to this version of the driver."""
        return (
            f"\nPackage: *nvidia* cuda-drivers* libcuda1\nPin: version {version}\nPin-Priority: 1001\n"
            f"\nPackage: *nvidia* cuda-drivers* libcuda1\nPin: version {upstream(version)}*\n"
            "Pin-Priority: 1000\n"
        )

    def _judge_missing(
        self,
        asked: Sequence[str],
        exact: Mapping[str, str],
        offered: Mapping[str, Sequence[str]],
        version: str,
    ) -> None:
        for name in asked:
            if name in exact or self._is_modules(name):
                continue
            has = ", ".join(offered[name]) or "no version"
            raise Refusal(
                f"driver {upstream(version)} needs {name}, of which the repositories have {has}",
                "wait until the mirror is complete, or set nvidia_driver_version to a version "
                "that all of its packages have",
            )

    def _judge_headers(self, apt: Apt) -> None:
        headers = [name for name in self.names if name.startswith("linux-headers-")]
        missing = [n for n in headers if n not in self.installed and not apt.versions(n)[n]]
        if missing:
            raise Refusal(
                f"DKMS builds the module with {missing[0]}, which no repository of this host has",
                "boot a kernel that the repositories have headers for, or add the repository",
            )

    def _branches(self, apt: Apt) -> list[str]:
        """Branches that the index really has: no stubs."""
        if self.wanted.channel == "archive":
            names = [
                n
                for n in apt.names("nvidia-headless-no-dkms-")
                if re.search(r"-\d{3}-server(-open)?$", n)
            ]
            found = self._versions(apt, *names) if names else {}
            return sorted({branch_of(v) for n, vs in found.items() for v in vs[:1]
                           if f"-{branch_of(v)}-" in n})  # fmt: skip
        names = [n for n in apt.names("libnvidia-compute") if n.count("-") <= 2]
        found = self._versions(apt, "nvidia-driver-cuda", *names)
        return sorted({branch_of(v) for versions in found.values() for v in versions} - {""})

    def _steps_with_kernel(self, apt: Apt, words: list[str], preferences: str) -> list[Step]:
        """Try modules of the kernel that boots next, then the newest; an update the newest first."""
        modules = next(name for name in self.names if self._is_modules(name))
        found = apt.versions(modules, self.kernel_image)
        candidates = found[modules]
        if self.host.kernels and not self.update:
            here = abi(self.host.kernels[-1])
            candidates = sorted(candidates, key=lambda v: abi(v) != here)
        refused: AptError | None = None
        for version in candidates:
            image = [v for v in found[self.kernel_image] if abi(v) == abi(version)]
            kernel = [f"{self.kernel_image}={image[0]}"] if image else []
            try:
                return apt.simulate([*words, f"{modules}={version}", *kernel], preferences)
            except AptError as error:
                refused = refused or error
        raise refused or Refusal(
            f"no repository of this host has {modules}: branch {self.wanted.branch} has no signed "
            f"{self.module} modules for kernels of flavour {self.wanted.flavour}",
            "set nvidia_driver_kernel to the flavour of the host's kernel, or choose another branch",
        )

    # -- back ---------------------------------------------------------------------------------
    def _steps_back(self, apt: Apt) -> list[Step]:
        gone = self._gone(apt, self.packages)
        lost = {n: v for n, v in gone.items() if not kept_package(n, v)}
        if lost:
            words = ", ".join(f"{n} {v}" for n, v in sorted(lost.items()))
            raise Refusal(
                f"no repository has, and this host did not keep: {words}",
                "use a mirror that keeps old versions, or go forward to a version that is offered",
            )
        words = [kept_package(n, v) or f"{n}={v}" if n in gone else f"{n}={v}"
                 for n, v in self.packages.items()]  # fmt: skip
        came = [n for n in self.installed if is_driver(n) and n not in self.packages]
        return apt.simulate([*words, *(f"{name}-" for name in came)], pins(self.packages))

    def _gone(self, apt: Apt, packages: Mapping[str, str]) -> dict[str, str]:
        """Versions that are not installed and that no repository offers."""
        open_ = {n: v for n, v in packages.items() if self.installed.get(n) != v}
        offered = apt.versions(*open_) if open_ else {}
        return {n: v for n, v in open_.items() if v not in offered[n]}

    def _cover_kernels(self, plan: Plan) -> Plan:
        """See to it that the kernel which boots next has a driver.

        Raises:
            Refusal: a newer kernel without signed modules would boot.
        """
        after = [n for n in {**self.installed, **plan.install} if n not in plan.remove]
        coming = filter(None, map(kernel_of, plan.install))
        kernels = sorted({*self.host.kernels, *coming}, key=kernel_order)
        bare = uncovered_kernels(kernels, after, self.wanted)
        if not bare:
            return plan
        if not self.packages:
            raise Refusal(
                f"kernel {bare[-1]} would boot next, and this driver has no signed modules for it",
                f"remove linux-image-{bare[-1]}, or choose a branch that has modules for it",
            )
        images = [f"{kind}{k}" for k in bare for kind in ("linux-image-", "linux-image-unsigned-")]
        plan.remove += [n for n in images if n in self.installed and n not in plan.remove]
        return plan


def at_upstream(offered: Mapping[str, Sequence[str]], version: str) -> dict[str, str]:
    """Of each package the newest version that belongs to the same release of the driver."""
    same = {n: [v for v in vs if upstream(v) == upstream(version)] for n, vs in offered.items()}
    return {name: versions[0] for name, versions in same.items() if versions}


def kernel_of(package: str) -> str:
    """The release `6.8.0-90-generic` whose image a package is; empty if it is none."""
    found = KERNEL_IMAGE.match(package)
    return found[1] if found else ""


def abi(text: str) -> str:
    """`6.8.0-90` of a kernel release or of a package version `6.8.0-90.91`.

    A metapackage writes its ABI with a dot: 6.8.0.90.91 or 6.14.0-37.37~24.04.1.
    """
    found = re.match(r"(\d+\.\d+\.\d+)[-.](\d+)", text)
    return f"{found[1]}-{found[2]}" if found else text
