"""The rehearsal fleet: booted systemd hosts on one machine, reached over real SSH."""
