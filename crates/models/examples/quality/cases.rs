//! What the models are asked to read.

use std::ops::Range;
use std::path::{Path, PathBuf};

use media::{ImageOptions, Limits, decode_image};
use mistralrs_models::{Loaded, Marker, Media, assemble, media_in_words};
use nn::{Encoded, Files, Prompt};
use serde::Deserialize;
use serde_json::json;
use text::{ChatTemplate, Conversation, Piece, TemplateFiles, Tokenizer};

use crate::Result;

/// Tokens of a text that are read at a time.
const WINDOW: usize = 512;

/// Something to read.
pub struct Case {
    pub prompt: Prompt,
    /// What became of the prompt's media.
    pub media: Vec<Encoded>,
    /// Rows whose logits are compared.
    pub counted: Range<usize>,
}

#[derive(Deserialize)]
struct Question {
    picture: Option<String>,
    question: String,
    answer: String,
}

/// The cases of some files, with pictures encoded by `model`.
pub fn read(files: &Files, texts: &[PathBuf], model: &Loaded) -> Result<Vec<Case>> {
    let reader = Reader::new(files, model)?;
    let mut cases = Vec::new();
    for path in texts {
        let content = std::fs::read_to_string(path)?;
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            let folder = path.parent().unwrap_or(Path::new(""));
            for line in content.lines() {
                cases.push(reader.question(serde_json::from_str(line)?, folder)?);
            }
        } else {
            let ids = reader.tokenizer.encode(&[Piece::Text(content)])?.ids;
            let window = |ids: &[u32]| Case { prompt: Prompt::text(ids.to_vec()), media: Vec::new(), counted: 0..ids.len() };
            cases.extend(ids.chunks(WINDOW).map(window));
        }
    }
    Ok(cases)
}

struct Reader<'a> {
    model: &'a Loaded,
    tokenizer: Tokenizer,
    template: ChatTemplate,
}

impl<'a> Reader<'a> {
    fn new(files: &Files, model: &'a Loaded) -> Result<Self> {
        let markers: Vec<&str> = model.processor.markers().iter().map(Marker::protected).collect();
        let name = "tokenizer.json";
        let tokenizer = Tokenizer::new(name, &files.read(name)?.ok_or("there is no tokenizer.json")?, &markers)?;
        let file = |name: &str| files.text(name).map(|text| text.map(|text| (name.to_string(), text)));
        let of_family = model.processor.chat_template();
        let templates = TemplateFiles { of_family, ..TemplateFiles::of_model(file)? };
        Ok(Self { model, tokenizer, template: ChatTemplate::new(templates.choose()?)? })
    }

    fn question(&self, question: Question, folder: &Path) -> Result<Case> {
        let mut content = vec![json!({"type": "text", "text": question.question})];
        let mut items = Vec::new();
        if let Some(picture) = question.picture {
            let picture = decode_image(&std::fs::read(folder.join(picture))?, &Limits::default())?;
            items.push(self.model.processor.process(Media::Image(picture, ImageOptions::default()))?);
            content.insert(0, json!({"type": "image"}));
        }
        let messages = vec![json!({"role": "user", "content": content})];
        let asked = self.template.render(
            &Conversation { messages, media: media_in_words(self.model.processor.as_ref()), ..Conversation::default() },
            self.tokenizer.guard(),
        )?;
        let prompt = |text: &str| assemble(text, items.clone(), self.model.processor.as_ref(), &self.tokenizer);
        let first = prompt(&asked)?.tokens.len() - 1;
        let prompt = prompt(&format!("{asked}{}", question.answer))?;
        let media = prompt.media.iter().map(|item| self.model.model.encode(&item.input, &mut || Ok(())));
        Ok(Case { counted: first..prompt.tokens.len(), media: media.collect::<std::result::Result<_, _>>()?, prompt })
    }
}
