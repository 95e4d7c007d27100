//! What a checkpoint's weights are called in a GGUF file. llama.cpp turns the outputs of some of them, and hardly ever the inputs.

/// Parts of a layer; experts are rows of one tensor there. `linear_attn.out_proj` is missing: of that one llama.cpp does turn the inputs.
const OF_LAYER: [(&str, &str); 14] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("linear_attn.in_proj_qkv", "attn_qkv"),
    ("linear_attn.in_proj_z", "attn_gate"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.experts.gate_proj", "ffn_gate_exps"),
    ("mlp.experts.up_proj", "ffn_up_exps"),
    ("mlp.experts.down_proj", "ffn_down_exps"),
];

/// The rest of the language model.
const OF_MODEL: [(&str, &str); 2] = [("lm_head", "output"), ("embed_tokens", "token_embd")];

/// What `find` has of a weight, by its own name or that in a GGUF file, and which expert the weight is.
pub fn of<T>(weight: &str, find: impl Fn(&str) -> Option<T>) -> Option<(T, Option<usize>)> {
    if let Some(found) = find(weight) {
        return Some((found, None));
    }
    let (name, expert) = in_gguf(weight)?;
    Some((find(&name)?, expert))
}

fn in_gguf(weight: &str) -> Option<(String, Option<usize>)> {
    let module = weight.strip_suffix(".weight")?;
    let Some((_, in_layer)) = module.rsplit_once("layers.") else {
        let last = module.rsplit('.').next()?;
        return Some((format!("{}.weight", look_up(&OF_MODEL, last)?), None));
    };
    let (layer, part) = in_layer.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    let expert = part.strip_prefix("mlp.experts.").and_then(|part| part.split_once('.'));
    let (part, expert) = match expert {
        Some((expert, part)) => (look_up(&OF_LAYER, &format!("mlp.experts.{part}"))?, Some(expert.parse().ok()?)),
        None => (look_up(&OF_LAYER, part)?, None),
    };
    Some((format!("blk.{layer}.{part}.weight"), expert))
}

fn look_up(table: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    table.iter().find(|(ours, _)| *ours == name).map(|(_, theirs)| *theirs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_gguf() {
        let cases = [
            ("model.layers.0.self_attn.q_proj.weight", Some(("blk.0.attn_q.weight", None))),
            ("language_model.model.layers.12.self_attn.o_proj.weight", Some(("blk.12.attn_output.weight", None))),
            ("model.language_model.layers.3.self_attn.k_proj.weight", Some(("blk.3.attn_k.weight", None))),
            ("model.text_model.layers.3.self_attn.v_proj.weight", Some(("blk.3.attn_v.weight", None))),
            ("layers.1.mlp.gate_proj.weight", Some(("blk.1.ffn_gate.weight", None))),
            ("model.layers.1.mlp.up_proj.weight", Some(("blk.1.ffn_up.weight", None))),
            ("model.layers.1.mlp.down_proj.weight", Some(("blk.1.ffn_down.weight", None))),
            ("model.layers.1.self_attn.qkv_proj.weight", Some(("blk.1.attn_qkv.weight", None))),
            ("model.layers.1.mlp.gate_up_proj.weight", Some(("blk.1.ffn_up.weight", None))),
            ("model.layers.1.mlp.experts.17.down_proj.weight", Some(("blk.1.ffn_down_exps.weight", Some(17)))),
            ("model.layers.2.linear_attn.in_proj_z.weight", Some(("blk.2.attn_gate.weight", None))),
            ("model.layers.2.linear_attn.out_proj.weight", None),
            ("lm_head.weight", Some(("output.weight", None))),
            ("language_model.lm_head.weight", Some(("output.weight", None))),
            ("model.embed_tokens.weight", Some(("token_embd.weight", None))),
            ("model.layers.1.self_attn.q_proj.bias", None),
            ("model.layers.1.mlp.experts.x.down_proj.weight", None),
            ("model.layers.x.mlp.up_proj.weight", None),
            ("model.layers.1.weight", None),
            ("multi_modal_projector.linear.weight", None),
        ];
        for (weight, expected) in cases {
            let found = in_gguf(weight);
            assert_eq!(found.as_ref().map(|(name, expert)| (name.as_str(), *expert)), expected, "{weight}");
        }
    }
}
