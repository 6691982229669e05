"""A video under way: frames, prompts, objects and their pathways, and what is kept of them."""
