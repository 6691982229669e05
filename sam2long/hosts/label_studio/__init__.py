"""Label Studio: `sam2long label-studio`, a backend that speaks its ML protocol. Nothing of Label Studio is imported."""
