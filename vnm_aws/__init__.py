"""Run OpenNebula's networks on AWS bare-metal hosts.

The rooms in their order: each imports only those of lines before its own, see tests/unit/test_house.py.

    errors, names, table
    addresses, files, journal, processes
    lock, mtu
    document, reach
    rules
    config, vm
    overlay, underlay
    driver, frontend
    cli
"""

__version__ = "0.1.0"
