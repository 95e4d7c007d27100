//! `mistralrs`: words of the outside → the facade and the server.
//!
//! Knows: flags, environment variables, the terminal. Answers go to standard output, everything else to standard error.
//!
//! Must never know: tensors, tokens, schedules, the JSON of the wire.

mod args;
mod attachments;
mod bench;
mod cache;
mod doctor;
mod environment;
mod families;
mod load;
mod pages;
mod quantize;
mod run;
mod serve;
mod tooling;
mod tune;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::args::{Arguments, Command};

/// Keeps the memory of a result that is gone for the next one. The system's allocator gives large blocks back and gets them anew,
/// page by page and zeroed, which took half the time of a small model's prompt (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = tokio::runtime::Runtime::new().map_err(anyhow::Error::from).and_then(|runtime| {
        runtime.block_on(async {
            match arguments.command {
                Command::Run(options) => run::run(options).await,
                Command::Serve(options) => serve::serve(options).await,
                Command::Bench(options) => bench::bench(options).await,
                Command::Families => families::print(),
                Command::Doctor(options) => doctor::doctor(&options).await,
                Command::Tune(options) => tune::tune(options).await,
                Command::Quantize(options) => quantize::quantize(options).await,
                Command::Cache(options) => cache::cache(options),
                Command::Completions { shell } => {
                    clap_complete::generate(shell, &mut Arguments::command(), "mistralrs", &mut std::io::stdout());
                    Ok(())
                }
                Command::Man { folder } => Ok(clap_mangen::generate_to(Arguments::command(), folder)?),
                Command::Pages(options) => pages::write(&options),
            }
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {}", in_words(&e));
            ExitCode::FAILURE
        }
    }
}

/// One line; numbers in a table stay one.
fn in_words(error: &anyhow::Error) -> String {
    match error.downcast_ref::<mistralrs::Error>() {
        Some(e @ mistralrs::Error::Memory { .. }) => e.to_string(),
        _ => format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" "),
    }
}
