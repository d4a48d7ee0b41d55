//! A dataplane that agrees to everything and notes it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use serde_json::{Value, json};
use weft_api::PROTOCOL_VERSION;
use weft_api::dataplane::{Op, PortSpec};
use weft_api::envelope::Request;
use weft_api::frame::read_line;
use weft_api::object::{Key, Object};

/// What it was told.
#[derive(Default)]
pub struct Told {
    pub ports: BTreeMap<String, PortSpec>,
    pub objects: BTreeMap<Key, Object>,
    staged: BTreeMap<Key, Object>,
    syncing: bool,
    pub generation: u64,
    pub committed: bool,
    connections: Vec<UnixStream>,
}

pub struct FakeDataplane {
    socket: PathBuf,
    told: Arc<Mutex<Told>>,
}

impl FakeDataplane {
    /// Starts with empty tables.
    pub fn start(socket: &Path) -> Self {
        let told = Arc::new(Mutex::new(Told::default()));
        let listener = UnixListener::bind(socket).unwrap();
        let shared = told.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, told) = (stream.unwrap(), shared.clone());
                lock(&told).connections.push(stream.try_clone().unwrap());
                thread::spawn(move || serve(stream, &told));
            }
        });
        let socket = socket.to_owned();
        Self { socket, told }
    }

    pub fn told(&self) -> MutexGuard<'_, Told> {
        lock(&self.told)
    }

    /// Goes away, as a process that was killed.
    pub fn kill(self) {
        fs::remove_file(&self.socket).unwrap();
        for stream in &self.told().connections {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap()
}

fn serve(mut stream: UnixStream, told: &Mutex<Told>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Ok(Some(Request { id, body })) = read_line::<Request<Op>>(&mut reader) {
        let ok = lock(told).take(body);
        let line = format!("{}\n", json!({ "id": id, "ok": ok }));
        if stream.write_all(line.as_bytes()).is_err() {
            return;
        }
    }
}

impl Told {
    fn take(&mut self, op: Op) -> Value {
        match op {
            Op::Hello { .. } => {
                let (generation, committed) = (self.generation, self.committed);
                return json!({ "version": PROTOCOL_VERSION, "generation": generation,
                    "committed": committed });
            }
            Op::SyncBegin { generation } => {
                self.generation = generation;
                self.syncing = true;
                self.staged.clear();
            }
            Op::Upsert { objects, .. } => {
                let tables = if self.syncing {
                    &mut self.staged
                } else {
                    &mut self.objects
                };
                tables.extend(objects.into_iter().map(|object| (object.key(), object)));
            }
            Op::Delete { keys, .. } => self.objects.retain(|key, _| !keys.contains(key)),
            Op::Commit { .. } => {
                self.syncing = false;
                self.committed = true;
                self.objects = std::mem::take(&mut self.staged);
            }
            Op::PortAttach(port) => {
                self.ports.insert(port.name.0.clone(), port);
                return json!({ "id": self.ports.len(), "mode": "copy" });
            }
            Op::PortDetach { name } => {
                self.ports.remove(&name.0);
            }
            Op::PortList => return json!({ "ports": [] }),
            _ => {}
        }
        json!({})
    }
}
