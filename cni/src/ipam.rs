//! Delegated address management: runs another CNI plugin with the same input.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command as Process, Stdio};

use serde_json::Value;

use crate::env::{Command, Environment};
use crate::error::Error;
use crate::json::Object;
use crate::result::AddResult;
use crate::types::NetConf;

/// The plugin of `ipam.type`, found in CNI_PATH.
#[derive(Debug)]
pub(crate) struct Delegate<'a> {
    plugin: &'a str,
    path: PathBuf,
    stdin: &'a [u8],
}

impl<'a> Delegate<'a> {
    /// None when addresses come from the agent.
    pub(crate) fn find(conf: &'a NetConf, env: &Environment) -> Result<Option<Self>, Error> {
        let Some(plugin) = conf.ipam.as_deref() else {
            return Ok(None);
        };
        let candidates = env.path.iter().map(|directory| directory.join(plugin));
        let path = { candidates }.find(|p| p.is_file()).ok_or_else(|| {
            let searched = env.path.iter().map(|d| d.display().to_string());
            let searched = searched.collect::<Vec<_>>().join(":");
            Error::Config(format!(
                "the plugin '{plugin}' of ipam.type is not in CNI_PATH ({searched})"
            ))
        })?;
        Ok(Some(Self {
            plugin,
            path,
            stdin: &conf.raw,
        }))
    }

    /// ADD: the addresses.
    pub(crate) fn add(&self) -> Result<AddResult, Error> {
        let output = self.run(Command::Add)?;
        let value: Value = serde_json::from_slice(&output).map_err(|e| {
            Error::Decode(format!("{} answered ADD with no JSON: {e}", self.plugin))
        })?;
        let result = AddResult::parse(&value)
            .map_err(|e| Error::Decode(format!("{} answered ADD with {e}", self.plugin)))?;
        if result.ips.is_empty() {
            let message = format!("{} gave no address", self.plugin);
            return Err(Error::Exhausted(message));
        }
        Ok(result)
    }

    /// DEL or CHECK.
    pub(crate) fn call(&self, command: Command) -> Result<(), Error> {
        self.run(command).map(drop)
    }

    /// GC or STATUS, which a plugin older than version 1.1.0 does not have.
    pub(crate) fn call_if_known(&self, command: Command) -> Result<(), Error> {
        match self.run(command) {
            Err(Error::Delegate { code, message, .. })
                if code == 4 && message.contains("unknown CNI_COMMAND") =>
            {
                Ok(())
            }
            other => other.map(drop),
        }
    }

    fn run(&self, command: Command) -> Result<Vec<u8>, Error> {
        let action = || format!("run {} for {}", self.path.display(), command.as_str());
        let mut child = Process::new(&self.path)
            .env("CNI_COMMAND", command.as_str())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|e| Error::io(action(), e))?;
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(self.stdin) {
                // A plugin that fails early does not read its input; its error says more.
                Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
                    drop(stdin);
                    let killed = child.kill().and_then(|()| child.wait());
                    drop(killed);
                    return Err(Error::io(action(), e));
                }
                _ => {}
            }
        }
        let output = child
            .wait_with_output()
            .map_err(|e| Error::io(action(), e))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(self.failure(&output.stdout, &output.status.to_string()))
    }

    /// The plugin's own error document, or what can be said without one.
    fn failure(&self, stdout: &[u8], status: &str) -> Error {
        let read = || -> Option<(u32, String, String)> {
            let value: Value = serde_json::from_slice(stdout).ok()?;
            let object = Object::root(&value, "the error").ok()?;
            let code = object.number("code").ok()??;
            let text = |key| object.string(key).ok().flatten().unwrap_or_default();
            Some((code, text("msg"), text("details")))
        };
        // 999 is the specification's "generic error" of the reference plugins.
        let (code, message, details) = read().unwrap_or_else(|| {
            let output = String::from_utf8_lossy(stdout).trim().to_owned();
            (999, format!("failed with {status}"), output)
        });
        Error::Delegate {
            plugin: self.plugin.to_owned(),
            code,
            message,
            details,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn named(path: &Path) -> Delegate<'_> {
        Delegate {
            plugin: "test",
            path: path.to_owned(),
            stdin: b"{}",
        }
    }

    fn script(directory: &Path, text: &str) -> PathBuf {
        let path = directory.join("plugin");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn errors_of_the_plugin_keep_their_code() {
        let directory = tempfile::tempdir().unwrap();
        let text = r#"echo '{"Code": 11, "Msg": "busy", "details": "d"}'; exit 1"#;
        let path = script(directory.path(), text);
        let error = named(&path).call(Command::Del).unwrap_err();
        assert_eq!((error.code(), error.to_string()), (11, "test: busy".into()));
        let path = script(directory.path(), "echo boom; exit 3");
        let error = named(&path).call(Command::Del).unwrap_err();
        assert_eq!(error.code(), 999);
    }

    #[test]
    fn old_plugins_may_not_know_gc_but_must_know_del() {
        let directory = tempfile::tempdir().unwrap();
        let text = r#"echo '{"code": 4, "msg": "unknown CNI_COMMAND: GC"}'; exit 1"#;
        let path = script(directory.path(), text);
        named(&path).call_if_known(Command::Gc).unwrap();
        assert_eq!(named(&path).call(Command::Del).unwrap_err().code(), 4);
    }

    #[test]
    fn an_empty_answer_is_no_address() {
        let directory = tempfile::tempdir().unwrap();
        let path = script(directory.path(), "echo '{}'");
        assert_eq!(named(&path).add().unwrap_err().code(), 101);
        let path = script(directory.path(), "echo nonsense");
        assert_eq!(named(&path).add().unwrap_err().code(), 6);
    }
}
