//! The log of weft's long-running processes: what `--log-format` and `WEFT_LOG` mean, the same in each.
//!
//! Lines go to standard error. Colours are for terminals only; a panic and the error a process ends
//! with are lines of the log, too, so whoever asked for JSON reads nothing but JSON.
//!
//! ```no_run
//! use clap::Parser;
//!
//! #[derive(Parser)]
//! struct Arguments {
//!     #[command(flatten)]
//!     log: weft_log::Log,
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     Arguments::parse().log.run(|| Err("nothing to do"))
//! }
//! ```

#![forbid(unsafe_code)]

use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use tracing::subscriber::set_global_default;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Environment variable of the level, or of levels per module.
const LEVEL: &str = "WEFT_LOG";

/// Level where nothing else is said: what an operator wants to know of a healthy node in a day fits a
/// screen.
const LEVEL_DEFAULT: &str = "info";

/// Part of a command line.
#[derive(Args, Clone, Copy, Debug)]
pub struct Log {
    /// Form of the log on stderr; WEFT_LOG sets its level, e.g. WEFT_LOG=debug
    #[arg(
        long,
        env = "WEFT_LOG_FORMAT",
        value_enum,
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub log_format: Format,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

type Subscriber = Box<dyn tracing::Subscriber + Send + Sync>;

impl Log {
    /// Starts the log and runs the program. An error ends as the last line of the log.
    pub fn run<E: Display>(self, program: impl FnOnce() -> Result<(), E>) -> ExitCode {
        self.start();
        match program() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!("{error:#}");
                ExitCode::FAILURE
            }
        }
    }

    fn start(self) {
        let wanted = std::env::var(LEVEL).unwrap_or_else(|_| LEVEL_DEFAULT.to_owned());
        let filter = EnvFilter::try_new(&wanted);
        let misread = filter.as_ref().err().map(ToString::to_string);
        let filter = filter.unwrap_or_else(|_| EnvFilter::new(LEVEL_DEFAULT));
        let subscriber = subscriber(self.log_format, is_colourful(), filter, io::stderr);
        if set_global_default(subscriber).is_err() {
            return; // there is a log already
        }
        std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
        if let Some(why) = misread {
            tracing::warn!("{LEVEL}={wanted} is not a level ({why}); logging at {LEVEL_DEFAULT}");
        }
    }
}

/// Where a person looks, unless they said no (no-color.org).
fn is_colourful() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !refused
}

fn subscriber<W>(format: Format, colours: bool, filter: EnvFilter, to: W) -> Subscriber
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(to);
    match format {
        Format::Text => Box::new(lines.with_ansi(colours).with_target(false).finish()),
        Format::Json => Box::new(lines.json().with_ansi(false).finish()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What a few events look like.
    fn logged(format: Format, colours: bool) -> String {
        let written = Written::default();
        let to = written.clone();
        let subscriber = subscriber(format, colours, EnvFilter::new("info"), move || to.clone());
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!("attach", pod = "shop/web").entered();
            tracing::warn!(port = 7, "two\nlines");
            tracing::debug!("not at this level");
            tracing::error!("the end");
        });
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_has_colours_for_terminals_only() {
        let plain = logged(Format::Text, false);
        assert!(
            !plain.contains('\u{1b}') && plain.contains("port=7"),
            "{plain}"
        );
        assert!(!plain.contains("not at this level"));
        assert!(logged(Format::Text, true).contains('\u{1b}'));
    }

    #[test]
    fn json_is_one_object_per_line_whatever_is_logged() {
        for colours in [false, true] {
            let text = logged(Format::Json, colours);
            let lines: Vec<serde_json::Value> = text
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            assert_eq!(lines.len(), 2, "{text}");
            assert_eq!(lines[0]["fields"]["message"], "two\nlines");
            assert_eq!(lines[1]["level"], "ERROR");
        }
    }
}
