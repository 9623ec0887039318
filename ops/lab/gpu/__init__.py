"""The simulated GPU: NVML and `nvidia-smi` over a description file, for the lab only."""
