"""Bundles for closed sites: everything that an inventory needs from outside, signed and whole.

What is needed is read from the roles' own tasks (`role_tasks`), so that no list stands twice.
"""
