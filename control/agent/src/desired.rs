//! The desired state of the agent: files in, tables out, what was last good kept on disk.
//!
//! A file that is broken while the agent starts would otherwise take its objects with it, though the
//! process before held them: so the text of every file that could be read is kept, and read first.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use weft_api::PodRef;
pub use weft_model::compile::Desired;
use weft_model::compile::{ClusterConfig, Compiler, LocalPod};
use weft_model::manifest::Kind;
use weft_model::state::{Effect, Store};

use crate::ipam_store::write_whole;
use crate::watch::dir::FileChange;

/// What a change of the source led to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Pods of the cluster that came or changed; none for those that went.
    pub pods: Vec<(PodRef, Option<Arc<Pod>>)>,
    /// What all objects mean for this node.
    pub desired: Desired,
    /// The version of the local pods that were compiled.
    pub pods_revision: u64,
    /// What is wrong with them, a sentence each.
    pub problems: Vec<String>,
}

/// The pods attached or about to be, as one version of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalPods {
    /// Grows with every change.
    pub revision: u64,
    /// All of them.
    pub pods: Vec<LocalPod>,
}

/// Files and local pods to tables.
#[derive(Debug)]
pub struct DesiredState {
    store: Store,
    pods: LocalPods,
    compiler: Compiler,
    kept: PathBuf,
    /// Good manifests that were not kept yet.
    unkept: Vec<(String, Vec<u8>)>,
}

impl DesiredState {
    /// Starts from what the agent before this one could last read.
    ///
    /// # Errors
    /// When the state directory cannot be used.
    pub fn open(config: ClusterConfig, state_dir: &Path) -> io::Result<Self> {
        let kept = state_dir.join("manifests");
        fs::create_dir_all(&kept)?;
        let mut store = Store::default();
        for entry in fs::read_dir(&kept)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.ends_with(".tmp") {
                store.apply(&name, &fs::read(entry.path())?);
            }
        }
        Ok(Self {
            store,
            pods: LocalPods::default(),
            compiler: Compiler::new(config),
            kept,
            unkept: Vec::new(),
        })
    }

    /// The files known, for a source that must tell which are gone.
    pub fn files(&self) -> Vec<String> {
        self.store.files().map(str::to_owned).collect()
    }

    /// Takes the pods of this node; false when they are those it knows.
    pub fn set_pods(&mut self, pods: LocalPods) -> bool {
        let changed = self.pods.revision != pods.revision;
        self.pods = pods;
        changed
    }

    /// Takes changes of files. Call [`DesiredState::keep`] once they are in force.
    pub fn apply(&mut self, changes: Vec<FileChange>) {
        let store = &mut self.store;
        for change in changes {
            match change {
                FileChange::Content { name, bytes } => {
                    if store.apply(&name, &bytes) == Effect::Read {
                        self.unkept.push((name, bytes));
                    }
                }
                FileChange::Unreadable { name, reason } => store.unreadable(&name, &reason),
                FileChange::Removed { name } => {
                    store.remove(&name);
                    self.unkept.retain(|(unkept, _)| *unkept != name);
                    // Gone already, or never kept: the same.
                    let _ = fs::remove_file(self.kept.join(&name));
                }
            }
        }
    }

    /// Compiles what is there now.
    pub fn compile(&mut self) -> Outcome {
        let compiled = self.compiler.compile(&self.store, &self.pods.pods);
        let mut problems = self.store.problems();
        problems.extend(compiled.problems);
        let changed = self.store.take_changed();
        let pods = changed.iter().filter(|key| key.kind == Kind::Pod);
        let pods = pods.map(|key| {
            let (namespace, name) = (key.namespace.clone(), key.name.clone());
            (PodRef { namespace, name }, self.store.pod(key))
        });
        Outcome {
            pods: pods.collect(),
            desired: compiled.desired,
            pods_revision: self.pods.revision,
            problems,
        }
    }

    /// Keeps what was last good for the agent after this one. Nobody waits for it: if this one ends
    /// before, the next finds the manifest itself, and only one that broke meanwhile is lost.
    pub fn keep(&mut self) {
        for (name, bytes) in self.unkept.drain(..) {
            keep(&self.kept.join(name), &bytes);
        }
    }
}

fn keep(path: &Path, bytes: &[u8]) {
    if let Err(error) = write_whole(path, bytes) {
        let file = path.display();
        tracing::warn!(%file, %error, "cannot keep the manifest's last good state");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &[u8] =
        b"apiVersion: v1\nkind: Node\nmetadata: {name: a}\nspec: {podCIDR: 10.1.2.0/24}\n";

    fn content(bytes: &[u8]) -> Vec<FileChange> {
        vec![FileChange::Content {
            name: "a.yaml".to_owned(),
            bytes: bytes.to_vec(),
        }]
    }

    #[test]
    fn the_last_good_state_outlives_the_agent_but_not_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let open = || DesiredState::open(ClusterConfig::of_node("a"), dir.path()).unwrap();
        let apply = |state: &mut DesiredState, changes| {
            state.apply(changes);
            state.keep();
            state.compile()
        };
        let outcome = apply(&mut open(), content(NODE));
        assert_eq!(
            outcome.problems,
            ["Node a has no usable InternalIP: other nodes cannot be reached"]
        );
        let mut second = open();
        assert_eq!(second.files(), ["a.yaml"]);
        let outcome = apply(&mut second, content(b""));
        assert!(outcome.desired.local.is_some());
        assert!(outcome.problems[0].starts_with("a.yaml:1: is empty"));
        let removed = FileChange::Removed {
            name: "a.yaml".to_owned(),
        };
        assert!(apply(&mut second, vec![removed]).desired.local.is_none());
        assert_eq!(open().files(), [] as [&str; 0]);
    }
}
