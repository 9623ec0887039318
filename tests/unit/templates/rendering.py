"""Renders a role's templates with Ansible's own templar, as `rackhand.host.tree` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template

ROOT = Path(__file__).parents[3]
BOOKWORM = {"distribution": "Debian", "distribution_major_version": "12"}
TRIXIE = {"distribution": "Debian", "distribution_major_version": "13"}
JAMMY = {"distribution": "Ubuntu", "distribution_major_version": "22"}

init_plugin_loader([str(ROOT / "collections")])


class Role:
    """A role's variables, as a host of the given facts would see them."""

    def __init__(self, name: str, facts: dict[str, str], **variables: Any) -> None:
        self.folder = ROOT / "roles" / name
        self.loader = DataLoader()
        self.loader.set_basedir(str(ROOT / "templates"))  # what several roles include
        self.variables: dict[str, Any] = {"ansible_facts": facts, "ansible_check_mode": False}
        for part in ("defaults", "vars"):
            source = self.folder / part / "main.yml"
            if source.exists():
                text = self.loader.load_from_file(str(source), trusted_as_template=True)
                self.variables |= text or {}
        self.variables |= {"ansible_managed": "managed"} | variables

    def render(self, template: str, **variables: Any) -> str:
        """Return what `templates/<template>` becomes."""
        text = (self.folder / "templates" / template).read_text(encoding="utf-8")
        templar = Templar(loader=self.loader, variables=self.variables | variables)
        options = {"trim_blocks": True, "lstrip_blocks": True}
        return str(templar.template(trust_as_template(text), overrides=options))

    def value(self, name: str) -> Any:
        """Return a variable as tasks see it."""
        return self.evaluate(name)

    def evaluate(self, expression: str, **variables: Any) -> Any:
        """Return what an expression gives among the role's variables."""
        templar = Templar(loader=self.loader, variables=self.variables | variables)
        return templar.evaluate_expression(trust_as_template(expression))
