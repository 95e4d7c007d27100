use std::sync::Arc;

use nn::{AdapterSet, Checkpoint, Decoder, Files, MediaInput, MediaKind, Model, NnError, Pause, Role, Tensor, Weights};

use super::config::{Layout, check_tiles, text_defaults};
use super::ears::Ears;
use super::eyes::Eyes;
use crate::config::require;
use crate::features::FeatureLayers;
use crate::joined::{Encode, Joined};
use crate::{ModelError, phi3};

/// What looks and listens.
struct Senses {
    eyes: Eyes,
    ears: Ears,
}

pub fn load(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    let layout = Layout::of(files)?;
    let decoder = phi3::decoder_config(files, text_defaults())?;
    let (body, hidden) = (w.at("model"), decoder.hidden);
    let embed = body.at("embed_tokens_extend").role(Role::Encoder);
    let (image, audio) = (embed.at("image_embed"), embed.at("audio_embed"));
    let vision = layout.vision(files, &image.at("img_processor"))?;
    check_tiles(files, &vision)?;
    let features = FeatureLayers::One(-2).of(vision.num_hidden_layers, files)?;
    let senses = Senses {
        eyes: Eyes::load((vision, features), layout.names(), hidden, &image)?,
        ears: Ears::load(&layout.audio(files)?, layout.names(), hidden, &audio)?,
    };
    let sets = adapters(layout, files, w)?;
    let decoder = Decoder::load(&decoder, &body.with_adapters(sets.iter().map(|(set, _)| set.clone()).collect()), w)?;
    for (_, checkpoint) in sets {
        let leftover = checkpoint.as_ref().map_or(Vec::new(), |(_, checkpoint)| checkpoint.leftover());
        let file = checkpoint.as_ref().map_or("", |(file, _)| file);
        require(leftover.is_empty(), files, file, &format!("no layer has a use for {}", leftover.join(", ")))?;
    }
    Ok(Box::new(Joined { tower: senses, decoder }))
}

/// A checkpoint of adapters, and the file that it is.
type Apart = Option<(String, Arc<Checkpoint>)>;

/// By number: for pictures, for speech.
fn adapters(layout: Layout, files: &Files, w: &Weights) -> Result<Vec<(AdapterSet, Apart)>, ModelError> {
    let named = ["vision", "speech"].into_iter().zip(layout.scales(files)?);
    let load = |(name, scale): (&str, f64)| match layout {
        Layout::Published => Ok((AdapterSet::within(w, name, scale), None)),
        Layout::Transformers => {
            let file = format!("{name}-lora/adapter_model.safetensors");
            let checkpoint = Arc::new(Checkpoint::of_file(files, &file)?);
            Ok((AdapterSet::apart(checkpoint.clone(), w, scale), Some((file, checkpoint))))
        }
    };
    named.map(load).collect()
}

impl Encode for Senses {
    fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError> {
        match input.kind {
            MediaKind::Audio => self.ears.encode(input, pause),
            _ => self.eyes.encode(input, pause),
        }
    }
}
