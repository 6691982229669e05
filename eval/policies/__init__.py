"""Ideas of others and of our own on SAM2Long's tree, to be measured under one protocol.

Each module is one policy: rules in plain numbers and masks, and a mixin that lets a `Track` follow them. None is part
of the package that users install: what gains on real video moves there. `python scripts/ablate.py --tables policies`
compares them; configs/policies holds their settings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from eval.policies import calibrated, distractors, fusion, motion, recovery
from sam2long.errors import ConfigError
from sam2long.tracking.track import Track

# In the order in which they see a frame: what changes numbers comes before what decides by them.
KINDS = {
    "calibrated": calibrated.Calibrated,
    "motion": motion.MotionAware,
    "distractors": distractors.DistractorAware,
    "fusion": fusion.Fused,
    "recovery": recovery.Recovering,
}


def track_class(base: type[Track], policies: Mapping[str, Mapping[str, Any]]) -> type[Track]:
    """`base` with these policies.

    Args:
        policies: name -> what differs from the defaults of its `Rules`.
    Raises:
        ConfigError: a name or a rule that does not exist.
    """
    if unknown := sorted(set(policies) - set(KINDS)):
        raise ConfigError(f"unknown policy {', '.join(unknown)}; the policies are {', '.join(KINDS)}")
    mixins, members = [], {}
    for name, kind in KINDS.items():
        if name in policies:
            known = {field.name for field in dataclasses.fields(kind.Rules)}
            if odd := sorted(set(policies[name]) - known):
                raise ConfigError(
                    f"the policy {name} has no {', '.join(odd)}; it has {', '.join(sorted(known)) or 'no settings'}"
                )
            mixins.append(kind)
            members[f"{name}_rules"] = kind.Rules(**policies[name])
    return type("PolicyTrack", (*mixins, base), members) if mixins else base
