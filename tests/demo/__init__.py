"""The demo: the main job in the lab, measured and drawn."""
