"""SAM2Long's method in plain numbers, to be read beside the paper: no video, no sam2.

`tree` grows and prunes the hypotheses, `memory` says which past frames a pathway reads, `modulation` how much it
listens to each.
"""
