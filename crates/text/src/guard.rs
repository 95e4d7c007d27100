//! Keeps a user's words from being read as control tokens or media markers.
//!
//! A [`BREAK`] is put inside whatever in a user's text could be read as one of the protected strings, or as the end of one
//! that the surrounding text begins. Templates pass it through like any other character; [`crate::Tokenizer`] never lets
//! a control token match across it and drops it before the text itself is tokenized.

use aho_corasick::AhoCorasick;

/// A noncharacter: it may not occur in interchanged text, so a user's own is replaced.
pub const BREAK: char = '\u{FDD0}';

/// The text as a person reads it.
pub fn without_breaks(text: &str) -> String {
    text.replace(BREAK, "")
}

/// The strings that only the template may write.
pub struct Guard {
    finder: Option<AhoCorasick>,
    /// Sorted, for "does any begin with …".
    needles: Vec<String>,
    /// The same spelled backwards and sorted, for "does any end with …".
    backwards: Vec<String>,
    longest: usize,
}

impl Guard {
    /// Protects `needles`; empty strings are ignored.
    pub fn new(needles: impl IntoIterator<Item = String>) -> Self {
        let mut needles: Vec<String> = needles.into_iter().filter(|n| !n.is_empty()).collect();
        needles.sort();
        needles.dedup();
        let mut backwards: Vec<String> = needles.iter().map(|n| n.chars().rev().collect()).collect();
        backwards.sort();
        // An automaton over plain literals only fails to build when there are more than 2^31 of them.
        let finder = AhoCorasick::new(&needles).ok().filter(|_| !needles.is_empty());
        let longest = needles.iter().map(|n| n.chars().count()).max().unwrap_or(0);
        Self { finder, needles, backwards, longest }
    }

    /// `text` with breaks inside every protected string, and where it could complete one across its ends.
    pub fn protect(&self, text: &str) -> String {
        let text = text.replace(BREAK, "\u{FFFD}");
        let Some(finder) = &self.finder else { return text };
        let mut breaks: Vec<usize> = Vec::new();
        for found in finder.find_overlapping_iter(&text) {
            breaks.push(next_boundary(&text, found.start()));
        }
        self.begun_at_the_end(&text, &mut breaks);
        self.completed_at_the_start(&text, &mut breaks);
        breaks.sort_unstable();
        breaks.dedup();
        let mut out = String::with_capacity(text.len() + breaks.len() * BREAK.len_utf8());
        let mut from = 0;
        for at in breaks {
            out.push_str(&text[from..at]);
            out.push(BREAK);
            from = at;
        }
        out.push_str(&text[from..]);
        out
    }

    /// Suffixes of `text` that a protected string begins with: broken behind their first character.
    fn begun_at_the_end(&self, text: &str, breaks: &mut Vec<usize>) {
        for (at, _) in text.char_indices().rev().take(self.longest.saturating_sub(1)) {
            if any_starts_with(&self.needles, &text[at..]) {
                breaks.push(next_boundary(text, at));
            }
        }
    }

    /// Prefixes of `text` that a protected string ends with: broken before their last character.
    fn completed_at_the_start(&self, text: &str, breaks: &mut Vec<usize>) {
        let mut backwards = String::new();
        for (at, c) in text.char_indices().take(self.longest.saturating_sub(1)) {
            backwards.insert(0, c);
            if any_starts_with(&self.backwards, &backwards) {
                breaks.push(at);
            }
        }
    }
}

fn next_boundary(text: &str, at: usize) -> usize {
    at + text[at..].chars().next().map_or(0, char::len_utf8)
}

fn any_starts_with(sorted: &[String], prefix: &str) -> bool {
    let at = sorted.partition_point(|n| n.as_str() < prefix);
    sorted.get(at).is_some_and(|n| n.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaks_stand_inside_protected_strings_only() {
        let guard = Guard::new(["<|im_end|>", "<image>", "<s>"].map(String::from));
        let cases = [
            ("plain words, a < b > c", "plain words, a < b > c"),
            ("", ""),
            ("x<image>y", "x<·image>y"),
            ("<|im_end|><|im_end|>", "<·|im_end|><·|im_end|>"),
            ("ends with <|im_", "ends with <·|im_"),
            ("ends with <", "ends with <·"),
            ("end|> follows", "end|·> follows"),
            ("> follows", "·> follows"),
            ("<s", "<·s"),
            ("é<s>é", "é<·s>é"),
        ];
        for (text, expected) in cases {
            assert_eq!(guard.protect(text).replace(BREAK, "·"), expected, "{text:?}");
        }
    }

    #[test]
    fn no_cut_of_a_protected_string_reassembles() {
        let needle = "<|im_end|>";
        let guard = Guard::new([needle.to_string()]);
        for first in 0..=needle.len() {
            for second in first..=needle.len() {
                let parts = [&needle[..first], &needle[first..second], &needle[second..]];
                for theirs in [[true, true, true], [true, false, true], [false, true, true], [true, true, false]] {
                    let cut = |i: usize| !parts[i].is_empty();
                    // The template writing all but the middle means that it asked for this token (`'<|' + role + '|>'`).
                    if !(theirs[0] && cut(0) || theirs[2] && cut(2)) {
                        continue;
                    }
                    let joined: String =
                        (0..3).map(|i| if theirs[i] { guard.protect(parts[i]) } else { parts[i].to_string() }).collect();
                    assert!(!joined.contains(needle), "{parts:?} {theirs:?}");
                    assert_eq!(without_breaks(&joined), needle);
                }
            }
        }
    }

    #[test]
    fn a_users_own_break_is_replaced() {
        assert_eq!(Guard::new([]).protect("a\u{FDD0}b"), "a\u{FFFD}b");
    }
}
