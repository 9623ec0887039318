"""Run playbooks through ansible-runner, with progress that a person can read."""

from ops.playbook.progress import Counts, Failure, Progress
from ops.playbook.run import run_playbook

__all__ = ["Counts", "Failure", "Progress", "run_playbook"]
