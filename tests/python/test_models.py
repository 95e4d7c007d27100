"""Loading: what is loaded, what is refused, several models in a runner."""

import pytest
from conftest import RED_CIRCLE, folder_of, picture, said

import mistralrs
from mistralrs import (
    Architecture,
    IsqOrganization,
    ModelDType,
    ModelLoadError,
    ModelNotFoundError,
    MultimodalArchitecture,
    MultimodalAutoMapParams,
    PagedCacheType,
    Runner,
    UnsupportedError,
    Which,
    _native,
)

DEMO = Which.MultimodalPlain(model_id=None)
HERE = "fixtures/demo"
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(
    ("which", "options", "error", "words"),
    [
        (Which.Plain(model_id="/nowhere/at/all"), {}, ModelLoadError, "no folder"),
        (Which.Plain(model_id=HERE), {}, ModelLoadError, "config.json"),
        (DEMO, {"in_situ_quant": "7"}, ModelLoadError, "in_situ_quant"),
        (DEMO, {"token_source": "env:NO_SUCH_VARIABLE"}, ModelLoadError, "NO_SUCH_VARIABLE"),
        (DEMO, {"token_source": "somewhere"}, ModelLoadError, "token_source"),
        (DEMO, {"num_device_layers": ["0:x"]}, ModelLoadError, "num_device_layers"),
        (DEMO, {"num_device_layers": ["0:10", "1:20"]}, ModelLoadError, "no accelerator"),
        (DEMO, {"memory_mb": 1}, ModelLoadError, "memory"),
        (DEMO, {"tool_dialect": "klingon"}, ModelLoadError, "tool_dialect"),
        (DEMO, {"chat_template": "nowhere.jinja"}, ModelLoadError, "nowhere.jinja"),
        (DEMO, {"no_kv_cache": True}, UnsupportedError, "no_kv_cache"),
        (DEMO, {"prefix_cache_n": 0}, UnsupportedError, "cache_salt"),
        (DEMO, {"shell_config": {}, "mtp_n_predict": 2}, UnsupportedError, "mtp_model"),
        (Which.MultimodalPlain(model_id=None, arch=MultimodalArchitecture.Voxtral), {}, ModelLoadError, "not of voxtral"),
        (Which.MultimodalPlain(model_id=None, arch=MultimodalArchitecture.MuseGlimmer), {}, ModelLoadError, "muse_glimmer"),
        (Which.MultimodalPlain(model_id=None, from_uqff="a"), {}, UnsupportedError, "from_uqff"),
        (Which.MultimodalPlain(model_id=None, matformer_config_path="a.csv"), {}, ModelLoadError, "matformer_slice_name"),
        (Which.MultimodalPlain(model_id=None, matformer_slice_name="a"), {}, ModelLoadError, "MatFormer"),
        (Which.MultimodalPlain(model_id=None, organization=IsqOrganization.MoQE), {}, ModelLoadError, "organization"),
        (Which.MultimodalPlain(model_id=None, imatrix="a", calibration_file="b"), {}, ModelLoadError, "exclude"),
        (Which.MultimodalPlain(model_id=None, topology="nowhere.yml"), {}, ModelLoadError, "nowhere.yml"),
        ("a model", {}, UnsupportedError, "Which"),
    ],
)
def test_what_cannot_be_loaded_says_why(which, options, error, words):
    with pytest.raises(error, match=words) as caught:
        Runner(which=which, **options)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("kind", ["GGUF", "GGML", "Lora", "XLora", "LoraGGUF", "Embedding", "DiffusionPlain", "Speech"])
def test_other_kinds_are_refused_in_words(kind):
    with pytest.raises(UnsupportedError, match=f"Which.{kind} cannot be loaded: "):
        getattr(Which, kind)(model_id="a")


@pytest.mark.parametrize(
    ("which", "options"),
    [
        (Which.MultimodalPlain(model_id=None, dtype=ModelDType.F32, organization=IsqOrganization.Default), {}),
        (Which.MultimodalPlain(model_id=None, auto_map_params=MultimodalAutoMapParams(max_num_images=2)), {"max_seqs": 2}),
        (DEMO, {"pa_cache_type": PagedCacheType.F8E4M3, "pa_gpu_mem": 64, "seed": 1, "paged_attn": True}),
        (DEMO, {"token_source": "none", "in_situ_quant": "q8_0"}),
    ],
)
def test_what_can_be_chosen(which, options):
    with Runner(which=which, **options) as runner:
        assert "red circle" in said(runner, picture(RED_CIRCLE))


def test_a_part_of_a_nested_model_is_loaded():
    nested = folder_of("gemma3n_matformer")
    which = Which.MultimodalPlain(
        model_id=nested,
        arch=MultimodalArchitecture.Gemma3n,
        matformer_config_path=f"{nested}/matformer.csv",
        matformer_slice_name="Config for E0.7B (mixed)",
    )
    with Runner(which=which) as runner:
        assert said(runner, HELLO, max_tokens=2)


def test_experts_alone_are_quantised():
    which = Which.MultimodalPlain(
        model_id=folder_of("qwen3_vl_moe"), arch=MultimodalArchitecture.Qwen3VLMoE, organization=IsqOrganization.MoQE
    )
    with Runner(which=which, in_situ_quant="4") as runner:
        assert said(runner, HELLO, max_tokens=2)


def test_every_family_has_a_name():
    named = {family for kind in (Architecture, MultimodalArchitecture) for each in kind for family in each.families}
    assert set(_native.families()) <= named
    assert MultimodalArchitecture.Qwen3_5MoE is MultimodalArchitecture.Qwen3_5Moe


def test_progress_is_told():
    told = []
    Runner(which=DEMO, progress=lambda task, done, total: told.append((task, done, total))).close()
    assert told[-1][0] == "load" and told[-1][1] == told[-1][2] > 0


def test_a_runner_has_several_models():
    runner = Runner(which=DEMO)
    assert (runner.list_models(), runner.get_default_model_id(), repr(runner)) == (["demo"], "demo", "Runner(demo)")
    runner.add_model(Which.Plain(model_id=folder_of("qwen3"), arch=Architecture.Qwen3), "small", in_situ_quant="8")
    assert runner.list_models_with_status() == [("demo", "loaded"), ("small", "loaded")]
    assert runner.model_info("small").family == "qwen3"
    words = {said(runner, HELLO, model=model, max_tokens=4) for model in ("default", "demo", "small")}
    assert len(words) == 2
    with pytest.raises(ModelLoadError, match="already"):
        runner.add_model(DEMO)
    with pytest.raises(ModelNotFoundError) as caught:
        said(runner, HELLO, model="nobody")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    runner.set_default_model_id("small")
    runner.unload_model("demo")
    assert (runner.list_unloaded_models(), runner.get_model_status("demo")) == (["demo"], "unloaded")
    with pytest.raises(ModelNotFoundError, match="unloaded"):
        said(runner, HELLO, model="demo")
    runner.reload_model("demo")
    assert runner.is_model_loaded("demo") and "red circle" in said(runner, picture(RED_CIRCLE), model="demo")
    runner.remove_model("demo")
    with pytest.raises(mistralrs.InvalidRequestError, match="default"):
        runner.remove_model("small")
    assert runner.list_models() == ["small"] and runner.get_model_status("demo") is None


def test_a_model_is_quantised_anew():
    with Runner(which=DEMO) as runner:
        runner.send_re_isq("8")
        assert "red circle" in said(runner, picture(RED_CIRCLE))
        with pytest.raises(ModelLoadError, match="in_situ_quant"):
            runner.send_re_isq("nothing")
        assert "red circle" in said(runner, picture(RED_CIRCLE))
