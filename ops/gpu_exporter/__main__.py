"""`python -m ops.gpu_exporter`."""

from ops.gpu_exporter.main import main

if __name__ == "__main__":
    raise SystemExit(main())
