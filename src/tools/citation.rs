//! What an answer refers to.

/// A page that was found on the web.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where it is.
    pub url: String,
    /// What it calls itself.
    pub title: String,
    /// What of it the model reads.
    pub text: String,
}

/// A place of an answer that refers to a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Citation {
    /// The page.
    pub url: String,
    /// What it calls itself.
    pub title: String,
    /// Where the place begins, in characters of the answer's text.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

/// The places of a text that refer to a source: by its number, as in `[1]`, or by its URL.
pub(crate) fn citations(text: &str, sources: &[Source]) -> Vec<Citation> {
    let mut found: Vec<(usize, usize, &Source)> = Vec::new();
    for (i, source) in sources.iter().enumerate() {
        for name in [format!("[{}]", i + 1), source.url.clone()].iter().filter(|name| !name.is_empty()) {
            found.extend(text.match_indices(name.as_str()).map(|(at, name)| (at, at + name.len(), source)));
        }
    }
    // Of URLs that begin alike the longest is meant.
    found.sort_by_key(|(start, end, _)| (*start, usize::MAX - end));
    let mut behind = 0;
    found.retain(|&(start, end, _)| {
        let apart = start >= behind;
        behind = if apart { end } else { behind };
        apart
    });
    let (mut chars, mut bytes) = (0, 0);
    let mut character = |at: usize| {
        chars += text[bytes..at].chars().count();
        bytes = at;
        chars
    };
    let cite = |(start, end, source): (usize, usize, &Source)| {
        let (start, end) = (character(start), character(end));
        Citation { url: source.url.clone(), title: source.title.clone(), start, end }
    };
    found.into_iter().map(cite).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beginnings, ends, and which source.
    type Places = &'static [(usize, usize, usize)];

    #[test]
    fn numbers_and_urls_are_found_where_they_stand() {
        let source = |url: &str| Source { url: url.into(), title: format!("about {url}"), text: String::new() };
        let sources = [source("https://a.example/x"), source("https://a.example/x/y")];
        let cases: [(&str, Places); 7] = [
            ("nothing", &[]),
            ("é[1], ü[2][1]", &[(1, 4, 0), (7, 10, 1), (10, 13, 0)]),
            ("[3] [12]", &[]),
            ("see https://a.example/x.", &[(4, 23, 0)]),
            ("see https://a.example/x/y", &[(4, 25, 1)]),
            ("[2] https://a.example/x", &[(0, 3, 1), (4, 23, 0)]),
            ("https://a.example/x/yhttps://a.example/x[1]", &[(0, 21, 1), (21, 40, 0), (40, 43, 0)]),
        ];
        for (text, expected) in cases {
            let found = citations(text, &sources);
            let expected: Vec<Citation> = expected
                .iter()
                .map(|&(start, end, i)| Citation { url: sources[i].url.clone(), title: sources[i].title.clone(), start, end })
                .collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
