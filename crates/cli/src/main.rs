//! `mistralrs`: words of the outside → the facade and the server.
//!
//! Knows: flags, environment variables, the terminal. Answers go to standard output, everything else to standard error.
//!
//! Must never know: tensors, tokens, schedules, the JSON of the wire.

mod args;
mod bench;
mod doctor;
mod environment;
mod families;
mod load;
mod run;
mod serve;

use std::process::ExitCode;

use clap::Parser;

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
                Command::Doctor(options) => doctor::doctor(&options),
            }
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {}", one_line(&e));
            ExitCode::FAILURE
        }
    }
}

fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ")
}
