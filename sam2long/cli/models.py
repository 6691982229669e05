"""`sam2long models`: which checkpoints there are, and where they lie."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Models:
    """List the models that --model takes, and where their weights are on this machine."""

    def run(self) -> int:
        from sam2long.network.transformers_loading import KNOWN
        from sam2long.weights import CHECKPOINT_DIR_VARIABLE, CHECKPOINTS, checkpoint_dirs

        rows = [("model", "weights", "where")]
        for checkpoint in CHECKPOINTS.values():
            path = checkpoint.local_path()
            if path is not None:
                where = str(path)
            elif checkpoint.hub_id is None:
                where = "missing from this installation"
            else:
                where = f"not here; fetched from the Hugging Face hub ({checkpoint.hub_id}) on first use"
            rows.append((checkpoint.name, checkpoint.file, where))
        for name, licence in KNOWN.items():
            rows.append((name, licence, 'through transformers: pip install "sam2long[hf]"'))
        widths = [max(len(row[column]) for row in rows) for column in range(2)]
        for name, file, where in rows:
            print(f"{name:{widths[0]}}  {file:{widths[1]}}  {where}")
        print(
            f"\nLooked in {', '.join(str(folder) for folder in checkpoint_dirs())} and the Hugging Face cache; "
            f"set {CHECKPOINT_DIR_VARIABLE} to add a folder.\n"
            "--model also takes any hub id or folder of transformers with hf: before it, a sam2 config name, or the "
            "path of a YAML; --checkpoint takes a .pt or .safetensors."
        )
        return 0
