"""The simulated kernel of a lab host with GPUs: release, module loader, PCI and EFI entries."""
