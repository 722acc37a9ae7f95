"""One machine: the binaries, folders, users and PostgreSQL servers of the demo and of the tests.

A real site is made by Ansible and run by Patroni and systemd; nothing here takes part in it.
"""
