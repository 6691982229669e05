"""How many corrections a video takes: a simulated annotator goes where a rule says, and corrects there."""
