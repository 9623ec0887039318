"""The `ops` command and its parts: what keeps a fleet running after `site.yml`."""
