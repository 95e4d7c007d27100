//! Which matrices of a model with experts are quantised.

use std::sync::Arc;

use mistralrs_models::load;
use nn::{Calibration, Coverage, DType, Files, LoadSettings, Organization, Prompt, Quant};

use crate::run::prompt_logits;

fn files(name: &str) -> Files {
    Files::Folder(fixtures::model(name).unwrap())
}

fn tokens() -> Vec<u32> {
    (10..200).collect()
}

#[test]
fn experts_alone_are_quantised_or_everything() {
    for name in ["llama4", "qwen3_5_moe", "qwen3_moe", "qwen3_vl_moe"] {
        let logits = |quant, organization| {
            let loaded = load(&files(name), LoadSettings { quant, organization, ..LoadSettings::default() }).unwrap();
            assert_eq!(loaded.leftover, [""; 0], "{name}");
            prompt_logits(loaded.model.as_ref(), &Prompt::text(tokens()), usize::MAX).concat()
        };
        let dense = logits(None, Organization::Moqe);
        let error = |organization| {
            let found = logits(Some(Quant::Q4_0), organization);
            found.iter().zip(&dense).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / dense.len() as f64
        };
        let [experts, all] = [Organization::Moqe, Organization::Default].map(error);
        println!("{name}: mean squares of what logits are off by: {experts} (experts), {all} (all)");
        assert!(0.0 < experts && experts < all, "{name}: {experts} and {all}");
    }
}

#[test]
fn experts_are_calibrated_one_by_one() {
    // Matrices of experts: apart there are three for each, fused two; where a hidden state is too narrow for a block of numbers, one.
    for (name, experts) in [("llama4", 6 * 4), ("qwen3_5_moe", 4 * 6 * 2), ("qwen3_moe", 2 * 6 * 3), ("qwen3_vl_moe", 3 * 8 * 2)]
    {
        let (mut calibration, settings) = Calibration::new(&LoadSettings::default());
        calibration.read(load(&files(name), settings).unwrap().model.as_ref(), DType::F32, &tokens()).unwrap();
        let importance = Some(Arc::new(calibration.finish("text".into()).unwrap()));
        for organization in [Organization::Moqe, Organization::Default] {
            let settings =
                LoadSettings { quant: Some(Quant::Q2K), organization, importance: importance.clone(), ..LoadSettings::default() };
            let Coverage { known, quantised } = load(&files(name), settings).unwrap().importance.unwrap();
            assert_eq!(known, quantised, "{name}, {organization:?}");
            assert!(
                if organization == Organization::Moqe { quantised == experts } else { quantised > experts },
                "{name}: {quantised}"
            );
        }
    }
}

#[test]
fn a_model_without_experts_is_refused() {
    let settings = LoadSettings { quant: Some(Quant::Q4K), organization: Organization::Moqe, ..LoadSettings::default() };
    let message = load(&files("qwen3"), settings).err().unwrap().to_string();
    assert!(message.contains("(moqe), but this model has none") && !message.contains('\n'), "{message}");
}
