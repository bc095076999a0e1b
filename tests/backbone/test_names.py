"""Nothing outside of its family's file reads the names that open_clip gives to the parts of a model."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FAMILY = ROOT / "clipadapt" / "backbone" / "open_clip.py"
NAMES = {
    *("visual", "resblocks", "transformer", "ln_pre", "ln_post", "ln_final", "conv1", "bn1", "layer1"),
    *("class_embedding", "positional_embedding", "token_embedding", "text_projection", "proj", "attnpool"),
    *("attn_pool", "pool_type", "text_pool_type", "attn_mask", "cls_emb", "output_dim", "context_length"),
    *("sot_token_id", "eot_token_id", "clean_fn", "logit_scale"),
}
OURS = {"context_length", "visual", "logit_scale"}
"""Names that parts of ours have, too, and read of themselves."""
EXPORTS = {ROOT / "clipadapt" / "exports" / f"{name}.py" for name in ("open_clip_checkpoint", "transformers_model")}
"""Files that write a model of open_clip's shape for others."""


def reads(path: Path) -> dict[str, list[int]]:
    """Return open_clip's names that a file reads as attributes, also by `getattr` and `hasattr`, with their lines."""
    found: dict[str, list[int]] = {}
    for node in ast.walk(ast.parse(path.read_text())):
        name = None
        if isinstance(node, ast.Attribute):
            own = node.attr in OURS and isinstance(node.value, ast.Name) and node.value.id == "self"
            name = None if own else node.attr
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr", "setattr"):
            name = getattr(node.args[1], "value", None)
        if name in NAMES:
            found.setdefault(name, []).append(node.lineno)
    return found


def test_the_family_reads_them():
    assert len(reads(FAMILY)) > 25


def test_no_other_file_reads_them():
    files = [path for path in sorted((ROOT / "clipadapt").rglob("*.py")) if path not in (FAMILY, *EXPORTS)]
    found = {str(path.relative_to(ROOT)): names for path in files if (names := reads(path))}
    assert len(files) > 100 and not found
