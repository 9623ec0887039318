"""Package mirrors for closed sites: what a GPU fleet's hosts install, exactly, and its copy.

`driver_packages` is a link to the module that the role uses, so that both ask for the same names.
"""
