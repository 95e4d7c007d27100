use crate::{TextError, Tokenizer};

/// Stands in front of a mark that is a control token, to tell it from text that happens to be spelled like one. Unicode has no such
/// character.
pub(crate) const CERTAIN: char = '\u{FDD0}';

/// Turns tokens into text as they are generated.
///
/// A character can be spread over several tokens, and what a token looks like can depend on its neighbour (a leading space,
/// say). So the tokens since the last boundary are decoded with and without the new one; the difference is its text, held
/// back while it ends inside a character.
#[derive(Debug, Default)]
pub struct Detokenizer {
    /// Control tokens that are heard all the same.
    marks: Vec<u32>,
    ids: Vec<u32>,
    /// `ids[context..said]` is decoded along, for the sake of what follows; `ids[said..]` is not yet text.
    context: usize,
    said: usize,
}

impl Detokenizer {
    /// Leaves out control tokens, but for those that spell one of `marks`: in front of them is [`CERTAIN`], which no text has.
    pub fn hearing<'a>(tokenizer: &Tokenizer, marks: impl IntoIterator<Item = &'a str>) -> Self {
        Self { marks: marks.into_iter().filter_map(|mark| tokenizer.special_id(mark)).collect(), ..Self::default() }
    }

    /// The text that this token completes, possibly none.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String, TextError> {
        if tokenizer.is_special(id) && !self.marks.contains(&id) {
            return Ok(String::new());
        }
        self.ids.push(id);
        let mut new = self.new_text(tokenizer)?;
        if new.is_empty() || new.ends_with('\u{FFFD}') {
            return Ok(String::new());
        }
        self.context = self.said;
        self.said = self.ids.len();
        if !self.marks.is_empty() {
            new.retain(|c| c != CERTAIN);
            let mark = tokenizer.token(id).filter(|_| self.marks.contains(&id));
            if let Some(at) = mark.and_then(|mark| new.rfind(&mark)) {
                new.insert(at, CERTAIN);
            }
        }
        Ok(new)
    }

    /// What is still held back: the beginning of a character that never ended.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String, TextError> {
        let rest = self.new_text(tokenizer)?;
        self.said = self.ids.len();
        Ok(rest)
    }

    fn new_text(&self, tokenizer: &Tokenizer) -> Result<String, TextError> {
        let before = tokenizer.decode(&self.ids[self.context..self.said], true)?;
        let with = tokenizer.decode(&self.ids[self.context..], true)?;
        Ok(with.get(before.len()..).unwrap_or_default().to_string())
    }
}
