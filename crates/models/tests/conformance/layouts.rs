//! Names of tensors before and since transformers 4.52.

use mistralrs_models::Loaded;
use nn::Files;

use crate::fixture::{Subject, cases};
use crate::run::prompt_logits;

/// A name of before, and what it became. The first one that fits is meant.
const RENAMED: &[(&str, &str)] = &[
    ("language_model.model.", "model.language_model."),
    ("language_model.lm_head.", "lm_head."),
    ("vision_tower.vision_model.", "model.vision_tower."),
    ("vision_tower.", "model.vision_tower."),
    ("multi_modal_projector.", "model.multi_modal_projector."),
    ("image_newline", "model.image_newline"),
];

#[test]
fn names_of_before_and_since_are_understood() {
    for name in ["gemma3", "llava_next", "mistral3"] {
        let folder = tempfile::tempdir().unwrap();
        fixtures::copy(name, folder.path()).unwrap();
        let file = folder.path().join("model.safetensors");
        let bytes = std::fs::read(&file).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let renamed = |old: &str| {
            let (before, since) = RENAMED.iter().find(|(before, _)| old.starts_with(before)).expect(old);
            old.replacen(before, since, 1)
        };
        let since: Vec<_> = tensors.iter().map(|(old, tensor)| (renamed(old), tensor)).collect();
        std::fs::write(&file, safetensors::serialize(since, None).unwrap()).unwrap();
        let [before, since] =
            [fixtures::model(name).unwrap(), folder.path().into()].map(|folder| Subject::load(&Files::Folder(folder)));
        let mut prepared = cases(name).into_iter().filter_map(|case| before.prepare(&case.request));
        let prompt = prepared.find(|prepared| !prepared.prompt.media.is_empty()).unwrap().prompt;
        let logits = |loaded: &Loaded| prompt_logits(loaded.model.as_ref(), &prompt, usize::MAX);
        assert_eq!(logits(&since.loaded), logits(&before.loaded), "{name}");
        assert_eq!(since.loaded.leftover, [""; 0], "{name}");
    }
}
