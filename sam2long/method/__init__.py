"""SAM2Long's method in plain numbers, to be read beside the paper (arXiv 2410.16268): no video, no sam2.

One object; P pathways, K masks each. What is not named here is SAM 2's own (Sec. 3.1).

    pathways = [root(prompt)]                                   # one hypothesis, score 0
    for each frame after the prompted one:
        for p in pathways:                                      # Sec. 3.2: each goes on with its own memory
            reading = memory.read(p.memories, prompts)          # Sec. 3.3: the latest reliable frames,
            weights = modulation.rank_weights(object_logits)    #   the more visible the object, the louder
            masks[p, K], ious[p, K], logit[p] = decode(attend(image, reading, weights))
        candidates = tree.expand(scores, ious)                  # Sec. 3.2: score + log(iou + eps), P * K, best first
        if tree.is_certain(logits):                             # some |logit| above delta_conf:
            kept = candidates[:P]                               #   the best
        else:                                                   # nobody is sure:
            kept = tree.keep_distinct(candidates, P)            #   the best of those whose IoUs differ
        pathways = [memory.remember(c.parent.memories, encode(c.mask)) for c in kept]
    answer = the masks of the best pathway, read back           # tree.settled: as soon as all pathways agree on them

`tree.decide` is the middle of it, with the start after a prompt and the rule for twins.
"""
