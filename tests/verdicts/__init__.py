"""Cases of security groups, tried with real packets: `make verdicts`.

cases.py reads them, evaluator.py says what the semantics of security groups make of one, and trial.py says what the
driver makes of it: documents.py makes the VMs, packets.py what is sent, and wires.py sends it and sees what arrives.
"""
