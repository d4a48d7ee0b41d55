//! `weft`: what an operator types to see what a node's dataplane does.
//!
//! Read commands print tables for people or, with `--output json`, the messages of `weft-api` as
//! they are. Exit status: 0 all is well, 1 a problem was found, 2 the command line is wrong.

mod args;
mod capture;
mod flow;
mod pcapng;
mod policy;
mod policy_log;
mod port;
mod replay;
mod service;
mod status;
mod text;
mod trace;
mod traffic;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use serde::Serialize;
use weft_api::client::{Client, ClientError};
use weft_api::envelope::ErrorKind;
use weft_api::paths::RunDir;

use args::{Arguments, Command, Output};

/// Longest wait for an answer: the dataplane answers in milliseconds, or something is wrong.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What a command found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Problem,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let node = Node {
        run_dir: RunDir::new(&arguments.run_dir),
        output: arguments.output,
    };
    let done = match arguments.command {
        Command::Status => status::run(&node),
        Command::Port(asked) => port::run(&node, asked.port.as_deref()),
        Command::Policy(asked) => policy::run(&node, &asked),
        Command::Service(asked) => service::run(&node, &asked),
        Command::Flow(asked) => flow::run(&node, &asked),
        Command::Trace(asked) => trace::run(&node, &asked),
        Command::Capture(asked) => capture::run(&node, &asked),
    };
    match done {
        Ok(Found::Nothing) => ExitCode::SUCCESS,
        Ok(Found::Problem) => ExitCode::from(1),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft: {error:#}");
            ExitCode::from(if is_misuse(&error) { 2 } else { 1 })
        }
    }
}

/// The dataplane could make no sense of what was asked.
fn is_misuse(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Refused(refused)) => refused.kind == ErrorKind::BadRequest,
        _ => false,
    }
}

/// The reader of our output has seen enough, as `head` does.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// The node that is looked at, and how to show it.
struct Node {
    run_dir: RunDir,
    output: Output,
}

impl Node {
    fn dataplane(&self) -> Result<Client, ClientError> {
        let socket = self.run_dir.dataplane_socket();
        Client::connect("weft-dataplane", &socket, ANSWER_TIMEOUT)
    }

    fn agent(&self) -> Result<Client, ClientError> {
        let socket = self.run_dir.agent_socket();
        Client::connect("weft-agent", &socket, ANSWER_TIMEOUT)
    }

    /// Prints `value` as JSON, or what `text` makes of it.
    fn show<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> io::Result<()> {
        let mut shown = match self.output {
            Output::Json => serde_json::to_string_pretty(value)?,
            Output::Table => text(value),
        };
        if !shown.ends_with('\n') {
            shown.push('\n');
        }
        io::stdout().lock().write_all(shown.as_bytes())
    }
}

/// Bold headings only for people: not in pipes, not where NO_COLOR asks for plain text.
fn styled() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}
