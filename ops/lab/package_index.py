"""The control machine's Python package sources, as uv and pip in a chamber are told them."""

from __future__ import annotations

from pathlib import Path

from ops.lab import control_machine

TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def folders() -> dict[str, Path]:
    """Local folders that a chamber needs read-only, at the paths they have here.

    An index in a folder links to files beside it, so its parent is what is needed.
    """
    found: set[Path] = set()
    for key, sources in control_machine.pip_settings().items():
        for source in filter(control_machine.is_local, sources):
            folder = control_machine.local_folder(source)
            found.add(folder if key == "find-links" else folder.parent)
    return {str(folder): folder for folder in sorted(found) if folder.is_dir() and folder.name}


def uv_environment() -> dict[str, str]:
    """pip's settings in uv's words; every package is pinned by hash, so any index may serve it.

    Without a local wheel folder PyTorch's own index is added, which alone has its CPU builds.
    """
    settings = _existing_sources()
    extra = settings.get("extra-index-url", [])
    if not settings.get("find-links"):
        extra = [*extra, TORCH_CPU_INDEX]
    environment = {"UV_INDEX_STRATEGY": "unsafe-best-match", "UV_INDEX": " ".join(extra)}
    if index := settings.get("index-url"):
        environment["UV_DEFAULT_INDEX"] = index[0]
    if links := settings.get("find-links"):
        environment["UV_FIND_LINKS"] = ",".join(links)
    return {name: value for name, value in environment.items() if value} | _proxy(settings)


def pip_environment() -> dict[str, str]:
    """pip's settings as variables."""
    settings = _existing_sources()
    environment = {f"PIP_{k.upper().replace('-', '_')}": " ".join(v) for k, v in settings.items()}
    return {"PIP_CERT": str(control_machine.CA_BUNDLE), **environment, **_proxy(settings)}


def _existing_sources() -> dict[str, list[str]]:
    def usable(source: str) -> bool:
        return not control_machine.is_local(source) or control_machine.local_folder(source).is_dir()

    settings = control_machine.pip_settings()
    return {key: [v for v in values if usable(v)] for key, values in settings.items()}


def _proxy(settings: dict[str, list[str]]) -> dict[str, str]:
    proxy = settings.get("proxy")
    return {"http_proxy": proxy[0], "https_proxy": proxy[0]} if proxy else {}
