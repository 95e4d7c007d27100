//! A conversation: line editing and history on a terminal, line by line from anything else.

use std::future::Future;
use std::io::{BufRead, IsTerminal, stdin};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use mistralrs::{ChatRequest, Content, Model, Part};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde_json::{Value, json};

use super::command::{HELP, Line, set, settings};
use super::{content, message, show, write};
use crate::args::{ModelOptions, RunOptions};
use crate::attachments::{self, Attachment};
use crate::environment;

const GREETING: &str = "Ask away. /help lists what else can be said, Ctrl-D leaves.";

/// A conversation, and what goes with its next question.
pub struct Talk {
    model: Model,
    request: ChatRequest,
    options: RunOptions,
    attached: Vec<Part>,
}

/// Where lines come from.
enum Lines {
    Terminal { editor: Box<DefaultEditor>, history: Option<PathBuf> },
    Other,
}

/// Whether it goes on.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Line,
    End,
}

impl Talk {
    pub fn new(model: Model, request: ChatRequest, options: RunOptions) -> Self {
        Self { model, request, options, attached: Vec::new() }
    }

    /// Goes on until the input ends. `load` loads another model.
    pub async fn run<F: Future<Output = Result<Model>>>(mut self, load: impl Fn(ModelOptions) -> F) -> Result<()> {
        let mut lines = Lines::open()?;
        while let Some(line) = tokio::task::block_in_place(|| lines.next())? {
            match self.line(&line, &load).await {
                Ok(Next::Line) => {}
                Ok(Next::End) => break,
                Err(e) => eprintln!("error: {e:#}"),
            }
        }
        lines.close()
    }

    async fn line<F: Future<Output = Result<Model>>>(&mut self, line: &str, load: &impl Fn(ModelOptions) -> F) -> Result<Next> {
        match Line::read(line)? {
            Line::Say("") => {}
            Line::Say(text) => self.say(text).await?,
            Line::Help => eprintln!("{HELP}"),
            Line::Exit => return Ok(Next::End),
            Line::Clear => self.begin(),
            Line::System(text) => {
                self.options.system = Some(text.to_string()).filter(|text| !text.is_empty());
                self.begin();
            }
            Line::Attach(kind, place) => self.attach(vec![Attachment { kind, place: place.into() }])?,
            Line::Model(id) => {
                self.options.model.model_id = Some(id.into());
                self.model = load(self.options.model.clone()).await?;
                eprintln!("{} ({}) goes on", self.model.id(), self.model.family().title);
            }
            Line::Set(None) => eprintln!("{}", settings(&self.request)),
            Line::Set(Some((name, value))) => set(&mut self.request, name, value)?,
            Line::Save(path) => self.save(Path::new(path))?,
        }
        Ok(Next::Line)
    }

    fn begin(&mut self) {
        let system = self.options.system.iter().map(|text| message("system", Content::Text(text.clone())));
        self.request.messages = system.collect();
        self.attached.clear();
    }

    fn attach(&mut self, found: Vec<Attachment>) -> Result<()> {
        for attachment in found {
            eprintln!("{}: {}", attachment.kind.name(), attachment.place);
            self.attached.push(attachment.part(&self.options.clip)?);
        }
        Ok(())
    }

    /// Asks, and remembers question and answer, one that Ctrl-C has ended too. A question that cannot be answered is forgotten.
    async fn say(&mut self, line: &str) -> Result<()> {
        let (text, found) = attachments::find(line, environment::home().as_deref());
        self.attach(found)?;
        if text.is_empty() {
            return Ok(());
        }
        let media = std::mem::take(&mut self.attached);
        self.request.messages.push(message("user", content(media, text)));
        if self.options.show_images {
            // A picture that cannot be shown is told about when it is asked about.
            let _ = show(&self.model, &self.request).await;
        }
        let mut answer = String::new();
        let asked = tokio::select! {
            asked = write(&self.model, &self.request, self.options.plain, &mut answer) => asked,
            _ = tokio::signal::ctrl_c() => {
                println!();
                Ok(())
            }
        };
        match asked {
            Ok(()) => self.request.messages.push(message("assistant", Content::Text(answer))),
            Err(_) => drop(self.request.messages.pop()),
        }
        asked
    }

    fn save(&self, path: &Path) -> Result<()> {
        let turns = self.request.messages.iter().map(|message| {
            let (media, text) = match &message.content {
                Content::Text(text) => (Vec::new(), text.as_str()),
                Content::Parts(parts) => said(parts),
            };
            (message.role.as_str(), media, text)
        });
        let text = match path.extension().is_some_and(|end| end == "json") {
            true => {
                let turns = turns.map(|(role, media, text)| json!({"role": role, "media": media, "content": text}));
                serde_json::to_string_pretty(&Value::from_iter(turns))?
            }
            false => {
                let turns = turns.map(|(role, media, text)| {
                    let media: String = media.iter().map(|place| format!("[{place}]\n")).collect();
                    format!("{role}:\n{media}{text}\n")
                });
                turns.collect::<Vec<_>>().join("\n")
            }
        };
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("saved as {}", path.display());
        Ok(())
    }
}

/// Where the media of a turn are, and its words.
fn said(parts: &[Part]) -> (Vec<String>, &str) {
    let mut text = "";
    let mut media = Vec::new();
    for part in parts {
        match part {
            Part::Text(words) => text = words,
            part => media.extend(part.source().map(ToString::to_string)),
        }
    }
    (media, text)
}

impl Lines {
    fn open() -> Result<Self> {
        if !stdin().is_terminal() {
            return Ok(Self::Other);
        }
        let mut editor = Box::new(DefaultEditor::new()?);
        let history = environment::state().map(|folder| folder.join("history"));
        if let Some(history) = &history {
            // There is none yet at the first time.
            let _ = editor.load_history(history);
        }
        eprintln!("{GREETING}");
        Ok(Self::Terminal { editor, history })
    }

    /// The next line, if there is one. Ctrl-C takes back what was typed.
    fn next(&mut self) -> Result<Option<String>> {
        match self {
            Self::Terminal { editor, .. } => loop {
                match editor.readline("> ") {
                    Ok(line) => {
                        editor.add_history_entry(line.as_str())?;
                        return Ok(Some(line));
                    }
                    Err(ReadlineError::Interrupted) => {}
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(e) => return Err(e.into()),
                }
            },
            Self::Other => {
                let mut line = String::new();
                Ok((stdin().lock().read_line(&mut line)? > 0).then_some(line))
            }
        }
    }

    fn close(self) -> Result<()> {
        if let Self::Terminal { mut editor, history: Some(history) } = self {
            if let Some(folder) = history.parent() {
                std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            }
            editor.save_history(&history).with_context(|| format!("cannot write {}", history.display()))?;
        }
        Ok(())
    }
}
