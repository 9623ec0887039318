"""The lab's package mirror: NVIDIA's and Ubuntu's names, versions and dependencies, signed."""
