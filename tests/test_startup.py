"""Slow packages are imported by what needs them alone; fresh processes say what they imported, nothing is timed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SLOW = (
    *("torch", "torch._dynamo", "torchmetrics", "timm", "transformers", "peft"),
    *("scipy", "matplotlib", "sklearn", "datasets"),
)
ROBERTA = """
from transformers import RobertaConfig
import open_clip
config = RobertaConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
config.save_pretrained(FOLDER)
text = {"hf_model_name": FOLDER, "hf_model_pretrained": False, "hf_proj_type": "linear"}
vision = {"image_size": 32, "patch_size": 16, "width": 8, "layers": 1, "head_width": 8}
"""


def run(code: str) -> str:
    """What a fresh process prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported(code: str) -> set[str]:
    """The slow packages that a fresh process has imported after some code."""
    last = run(f"{code}\nimport sys\nprint('\\n' + ' '.join(name for name in {SLOW} if name in sys.modules))")
    return set(last.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code", ["import clipadapt", "from clipadapt.cli import main; main(['--help'])", "import clipadapt.config"]
)
def test_help_and_the_package_import_nothing_slow(code):
    assert imported(code) == set()


def test_the_embedded_backbone_needs_torch_alone():
    assert imported("import clipadapt; clipadapt.load_backbone('tiny')") == {"torch"}


def test_a_package_that_is_imported_is_seen():
    assert imported("import scipy") == {"scipy"}


@pytest.mark.slow
def test_transformers_can_be_imported_afterwards():
    code = "import clipadapt; clipadapt.load_backbone('tiny'); from transformers import AutoConfig; print(AutoConfig)"
    assert "AutoConfig" in run(code)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["", "import transformers"], ids=["postponed", "imported before"])
def test_a_text_tower_of_hugging_face_is_built_and_pickled(tmp_path, first):
    code = f"""
{first}
import clipadapt, pickle, torch
clipadapt.load_backbone("tiny")
FOLDER = {str(tmp_path)!r}
{ROBERTA}
for _ in range(2):
    model = open_clip.CustomTextCLIP(embed_dim=8, vision_cfg=dict(vision), text_cfg=dict(text))
assert type(model.text) is open_clip.hf_model.HFTextEncoder is open_clip.model.HFTextEncoder
model = pickle.loads(pickle.dumps(model.eval()))
print(tuple(model.encode_text(torch.tensor([[0, 5, 2], [0, 6, 2]])).shape))
"""
    assert run(code).splitlines()[-1] == "(2, 8)"


@pytest.mark.slow
def test_without_transformers_a_text_tower_of_hugging_face_says_so():
    code = """
import sys
sys.modules["transformers"] = None
import clipadapt
clip = clipadapt.load_backbone("tiny")
assert sys.modules["transformers"] is None
try:
    clipadapt.load_backbone("roberta-ViT-B-32", None)
except clipadapt.errors.UserError as error:
    print(error)
"""
    assert "install transformers" in run(code)
