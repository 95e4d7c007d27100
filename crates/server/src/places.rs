//! Where the parts of a conversation stood in a body of another shape.

use crate::error::Failure;

/// The place of every part of every message.
#[derive(Debug, Clone, Default)]
pub struct Places(Vec<Vec<String>>);

impl Places {
    /// The next message's.
    pub fn add(&mut self, parts: Vec<String>) {
        self.0.push(parts);
    }

    /// A message without parts comes before all others.
    pub fn insert_first(&mut self) {
        self.0.insert(0, Vec::new());
    }

    /// A failure that names a part of the facade's conversation, naming the same part as the client knows it.
    pub fn restore(&self, failure: Failure) -> Failure {
        let Some((i, j, rest)) = failure.place().and_then(split) else { return failure };
        let Some(place) = self.0.get(i).and_then(|parts| parts.get(j)) else { return failure };
        let (ours, theirs) = (format!("messages[{i}].content[{j}]"), format!("{place}{rest}"));
        failure.moved(&ours, place, theirs)
    }
}

/// `messages[1].content[2].url` → 1, 2, `.url`.
fn split(param: &str) -> Option<(usize, usize, &str)> {
    let (i, rest) = param.strip_prefix("messages[")?.split_once("].content[")?;
    let (j, rest) = rest.split_once(']')?;
    Some((i.parse().ok()?, j.parse().ok()?, rest))
}
