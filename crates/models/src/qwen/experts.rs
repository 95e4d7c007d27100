use nn::{Activation, Bias, Ffn, Files, LayerConfig, MoeConfig, RouterConfig, Scoring, SharedExpert, Shares, Weighed};
use serde::Deserialize;
use serde_json::json;

use crate::ModelError;
use crate::config::{CONFIG, read_text, require};

/// Layers with experts: what the class says where config.json is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Experts {
    pub experts: usize,
    /// Of a token.
    pub chosen: usize,
    /// Width inside.
    pub inner: usize,
    pub normalising: Normalising,
    /// Width inside an expert that all tokens go to beside the chosen ones, if there is one.
    pub shared: Option<usize>,
}

/// Whether shares of the chosen experts add up to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normalising {
    Always,
    /// As `norm_topk_prob` says; they do not where it is absent.
    Configured,
}

#[derive(Debug, Deserialize)]
struct Keys {
    num_experts: usize,
    /// What transformers 5 calls them.
    num_local_experts: Option<usize>,
    num_experts_per_tok: usize,
    moe_intermediate_size: usize,
    shared_expert_intermediate_size: Option<usize>,
    norm_topk_prob: bool,
    decoder_sparse_step: usize,
    mlp_only_layers: Vec<usize>,
}

impl Experts {
    /// Gives experts to the layers that have them.
    pub fn put_in(&self, files: &Files, layers: &mut [LayerConfig], activation: Activation) -> Result<(), ModelError> {
        let keys: Keys = read_text(
            files,
            json!({
                "num_experts": self.experts, "num_experts_per_tok": self.chosen, "moe_intermediate_size": self.inner,
                "shared_expert_intermediate_size": self.shared, "norm_topk_prob": false, "decoder_sparse_step": 1,
                "mlp_only_layers": [],
            }),
        )?;
        let (experts, chosen) = (keys.num_local_experts.unwrap_or(keys.num_experts), keys.num_experts_per_tok);
        if experts == 0 {
            return Ok(());
        }
        let some = chosen > 0 && chosen <= experts;
        require(some, files, CONFIG, "num_experts_per_tok must be positive and at most num_experts")?;
        let sizes = keys.moe_intermediate_size > 0 && keys.decoder_sparse_step > 0;
        require(sizes, files, CONFIG, "moe_intermediate_size and decoder_sparse_step must be positive")?;
        let shared = self.shared.and(keys.shared_expert_intermediate_size);
        require(shared != Some(0), files, CONFIG, "shared_expert_intermediate_size must be positive")?;
        let normalised = keys.norm_topk_prob || self.normalising == Normalising::Always;
        let moe = MoeConfig {
            experts,
            inner: keys.moe_intermediate_size,
            activation,
            router: RouterConfig {
                chosen,
                scoring: Scoring::Softmax,
                shares: if normalised { Shares::Normalised } else { Shares::Scores },
                scale: 1.0,
                correction: Bias::Absent,
            },
            weighed: Weighed::Results,
            shared: shared.map(SharedExpert::Gated),
        };
        for (i, layer) in layers.iter_mut().enumerate() {
            if !keys.mlp_only_layers.contains(&i) && (i + 1).is_multiple_of(keys.decoder_sparse_step) {
                layer.ffn = Ffn::Moe(moe.clone());
            }
        }
        Ok(())
    }
}
