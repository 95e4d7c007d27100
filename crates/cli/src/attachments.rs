//! Media of a question: flags, in the order in which they are given, and paths in what is typed.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use mistralrs::{DocumentOptions, ImageOptions, MediaSource, Part};

use crate::args::ClipOptions;

/// What a file is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Image,
    Audio,
    Video,
    Document,
}

/// A file or URL, and what it is taken for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    pub kind: Kind,
    pub place: String,
}

/// `--image`, `--audio`, `--video` and `--document` in the order in which they stand on the command line.
#[derive(Debug, Clone, Default)]
pub struct Attachments(pub Vec<Attachment>);

impl Kind {
    pub const ALL: [Self; 4] = [Self::Image, Self::Audio, Self::Video, Self::Document];

    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Document => "document",
        }
    }

    fn help(self) -> &'static str {
        match self {
            Self::Image => {
                "Picture that the question is about: path or URL. All of these are repeatable, and shown in their order"
            }
            Self::Audio => "Sound that the question is about: path or URL",
            Self::Video => "Clip that the question is about: path, folder of pictures, or URL",
            Self::Document => "PDF, whose pages are looked at, or text that the question is about: path or URL",
        }
    }

    /// What the content of a file shows that it is.
    fn of_file(path: &Path) -> Option<Self> {
        if path.is_dir() {
            // A folder of pictures is a clip.
            let entries = path.read_dir().ok()?.flatten();
            return entries.take(64).any(|entry| Self::of_file(&entry.path()) == Some(Self::Image)).then_some(Self::Video);
        }
        match infer::get_from_path(path).ok()??.matcher_type() {
            infer::MatcherType::Image => Some(Self::Image),
            infer::MatcherType::Audio => Some(Self::Audio),
            infer::MatcherType::Video => Some(Self::Video),
            _ => None,
        }
    }
}

impl Attachment {
    pub fn part(self, clip: &ClipOptions) -> anyhow::Result<Part> {
        let source = MediaSource::Url(self.place);
        Ok(match self.kind {
            Kind::Image => Part::Image(source, ImageOptions::default()),
            Kind::Audio => Part::Audio(source, clip.of_sound()),
            Kind::Video => Part::Video(source, clip.checked()?),
            Kind::Document => Part::Document(source, DocumentOptions::default()),
        })
    }
}

impl Args for Attachments {
    fn augment_args(command: Command) -> Command {
        let flag = |kind: Kind| {
            let flag = Arg::new(kind.name()).long(kind.name()).value_name("PATH|URL").help(kind.help());
            flag.action(ArgAction::Append).requires("input")
        };
        Kind::ALL.into_iter().fold(command, |command, kind| command.arg(flag(kind)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Attachments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut found: Vec<(usize, Attachment)> = Vec::new();
        for kind in Kind::ALL {
            let places = matches.get_many::<String>(kind.name()).into_iter().flatten();
            let indices = matches.indices_of(kind.name()).into_iter().flatten();
            found.extend(indices.zip(places.map(|place| Attachment { kind, place: place.clone() })));
        }
        found.sort_by_key(|(index, _)| *index);
        Ok(Self(found.into_iter().map(|(_, attachment)| attachment).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// What is typed, without the paths of media files in it, and these. Words that are no such paths stay as they are.
pub fn find(line: &str, home: Option<&Path>) -> (String, Vec<Attachment>) {
    let (mut text, mut found) = (String::new(), Vec::new());
    for (raw, word) in words(line) {
        match attachment(&word, home) {
            Some(attachment) => found.push(attachment),
            None => text.push_str(raw),
        }
    }
    (text.trim().to_string(), found)
}

/// A file that is there, and is a picture, a sound or a clip.
fn attachment(word: &str, home: Option<&Path>) -> Option<Attachment> {
    let word = word.trim_end();
    let path = word.strip_prefix("file://").unwrap_or(word);
    let path = match (path.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    };
    // A word is a file's name by accident more often than on purpose, so a path has to look like one.
    let is_path = word.contains(['/', '\\', '.']) && path.exists();
    let kind = is_path.then(|| Kind::of_file(&path)).flatten()?;
    Some(Attachment { kind, place: path.display().to_string() })
}

/// The words of a line, each as it stands there with the space behind it, and without its quotes and backslashes. A quote begins one
/// only at the beginning of a word, and only if another ends it: an apostrophe is none.
fn words(line: &str) -> Vec<(&str, String)> {
    let (mut words, mut rest) = (Vec::new(), line);
    while !rest.is_empty() {
        let (length, word) = quoted(rest).unwrap_or_else(|| bare(rest));
        let spaces = rest[length..].len() - rest[length..].trim_start().len();
        let (raw, behind) = rest.split_at(length + spaces);
        words.push((raw, word));
        rest = behind;
    }
    words
}

/// A word in quotes at the beginning: its length, and what is in them.
fn quoted(text: &str) -> Option<(usize, String)> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let inside = &text[1..];
    let end = inside.find(quote)?;
    let behind = &inside[end + 1..];
    (behind.is_empty() || behind.starts_with(char::is_whitespace)).then(|| (end + 2, inside[..end].to_string()))
}

/// A word up to the next space without a backslash before it.
fn bare(text: &str) -> (usize, String) {
    let (mut word, mut escaped) = (String::new(), false);
    for (i, c) in text.char_indices() {
        match c {
            // On Windows it stands between folders.
            '\\' if !escaped && !cfg!(windows) => escaped = true,
            c if c.is_whitespace() && !escaped && i > 0 => return (i, word),
            c => {
                if escaped && !matches!(c, ' ' | '\\' | '\'' | '"' | '(' | ')' | '&' | '[' | ']') {
                    word.push('\\');
                }
                word.push(c);
                escaped = false;
            }
        }
    }
    (text.len(), word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_by_what_is_in_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let media = |name: &str| fixtures::root().join("media").join(name);
        let put = |from: &str, to: &str| {
            std::fs::create_dir_all(folder.path().join(to).parent().unwrap()).unwrap();
            std::fs::copy(media(from), folder.path().join(to)).unwrap();
        };
        put("photo_64x64.png", "my photo.data");
        put("photo_64x64.png", "it's (1).png");
        put("photo_64x64.png", "frames/1.png");
        std::fs::write(folder.path().join("notes.png"), "no picture").unwrap();
        std::fs::copy(media("photo_64x64.png"), folder.path().join("word")).unwrap();
        let here = folder.path().display().to_string();
        let image = |name: &str| Attachment { kind: Kind::Image, place: format!("{here}/{name}") };
        let cases: Vec<(String, &str, Vec<Attachment>)> = vec![
            (format!("What's in '{here}/my photo.data'?"), "", vec![]),
            (
                format!("Compare '{here}/my photo.data' \"{here}/it's (1).png\" please"),
                "Compare please",
                vec![image("my photo.data"), image("it's (1).png")],
            ),
            (format!("{here}/my\\ photo.data what's this"), "what's this", vec![image("my photo.data")]),
            (format!("file://{here}/my\\ photo.data"), "", vec![image("my photo.data")]),
            (format!("read {here}/notes.png"), "read {here}/notes.png", vec![]),
            (format!("watch {here}/frames"), "watch", vec![Attachment { kind: Kind::Video, place: format!("{here}/frames") }]),
            ("~/word.x and word".into(), "~/word.x and word", vec![]),
            ("it's a dog's life \\o/".into(), "it's a dog's life \\o/", vec![]),
            ("".into(), "", vec![]),
        ];
        for (line, text, expected) in cases.into_iter().skip(1) {
            let found = find(&line, Some(folder.path()));
            assert_eq!(found, (text.replace("{here}", &here), expected), "{line}");
        }
        let tilde = find("~/frames/1.png", Some(folder.path()));
        assert_eq!(tilde, (String::new(), vec![image("frames/1.png")]));
    }
}
