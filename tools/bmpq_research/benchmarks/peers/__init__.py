"""What runs in the peers' own virtual environments.

One script, the networks that every contestant trains, pinned requirements.
"""
