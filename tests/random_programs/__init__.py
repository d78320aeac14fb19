"""Random pairs (model, guide), checked against Pyro itself, closed forms and brute force.

``spec`` draws a specification from a seed, ``source`` writes it as a stand-alone program, ``build``
runs that text, ``reference`` computes trusted numbers in plain Pyro, ``check`` compares, ``faults``
names the likely fault.
"""
