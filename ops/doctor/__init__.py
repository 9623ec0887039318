"""`ops doctor`: what ails hosts, why, and the command that cures it.

`evidence/` gathers what is (standard library of a host's own Python), `rules/` turn that into
findings on this machine. The two share nothing but a JSON document, so that every rule is tested
without a host. Nothing here changes a host.
"""
