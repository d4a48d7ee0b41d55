//! The `CNI_*` environment variables.

use std::path::PathBuf;

use weft_api::PodRef;

use crate::error::Error;

/// Longest interface name: the kernel's IFNAMSIZ without its final zero.
const IFNAME_BYTES_MAX: usize = 15;

/// A command of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Attach a container.
    Add,
    /// Detach it.
    Del,
    /// Is it attached as it was?
    Check,
    /// Remove what no runtime knows any more.
    Gc,
    /// Ready for ADD?
    Status,
    /// Which versions are spoken?
    Version,
}

impl Command {
    /// As CNI_COMMAND spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    fn required(self) -> &'static [&'static str] {
        match self {
            Self::Add | Self::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Self::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Self::Gc => &["CNI_PATH"],
            Self::Status | Self::Version => &[],
        }
    }
}

/// The parameters of one call, checked.
#[derive(Clone, Debug)]
pub struct Environment {
    /// CNI_COMMAND.
    pub command: Command,
    /// CNI_CONTAINERID; empty for commands without a container.
    pub container_id: String,
    /// CNI_NETNS; none when empty.
    pub netns: Option<PathBuf>,
    /// CNI_IFNAME; empty for commands without a container.
    pub ifname: String,
    /// CNI_ARGS.
    pub args: Args,
    /// CNI_PATH, split.
    pub path: Vec<PathBuf>,
    /// WEFT_RUN_DIR.
    pub run_dir: Option<PathBuf>,
}

/// What CNI_ARGS says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// The pod; none unless both its namespace and its name are given.
    pub pod: Option<PodRef>,
    /// `IP=`: meant for a delegated IPAM plugin, which reads it itself.
    pub ip: Option<String>,
}

impl Environment {
    /// Reads and checks the variables through `get`.
    ///
    /// # Errors
    /// [`Error::Environment`] that names the variable.
    pub fn read(get: &dyn Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let value = |name: &str| get(name).filter(|v| !v.is_empty());
        let command = parse_command(value("CNI_COMMAND"))?;
        let required = command.required().iter().copied();
        let missing = required.filter(|n| value(n).is_none()).collect::<Vec<_>>();
        if !missing.is_empty() {
            let (what, name) = (missing.join(", "), command.as_str());
            return Err(Error::Environment(format!(
                "{name} needs the environment variables {what}"
            )));
        }
        let with_container = matches!(command, Command::Add | Command::Del | Command::Check);
        let container_id = value("CNI_CONTAINERID").unwrap_or_default();
        let ifname = value("CNI_IFNAME").unwrap_or_default();
        if with_container {
            check_identifier("CNI_CONTAINERID", &container_id).map_err(Error::Environment)?;
            check_ifname(&ifname)?;
        }
        let args = match command {
            Command::Add | Command::Check => parse_args(&value("CNI_ARGS").unwrap_or_default())?,
            // DEL must work whatever the runtime forgot; the others have no pod.
            _ => Args::default(),
        };
        let path = value("CNI_PATH").unwrap_or_default();
        let directories = path.split(':').filter(|d| !d.is_empty());
        Ok(Self {
            command,
            container_id,
            netns: value("CNI_NETNS").map(PathBuf::from),
            ifname,
            args,
            path: directories.map(PathBuf::from).collect(),
            run_dir: value("WEFT_RUN_DIR").map(PathBuf::from),
        })
    }
}

fn parse_command(name: Option<String>) -> Result<Command, Error> {
    match name.as_deref() {
        Some("ADD") => Ok(Command::Add),
        Some("DEL") => Ok(Command::Del),
        Some("CHECK") => Ok(Command::Check),
        Some("GC") => Ok(Command::Gc),
        Some("STATUS") => Ok(Command::Status),
        Some("VERSION") => Ok(Command::Version),
        Some(other) => Err(Error::Environment(format!(
            "CNI_COMMAND '{other}' is unknown"
        ))),
        None => Err(Error::Environment(
            "CNI_COMMAND is not set; this program is started by a container runtime".into(),
        )),
    }
}

/// The specification's rule for container ids and network names: a letter or digit, then letters,
/// digits, `_`, `.` and `-`.
pub(crate) fn check_identifier(what: &str, id: &str) -> Result<(), String> {
    let rest = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let first = id.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if first && id.chars().all(rest) {
        Ok(())
    } else {
        Err(format!(
            "{what} '{id}' must begin with a letter or digit and hold only letters, digits, '_', '.' and '-'"
        ))
    }
}

fn check_ifname(name: &str) -> Result<(), Error> {
    let wrong = |why: &str| Err(Error::Environment(format!("CNI_IFNAME '{name}' {why}")));
    if name.len() > IFNAME_BYTES_MAX {
        wrong("is longer than 15 bytes")
    } else if matches!(name, "." | "..") {
        wrong("is not an interface name")
    } else if name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
        wrong("holds '/', ':', a space or a control character")
    } else {
        Ok(())
    }
}

fn parse_args(text: &str) -> Result<Args, Error> {
    let mut unknown = Vec::new();
    let (mut ignore_unknown, mut namespace, mut name, mut ip) = (false, None, None, None);
    for pair in text.split(';').filter(|p| !p.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(Error::Environment(format!(
                "CNI_ARGS '{pair}' is not of the form KEY=VALUE"
            )));
        };
        let given = || Some(value.to_owned()).filter(|v| !v.is_empty());
        match key {
            "IgnoreUnknown" => ignore_unknown = parse_bool(value)?,
            "K8S_POD_NAMESPACE" => namespace = given(),
            "K8S_POD_NAME" => name = given(),
            "IP" => ip = given(),
            "K8S_POD_INFRA_CONTAINER_ID" | "K8S_POD_UID" => {}
            other => unknown.push(other),
        }
    }
    if !unknown.is_empty() && !ignore_unknown {
        return Err(Error::Environment(format!(
            "CNI_ARGS holds unknown keys ({}) without IgnoreUnknown=1",
            unknown.join(", ")
        )));
    }
    let both = namespace.zip(name);
    let pod = both.map(|(namespace, name)| PodRef { namespace, name });
    Ok(Args { pod, ip })
}

fn parse_bool(text: &str) -> Result<bool, Error> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(Error::Environment(format!(
            "CNI_ARGS IgnoreUnknown={text} is neither true nor false"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containerd_and_podman_arguments_are_read_in_any_order() {
        let containerd = [
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=web;K8S_POD_NAME=a;K8S_POD_INFRA_CONTAINER_ID=f0;K8S_POD_UID=u",
            "K8S_POD_UID=u;K8S_POD_NAME=a;NEW_KEY=x;IgnoreUnknown=TRUE;K8S_POD_NAMESPACE=web",
        ];
        let pod = Some(PodRef {
            namespace: "web".into(),
            name: "a".into(),
        });
        for text in containerd {
            assert_eq!(parse_args(text).unwrap().pod, pod, "{text}");
        }
        let podman = parse_args("IgnoreUnknown=1;K8S_POD_NAME=b;MAC=02:00:00:00:00:09;IP=10.1.0.9");
        let podman = podman.unwrap();
        assert_eq!(podman.pod, None, "a pod needs a namespace");
        assert_eq!(podman.ip.as_deref(), Some("10.1.0.9"));
        assert_eq!(parse_args("").unwrap(), Args::default());
    }

    #[test]
    fn unknown_arguments_need_ignore_unknown() {
        for bad in [
            "FOO=1",
            "FOO=1;IgnoreUnknown=0",
            "IgnoreUnknown=maybe",
            "IgnoreUnknown",
        ] {
            assert_eq!(parse_args(bad).unwrap_err().code(), 4, "{bad}");
        }
    }

    #[test]
    fn names_follow_the_specification() {
        for good in ["a", "0", "A.b_c-d", "f00ba4"] {
            assert!(check_identifier("id", good).is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "a/b", "a b", "ä", "a\n"] {
            assert!(check_identifier("id", bad).is_err(), "{bad:?}");
        }
        for good in ["eth0", "e", "fifteen-bytes-x"] {
            assert!(check_ifname(good).is_ok(), "{good}");
        }
        for bad in [".", "..", "a/b", "a:b", "a b", "a\tb", "sixteen-bytes-xy"] {
            assert!(check_ifname(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn each_command_asks_for_its_own_variables() {
        let read = |set: &[(&str, &str)]| {
            let get = |name: &str| {
                let found = set.iter().find(|(k, _)| *k == name);
                found.map(|(_, v)| (*v).to_owned())
            };
            Environment::read(&get)
                .map(|e| e.command)
                .map_err(|e| e.to_string())
        };
        assert!(read(&[]).unwrap_err().contains("CNI_COMMAND"));
        assert!(read(&[("CNI_COMMAND", "add")]).is_err());
        let error = read(&[("CNI_COMMAND", "ADD"), ("CNI_IFNAME", "eth0")]).unwrap_err();
        assert!(error.contains("CNI_CONTAINERID, CNI_NETNS"), "{error}");
        let without_netns = [
            ("CNI_COMMAND", "DEL"),
            ("CNI_CONTAINERID", "a"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", ""),
            ("CNI_ARGS", "nonsense"),
        ];
        assert_eq!(read(&without_netns), Ok(Command::Del));
        assert_eq!(read(&[("CNI_COMMAND", "VERSION")]), Ok(Command::Version));
        assert_eq!(read(&[("CNI_COMMAND", "STATUS")]), Ok(Command::Status));
        assert!(read(&[("CNI_COMMAND", "GC")]).is_err());
        // podman sends "dummy" values with VERSION.
        let dummy = [
            ("CNI_COMMAND", "VERSION"),
            ("CNI_CONTAINERID", "du/mmy"),
            ("CNI_NETNS", "dummy"),
            ("CNI_IFNAME", "dummy"),
        ];
        assert_eq!(read(&dummy), Ok(Command::Version));
    }
}
