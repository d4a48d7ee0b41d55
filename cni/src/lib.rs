//! The CNI plugin: does what has to be done inside a pod's network namespace and asks the agent for
//! everything else.
//!
//! It holds no state: the host end's name follows from network, container and interface name, so
//! DEL needs nothing but those. Addresses, policy and the dataplane are the agent's business. One
//! call is one short process, so everything here is blocking and single-threaded but for the thread
//! that enters the pod's namespace.
//!
//! ```
//! let version = |name: &str| (name == "CNI_COMMAND").then(|| "VERSION".to_owned());
//! let outcome = weft_cni::run(&version, br#"{"cniVersion":"1.0.0"}"#);
//! assert!(outcome.success);
//! ```

mod agent;
mod env;
mod error;
mod host_end;
mod inspect;
mod ipam;
mod json;
mod netlink;
mod netns;
mod pod_end;
mod result;
mod types;
mod verb;

use serde_json::Value;

pub use env::{Args, Command, Environment};
pub use error::Error;
pub use result::{AddResult, Dns, Interface, Ip, Route};
pub use types::{NetConf, PodConf, Version};

/// What a call says on standard output and by its exit status.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The document for standard output; none: nothing is printed.
    pub document: Option<Value>,
    /// Exit status 0.
    pub success: bool,
}

/// Runs one call: `variable` reads the environment, `stdin` is the network configuration.
pub fn run(variable: &dyn Fn(&str) -> Option<String>, stdin: &[u8]) -> Outcome {
    match dispatch(variable, stdin) {
        Ok(document) => Outcome {
            document,
            success: true,
        },
        Err(error) => {
            let asked = types::version_of(stdin);
            let known = Version::ALL
                .into_iter()
                .find(|v| asked.as_deref() == Some(v.as_str()));
            Outcome {
                document: Some(error.to_document(known.unwrap_or(Version::LATEST))),
                success: false,
            }
        }
    }
}

fn dispatch(
    variable: &dyn Fn(&str) -> Option<String>,
    stdin: &[u8],
) -> Result<Option<Value>, Error> {
    let env = Environment::read(variable)?;
    if env.command == Command::Version {
        return Ok(Some(verb::version::run(types::version_of(stdin))));
    }
    let conf = NetConf::parse(stdin)?;
    let call = verb::Call {
        conf: &conf,
        env: &env,
    };
    match env.command {
        Command::Add => {
            let result = verb::add::run(&call)?;
            return Ok(Some(result.to_document(conf.version)));
        }
        Command::Del => verb::del::run(&call)?,
        Command::Check => verb::check::run(&call)?,
        Command::Gc => verb::gc::run(&call)?,
        Command::Status | Command::Version => verb::status::run(&call)?,
    }
    Ok(None)
}

/// Everything that reads untrusted text, without touching the machine: for the fuzzer and its
/// corpus.
#[doc(hidden)]
pub fn decode_any(text: &[u8]) {
    if let Ok(conf) = NetConf::parse(text) {
        let _ = conf.valid_attachments();
        if let Ok(pod) = conf.pod() {
            let result = pod.prev_result.unwrap_or_default();
            for version in Version::ALL {
                let document = result.to_document(version);
                // What is written can be read again.
                assert!(AddResult::parse(&document).is_ok(), "{document}");
            }
        }
    }
    let _ = types::version_of(text);
    let text = String::from_utf8_lossy(text).into_owned();
    for command in ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"] {
        let variable = |name: &str| match name {
            "CNI_COMMAND" => Some(command.to_owned()),
            _ => Some(text.clone()),
        };
        let _ = Environment::read(&variable);
    }
}
