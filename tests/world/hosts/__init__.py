"""Metal hosts: namespaces, or emulated machines with a kernel of their own."""
