"""Training of the embedded nano model; the commands are in scripts/train_nano.py."""
