//! `weft-cni`: started by a container runtime, parameters in `CNI_*` variables, network
//! configuration on standard input, result or error as JSON on standard output.

use std::io::{self, Read, Write};
use std::process::ExitCode;

/// Longest network configuration read, in bytes; real ones are a few KiB.
const STDIN_BYTES_MAX: u64 = 4 << 20;

fn main() -> ExitCode {
    if let Some(argument) = std::env::args().nth(1) {
        return explain(&argument);
    }
    let mut stdin = Vec::new();
    let read = io::stdin()
        .lock()
        .take(STDIN_BYTES_MAX)
        .read_to_end(&mut stdin);
    let outcome = match read {
        Ok(_) => weft_cni::run(&|name| std::env::var(name).ok(), &stdin),
        Err(error) => {
            let error = weft_cni::Error::io("read the network configuration", error);
            weft_cni::Outcome {
                document: Some(error.to_document(weft_cni::Version::LATEST)),
                success: false,
            }
        }
    };
    let printed = outcome.document.is_none_or(|document| {
        let mut text = document.to_string();
        text.push('\n');
        io::stdout().lock().write_all(text.as_bytes()).is_ok()
    });
    if outcome.success && printed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A person started it; a runtime passes no arguments.
fn explain(argument: &str) -> ExitCode {
    let version = env!("CARGO_PKG_VERSION");
    let text = format!(
        "weft-cni {version}: the CNI plugin of weft, CNI versions 0.3.0 to 1.1.0.\n\
         A container runtime starts it; put it into the runtime's plugin directory and use\n\
         {{\"cniVersion\":\"1.1.0\",\"name\":\"weft\",\"plugins\":[{{\"type\":\"weft-cni\"}}]}}\n\
         as network configuration. Optional keys: runDir, mtu, ipam, dns.\n"
    );
    let known = matches!(argument, "--help" | "-h" | "--version" | "-V");
    let written = if known {
        io::stdout().write_all(text.as_bytes())
    } else {
        io::stderr().write_all(text.as_bytes())
    };
    match (known, written) {
        (true, Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::from(2),
    }
}
