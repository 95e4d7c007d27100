"""The package as a whole: what is documented, typed and shown."""

import inspect
import os
import re
import subprocess
import sys

import pytest
from conftest import RED_CIRCLE, ROOT, folder_of

import mistralrs

EXAMPLES = sorted((ROOT / "examples/python").glob("*.py"))
WALKTHROUGH = '''
from mistralrs import ChatCompletionRequest, MultimodalArchitecture, Runner, Which
runner = Runner(which=Which.MultimodalPlain(model_id="Qwen/Qwen3-VL-4B-Instruct", arch=MultimodalArchitecture.Qwen3VL), in_situ_quant="4")
response = runner.send_chat_completion_request(ChatCompletionRequest(model="default", messages=[{
    "role": "user",
    "content": [
        {"type": "image_url", "image_url": {"url": "PICTURE"}},
        {"type": "text", "text": "What is in this picture?"},
    ],
}], max_tokens=256))
print(response.choices[0].message.content)
'''


def python(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "crates/python")}
    done = subprocess.run([sys.executable, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_walkthrough_runs_as_it_stands():
    program = WALKTHROUGH.replace("Qwen/Qwen3-VL-4B-Instruct", folder_of("qwen3_vl")).replace("PICTURE", RED_CIRCLE.as_uri())
    assert python("-c", program).strip()


def test_a_stub_says_what_the_module_has():
    python("-m", "mypy.stubtest", "mistralrs._native", "--mypy-config-file", "pyproject.toml")


def test_types_are_right():
    python("-m", "mypy", "crates/python/mistralrs", *map(str, EXAMPLES))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(example):
    assert python(str(example)).strip()


def test_everything_is_explained():
    silent = []
    for name in mistralrs.__all__:
        thing = getattr(mistralrs, name)
        members = [(name, thing)] + [
            (f"{name}.{own}", member)
            for own, member in vars(thing).items()
            if not own.startswith("_") and (inspect.isfunction(member) or inspect.isclass(member))
        ]
        # What a dataclass says of itself is only its signature.
        silent += [which for which, member in members if not member.__doc__ or re.match(rf"{member.__name__}\(", member.__doc__)]
    assert silent == []
