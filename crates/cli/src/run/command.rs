//! What can be said to the program instead of the model.

use anyhow::{Context, Result, bail};
use mistralrs::ChatRequest;

use crate::attachments::Kind;

/// A line of a conversation.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// For the model.
    Say(&'a str),
    Help,
    Exit,
    /// Forgets the conversation.
    Clear,
    /// What the model is told beforehand; forgets the conversation.
    System(&'a str),
    /// Goes with the next question.
    Attach(Kind, &'a str),
    /// Another model goes on.
    Model(&'a str),
    /// Changes how answers are generated; without a name, shows it.
    Set(Option<(&'a str, &'a str)>),
    /// Writes the conversation to a file.
    Save(&'a str),
}

pub const HELP: &str = "\
/image PATH, /audio PATH, /video PATH   goes with the next question; so do paths in what you type, in quotes where they have spaces
/system TEXT                            what the model is told beforehand; begins anew
/clear                                  begins anew
/model FOLDER|ID                        another model goes on with the conversation
/set                                    shows how answers are generated
/set NAME VALUE                         temperature, top_p, top_k, min_p, max_tokens, seed, repetition_penalty, thinking
/save FILE                              writes the conversation: .json, or text
/exit, Ctrl-D                           leaves
Ctrl-C                                  ends the answer";

impl<'a> Line<'a> {
    /// # Errors
    /// It begins like a command, and is none.
    pub fn read(line: &'a str) -> Result<Self> {
        let line = line.trim();
        let Some(command) = line.strip_prefix('/') else { return Ok(Self::Say(line)) };
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        // A path at the beginning of a question.
        if name.contains('/') {
            return Ok(Self::Say(line));
        }
        let rest = rest.trim();
        let given = |what: &str| match unquoted(rest) {
            "" => bail!("/{name} wants {what}"),
            rest => Ok(rest),
        };
        Ok(match name {
            "help" | "?" => Self::Help,
            "exit" | "quit" => Self::Exit,
            "clear" => Self::Clear,
            "system" => Self::System(rest),
            "model" => Self::Model(given("a folder or an id")?),
            "save" => Self::Save(given("a file")?),
            "set" => match rest.split_once(char::is_whitespace) {
                Some((name, value)) => Self::Set(Some((name, value.trim()))),
                None if rest.is_empty() => Self::Set(None),
                None => bail!("/set wants a name and a value"),
            },
            "temperature" => Self::Set(Some(("temperature", given("a number")?))),
            "topk" => Self::Set(Some(("top_k", given("a number")?))),
            "topp" => Self::Set(Some(("top_p", given("a number")?))),
            name => match Kind::ALL.into_iter().find(|kind| kind.name() == name) {
                Some(kind) => Self::Attach(kind, given("a path or URL")?),
                None => bail!("there is no /{name}; /help lists what there is"),
            },
        })
    }
}

fn unquoted(text: &str) -> &str {
    let within = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    within('"').or_else(|| within('\'')).unwrap_or(text)
}

/// Changes how answers are generated.
///
/// # Errors
/// There is no such setting, or the value is none of it.
pub fn set(request: &mut ChatRequest, name: &str, value: &str) -> Result<()> {
    fn parsed<T: std::str::FromStr>(name: &str, value: &str) -> Result<T> {
        value.parse().ok().with_context(|| format!("{value} is no value of {name}"))
    }
    let sampling = &mut request.sampling;
    match name {
        "temperature" => sampling.temperature = parsed(name, value)?,
        "top_p" => sampling.top_p = parsed(name, value)?,
        "top_k" => sampling.top_k = parsed(name, value)?,
        "min_p" => sampling.min_p = parsed(name, value)?,
        "repetition_penalty" => sampling.repetition_penalty = parsed(name, value)?,
        "seed" => sampling.seed = Some(parsed(name, value)?),
        "max_tokens" => request.tokens_max = Some(parsed(name, value)?),
        "thinking" => {
            let on = match value {
                "on" | "true" | "yes" => true,
                "off" | "false" | "no" => false,
                _ => bail!("{value} is no value of thinking; on and off are"),
            };
            request.template_kwargs.insert("enable_thinking".into(), on.into());
        }
        _ => bail!("there is no {name} to set; /help lists what there is"),
    }
    Ok(())
}

/// How answers are generated, a line each.
pub fn settings(request: &ChatRequest) -> String {
    let ChatRequest { sampling, tokens_max, template_kwargs, .. } = request;
    let or = |value: Option<String>, otherwise: &str| value.unwrap_or_else(|| otherwise.to_string());
    let lines = [
        ("temperature", sampling.temperature.to_string()),
        ("top_p", sampling.top_p.to_string()),
        ("top_k", sampling.top_k.to_string()),
        ("min_p", sampling.min_p.to_string()),
        ("repetition_penalty", sampling.repetition_penalty.to_string()),
        ("seed", or(sampling.seed.map(|seed| seed.to_string()), "drawn")),
        ("max_tokens", or(tokens_max.map(|tokens| tokens.to_string()), "as the context allows")),
        ("thinking", or(template_kwargs.get("enable_thinking").map(|on| on.to_string()), "as the model likes")),
    ];
    lines.map(|(name, value)| format!("{name:20}{value}")).join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_for_the_model_or_the_program() {
        let cases = [
            ("Hello", Line::Say("Hello")),
            ("  /home/me/a.png what? ", Line::Say("/home/me/a.png what?")),
            ("/help", Line::Help),
            ("/exit", Line::Exit),
            ("/system You are a cat. ", Line::System("You are a cat.")),
            ("/system", Line::System("")),
            ("/image my photo.png", Line::Attach(Kind::Image, "my photo.png")),
            ("/audio \"a b.wav\"", Line::Attach(Kind::Audio, "a b.wav")),
            ("/model org/name", Line::Model("org/name")),
            ("/set", Line::Set(None)),
            ("/set top_k 4", Line::Set(Some(("top_k", "4")))),
            ("/temperature 0.5", Line::Set(Some(("temperature", "0.5")))),
            ("/save 'a b.json'", Line::Save("a b.json")),
        ];
        for (line, expected) in cases {
            assert_eq!(Line::read(line).unwrap(), expected, "{line}");
        }
        let refused = [("/image", "wants a path or URL"), ("/dance", "there is no /dance"), ("/set top_k", "a name and a value")];
        for (line, expected) in refused {
            assert!(Line::read(line).unwrap_err().to_string().contains(expected), "{line}");
        }
    }

    #[test]
    fn settings_are_shown_as_they_were_set() {
        let mut request = ChatRequest::default();
        for (name, value) in [("temperature", "0.5"), ("max_tokens", "7"), ("seed", "3"), ("thinking", "off")] {
            set(&mut request, name, value).unwrap();
        }
        let shown = settings(&request);
        for line in ["temperature         0.5", "max_tokens          7", "seed                3", "thinking            false"] {
            assert!(shown.lines().any(|shown| shown == line), "{line:?} in {shown}");
        }
        for (name, value) in [("temperature", "warm"), ("top_k", "-1"), ("colour", "red"), ("thinking", "maybe")] {
            assert!(set(&mut request, name, value).is_err(), "{name} {value}");
        }
    }
}
