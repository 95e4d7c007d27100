/// Cuts generated text at the first stop string, however the text arrives.
#[derive(Debug, Default)]
pub struct StopMatcher {
    stops: Vec<String>,
    /// Text that may yet turn out to begin a stop string.
    held: String,
    found: Option<usize>,
}

impl StopMatcher {
    /// Stops at any of `stops`; empty ones are ignored.
    pub fn new(stops: &[String]) -> Self {
        Self { stops: stops.to_vec(), ..Self::default() }
    }

    /// The part of `text` that can be said now.
    pub fn push(&mut self, text: &str) -> String {
        if self.found.is_some() {
            return String::new();
        }
        self.held.push_str(text);
        let found = self.stops.iter().enumerate().filter(|(_, stop)| !stop.is_empty());
        let found = found.filter_map(|(which, stop)| Some((self.held.find(stop.as_str())?, which)));
        if let Some((at, which)) = found.min() {
            self.found = Some(which);
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let tail = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, tail)
    }

    /// What was held back, when no more text comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Which of the stop strings was found.
    pub fn found(&self) -> Option<usize> {
        self.found
    }
}

/// Length of the longest proper prefix of `stop` that `text` ends with.
pub(crate) fn overlap(text: &str, stop: &str) -> usize {
    stop.char_indices().map(|(at, _)| at).rev().find(|&at| text.ends_with(&stop[..at])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_at_the_first_stop_string_wherever_the_text_is_divided() {
        let cases = [
            (vec!["END"], "one END two", "one ", true),
            (vec!["END"], "one EN two E", "one EN two E", false),
            (vec!["b", "ab"], "xxaby", "xx", true),
            (vec!["aab"], "aaab", "a", true),
            (vec!["é!"], "caf é é! x", "caf é ", true),
            (vec![""], "text", "text", false),
        ];
        for (stops, text, expected, stopped) in cases {
            let stops: Vec<String> = stops.into_iter().map(String::from).collect();
            for size in 1..=text.len() {
                let mut matcher = StopMatcher::new(&stops);
                let chars: Vec<char> = text.chars().collect();
                let mut said: String = chars.chunks(size).map(|part| matcher.push(&part.iter().collect::<String>())).collect();
                said += &matcher.finish();
                assert_eq!((said.as_str(), matcher.found().is_some()), (expected, stopped), "{stops:?} {text:?} by {size}");
            }
        }
    }
}
