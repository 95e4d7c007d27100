//! The templates in `chat_templates/`, given by flag: what they make of a conversation.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use mistralrs_text::{ChatTemplate, Conversation, Guard, TemplateFiles, TextError};
use serde_json::{Value, json};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../chat_templates")
}

/// With the special tokens that a model says itself.
fn render(name: &str, messages: Value, tools: &[Value]) -> Result<String, TextError> {
    let file = (name.to_string(), std::fs::read_to_string(folder().join(name)).unwrap());
    let model = ("tokenizer_config.json".to_string(), r#"{"bos_token": "<bos>", "eos_token": "<eos>"}"#.to_string());
    let files = TemplateFiles { chat_template: Some(file), tokenizer_config: Some(model), ..TemplateFiles::default() };
    let messages = messages.as_array().unwrap().clone();
    let chat = Conversation { messages, tools: tools.to_vec(), ..Conversation::default() };
    ChatTemplate::new(files.choose()?)?.render(&chat, &Guard::new([]))
}

/// Template, two turns of words, and the same with a picture.
const TURNS: &[(&str, &str, &str)] = &[
    (
        "chatml.json",
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n\
         <|im_start|>user\nHow are you?<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\nA boat?<|im_end|>\n<|im_start|>assistant\n",
    ),
    (
        "gemma3n.jinja",
        "<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n\
         <start_of_turn>user\nHow are you?<end_of_turn>\n<start_of_turn>model\n",
        "<bos><start_of_turn>user\n<image_soft_token>A boat?<end_of_turn>\n<start_of_turn>model\n",
    ),
    (
        "hermes_tool_use.jinja",
        "<bos><|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n\
         <|im_start|>user\nHow are you?<|im_end|>\n<|im_start|>assistant\n",
        "<bos><|im_start|>user\nA boat?<|im_end|>\n<|im_start|>assistant\n",
    ),
    (
        "idefics3.json",
        "<|begin_of_text|>System: Be brief.<end_of_utterance>\nUser: Hi<end_of_utterance>\nAssistant: Hello.<end_of_utterance>\n\
         User: How are you?<end_of_utterance>\nAssistant:",
        "<|begin_of_text|>User:<image>A boat?<end_of_utterance>\nAssistant:",
    ),
    (
        "llama2.json",
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello. </s><s>[INST] How are you? [/INST]",
        "<s>[INST] A boat? [/INST]",
    ),
    (
        "llama3.json",
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\
         \n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|><|start_header_id|>user<|end_header_id|>\
         \n\nHow are you?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nA boat?<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    (
        "mistral.json",
        "<s>[INST] Be brief.\n\nHi [/INST] Hello.</s>[INST] How are you? [/INST]",
        "<s>[INST] <image>\nA boat? [/INST]",
    ),
    (
        "mistral_small_tool_call.jinja",
        "<bos>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]Hi[/INST]Hello.<eos>[INST]How are you?[/INST]",
        "<bos>[INST][IMG]A boat?[/INST]",
    ),
    (
        "phi3.json",
        "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello.<|end|>\n<|user|>\nHow are you?<|end|>\n\
         <|assistant|>\n",
        "<|user|>\n<|image_1|>\nA boat?<|end|>\n<|assistant|>\n",
    ),
    (
        "vicuna.json",
        "<s>Be brief. USER: Hi ASSISTANT: Hello.</s>USER: How are you? ASSISTANT:",
        "<s>A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and \
         polite answers to the user's questions. USER: <image>\nA boat? ASSISTANT:",
    ),
];

#[test]
fn two_turns_and_a_picture() {
    let words = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [{"type": "text", "text": "Hello."}]},
        {"role": "user", "content": "How are you?"},
    ]);
    let picture = json!([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "A boat?"}]}]);
    for (name, of_words, of_picture) in TURNS {
        assert_eq!(render(name, words.clone(), &[]).unwrap(), *of_words, "{name}");
        assert_eq!(render(name, picture.clone(), &[]).unwrap(), *of_picture, "{name}");
    }
    let files = std::fs::read_dir(folder()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let tested: BTreeSet<String> = TURNS.iter().map(|(name, ..)| name.to_string()).collect();
    assert_eq!(files.collect::<BTreeSet<_>>(), tested);
}

#[test]
fn tools_calls_and_results() {
    let tools = [json!({"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}})];
    let call = |id: &str, arguments: Value| json!({"id": id, "type": "function", "function": {"name": "weather", "arguments": arguments}});
    let calls = [call("call00001", json!("{\"city\": \"Rome\"}")), call("call00002", json!({"city": "Oslo"}))];
    let messages = json!([
        {"role": "user", "content": "Rome, Oslo?"},
        {"role": "assistant", "content": null, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call00001", "content": "sun"},
        {"role": "tool", "tool_call_id": "call00002", "content": "snow"},
        {"role": "assistant", "content": "Sun, snow."},
        {"role": "user", "content": "Thanks!"},
    ]);
    let tool = r#"{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}"#;
    let cases = [
        (
            "mistral_small_tool_call.jinja",
            format!(
                "<bos>[INST]Rome, Oslo?[/INST][TOOL_CALLS][{}, {}]<eos>[TOOL_RESULTS]call00001[TOOL_CONTENT]sun[/TOOL_RESULTS]\
                 [TOOL_RESULTS]call00002[TOOL_CONTENT]snow[/TOOL_RESULTS]Sun, snow.<eos>[AVAILABLE_TOOLS][{tool}][/AVAILABLE_TOOLS]\
                 [INST]Thanks![/INST]",
                r#"{"name": "weather", "arguments": {"city": "Rome"}, "id": "call00001"}"#,
                r#"{"name": "weather", "arguments": {"city": "Oslo"}, "id": "call00002"}"#,
            ),
        ),
        (
            "hermes_tool_use.jinja",
            format!(
                "<bos><|im_start|>system\nYou can call functions. They are described as JSON between <tools> and </tools>:\n\
                 <tools>\n{tool}\n</tools>\nTo call one, write an object with its name and its arguments between tags, and nothing \
                 else:\n<tool_call>\n{{\"name\": <name of the function>, \"arguments\": <object of its arguments>}}\n</tool_call>\
                 <|im_end|>\n<|im_start|>user\nRome, Oslo?<|im_end|>\n<|im_start|>assistant\n{}\n{}<|im_end|>\n\
                 <|im_start|>tool\n<tool_response>\nsun\n</tool_response><|im_end|>\n\
                 <|im_start|>tool\n<tool_response>\nsnow\n</tool_response><|im_end|>\n\
                 <|im_start|>assistant\nSun, snow.<|im_end|>\n<|im_start|>user\nThanks!<|im_end|>\n<|im_start|>assistant\n",
                "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>",
                "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>",
            ),
        ),
    ];
    for (name, expected) in cases {
        assert_eq!(render(name, messages.clone(), &tools).unwrap(), expected, "{name}");
    }
}

#[test]
fn who_may_not_speak_is_told() {
    let cases = [
        ("vicuna.json", json!([{"role": "assistant", "content": "Hi"}]), "the user begins"),
        ("llama2.json", json!([{"role": "tool", "content": "Hi"}]), "not of tool"),
        ("mistral.json", json!([{"role": "tool", "content": "Hi"}]), "not of tool"),
        ("mistral_small_tool_call.jinja", json!([{"role": "judge", "content": "Hi"}]), "not of judge"),
        ("gemma3n.jinja", json!([{"role": "user", "content": [{"type": "video"}]}]), "not a video"),
    ];
    for (name, messages, expected) in cases {
        let message = render(name, messages, &[]).expect_err(name).to_string();
        assert!(message.contains(expected), "{name}: {message}");
    }
}
