//! The attachments and their addresses on disk, so that no address is given twice after a crash.
//!
//! Written to a temporary file that is renamed over the old one: a reader sees one or the other,
//! whole. There is no fsync: the rename orders the two for every process of this boot, kill -9
//! included, and across a reboot the file has no meaning, because no pod survives one. The boot id
//! in the file tells.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use weft_api::agent::{Attachment, HostPort};
use weft_api::{MacAddr, PodRef, PortName};
use weft_model::ipam::Persisted;

/// Version of the file; another one counts as broken.
const FILE_VERSION: u32 = 1;

/// Where the kernel tells one boot from another.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// One attachment as it was planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its port.
    pub port: PortName,
    /// The attachment; none for a port found in the dataplane after the record was lost.
    pub attachment: Option<Attachment>,
    /// The pod, where known.
    pub pod: Option<PodRef>,
    /// MAC of the pod's end.
    pub mac: MacAddr,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// MTU of its default routes, in bytes.
    pub path_mtu: u32,
    /// Path of its network namespace, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
    /// Ports of the node that lead to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
}

/// What the file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The attachments.
    pub records: Vec<Record>,
    /// The allocator.
    pub ipam: Persisted,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    boot_id: String,
    #[serde(flatten)]
    saved: Saved,
}

/// Only what every version has.
#[derive(Deserialize)]
struct Head {
    version: u32,
    boot_id: String,
}

/// What was found at start.
#[derive(Debug, PartialEq)]
pub enum Found {
    /// The state of this boot.
    Saved(Box<Saved>),
    /// No state, or one of an earlier boot.
    Nothing,
    /// A state nobody can use, moved aside: where to, and what is wrong with it.
    Broken {
        /// Why and where it is now, a sentence.
        problem: String,
    },
}

/// The file.
#[derive(Clone, Debug)]
pub struct IpamStore {
    path: PathBuf,
    boot_id: String,
}

impl IpamStore {
    /// The file in `state_dir`, which is created.
    ///
    /// # Errors
    /// When the directory cannot be created or the boot id cannot be read.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(state_dir)?;
        let boot_id = fs::read_to_string(BOOT_ID)?.trim().to_owned();
        Ok(Self::new(state_dir.join("attachments.json"), boot_id))
    }

    fn new(path: PathBuf, boot_id: String) -> Self {
        Self { path, boot_id }
    }

    /// Reads the state. A broken file is moved aside, never overwritten.
    ///
    /// # Errors
    /// When the file is there but cannot be read, or a broken one cannot be moved.
    pub fn load(&self) -> io::Result<Found> {
        let bytes = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            other => other?,
        };
        match self.read(&bytes) {
            Ok(Some(saved)) => Ok(Found::Saved(Box::new(saved))),
            Ok(None) => Ok(Found::Nothing),
            Err(reason) => self.set_aside(&reason),
        }
    }

    fn read(&self, bytes: &[u8]) -> Result<Option<Saved>, String> {
        let head: Head = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if head.version != FILE_VERSION {
            let version = head.version;
            return Err(format!(
                "it has version {version}, this agent knows {FILE_VERSION}"
            ));
        }
        if head.boot_id != self.boot_id {
            return Ok(None);
        }
        let file: File = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        file.saved.check()?;
        Ok(Some(file.saved))
    }

    /// Moves the broken file aside; the caller may have reasons of its own.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn set_aside(&self, reason: &str) -> io::Result<Found> {
        let mut aside = self.path.with_extension("json.broken");
        let mut number = 1;
        while aside.exists() {
            number += 1;
            aside = self.path.with_extension(format!("json.broken-{number}"));
        }
        fs::rename(&self.path, &aside)?;
        Ok(Found::Broken {
            problem: format!(
                "the state in {} was broken ({reason}); it is now {}, and addresses in use are taken from the dataplane's ports",
                self.path.display(),
                aside.display()
            ),
        })
    }

    /// Writes the state.
    ///
    /// # Errors
    /// The file system's; then the old state is still there.
    pub fn save(&self, saved: &Saved) -> io::Result<()> {
        let file = File {
            version: FILE_VERSION,
            boot_id: self.boot_id.clone(),
            saved: saved.clone(),
        };
        write_whole(&self.path, &serde_json::to_vec(&file)?)
    }
}

impl Saved {
    /// A record without its lease, or a lease of no record, means that the file was edited.
    fn check(&self) -> Result<(), String> {
        let leases = self.ipam.leases.iter();
        let leases: BTreeSet<_> = leases.map(|l| (&l.port, &l.addresses)).collect();
        let records: BTreeSet<_> = self
            .records
            .iter()
            .map(|r| (&r.port, &r.addresses))
            .collect();
        if records.len() != self.records.len() {
            return Err("an attachment is in it twice".to_owned());
        }
        match leases.symmetric_difference(&records).next() {
            Some((port, _)) => Err(format!("attachment and addresses of {port} do not agree")),
            None => Ok(()),
        }
    }
}

/// Replaces `path` by a file of `bytes`, at once.
///
/// # Errors
/// The file system's; then what was there is untouched.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    fs::File::create(&temporary)?.write_all(bytes)?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_model::ipam::PersistedLease;

    fn saved(port: &str, address: &str) -> Saved {
        let port = PortName(port.to_owned());
        let addresses: Vec<IpAddr> = vec![address.parse().unwrap()];
        Saved {
            records: vec![Record {
                host_ports: Vec::new(),
                port: port.clone(),
                attachment: None,
                pod: None,
                mac: MacAddr::of_pod(addresses[0]),
                addresses: addresses.clone(),
                path_mtu: 1_450,
                netns: None,
            }],
            ipam: Persisted {
                leases: vec![PersistedLease {
                    port,
                    addresses,
                    delegated: false,
                }],
                ..Persisted::default()
            },
        }
    }

    #[test]
    fn a_state_is_read_back_in_the_same_boot_only() {
        let dir = tempfile::tempdir().unwrap();
        let store = IpamStore::open(dir.path()).unwrap();
        assert_eq!(store.load().unwrap(), Found::Nothing);
        let state = saved("weft1", "10.1.0.2");
        store.save(&state).unwrap();
        assert_eq!(store.load().unwrap(), Found::Saved(Box::new(state)));
        let later = IpamStore::new(store.path.clone(), "another boot".to_owned());
        assert_eq!(later.load().unwrap(), Found::Nothing);
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(names.len(), 1);
    }

    #[test]
    fn broken_states_are_moved_aside_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = IpamStore::open(dir.path()).unwrap();
        let mut other = saved("weft1", "10.1.0.2");
        other.records[0].addresses.clear();
        let boot = store.boot_id.clone();
        let contradiction = serde_json::to_string(&File {
            version: FILE_VERSION,
            boot_id: boot.clone(),
            saved: other,
        });
        let future = format!(r#"{{"version":9,"boot_id":"{boot}"}}"#);
        for (text, reason) in [
            (String::new(), "EOF"),
            (r#"{"version":1,"boot"#.to_owned(), "EOF"),
            (future, "it has version 9"),
            (contradiction.unwrap(), "of weft1 do not agree"),
        ] {
            fs::write(&store.path, text).unwrap();
            match store.load().unwrap() {
                Found::Broken { problem } => assert!(problem.contains(reason), "{problem}"),
                found => panic!("{found:?}"),
            }
            assert!(!store.path.exists());
        }
        assert!(dir.path().join("attachments.json.broken-4").exists());
    }
}
