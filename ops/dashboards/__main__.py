"""`python -m ops.dashboards`: write Grafana's JSON anew after a change of a dashboard."""

from __future__ import annotations

from ops.dashboards import DASHBOARDS
from ops.dashboards.grafana import render
from ops.places import ROOT

FOLDER = ROOT / "roles/grafana/files/dashboards"


def main() -> None:
    """Write a file a dashboard, and remove those of dashboards that are gone."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    texts = {f"{board.name}.json": render(board) for board in DASHBOARDS}
    for name, text in texts.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    for path in FOLDER.glob("*.json"):
        if path.name not in texts:
            path.unlink()


if __name__ == "__main__":
    main()
