"""What runs in the peers' own virtual environments: one script, the networks that every contestant trains, pinned requirements."""
