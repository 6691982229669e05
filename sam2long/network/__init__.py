"""The only rooms that know the insides of sam2 and torch: encode a frame, read memory, propose masks, remember."""
