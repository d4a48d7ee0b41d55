//! The attachments of this node and their addresses: memory and disk in step.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use weft_api::agent::{Attachment, AttachmentStatus, HostPort, PoolStatus, Prepare};
use weft_api::dataplane::{PortKind, PortSpec, PortStatus};
use weft_api::envelope::{ApiError, ErrorKind};
use weft_api::{MacAddr, PodRef, PortName};
use weft_model::compile::LocalPod;
use weft_model::ipam::{Ipam, IpamError};

use crate::desired::LocalPods;
use crate::host::mtu::local_mtu;
use crate::ipam_store::{Found, IpamStore, Record, Saved};
use crate::state::now_ms;

/// How far an attachment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Planned; the plugin is at work in the pod.
    Prepared,
    /// Taken over from the agent before this one, or found in the dataplane.
    Restored,
    /// Its port was attached.
    Attached,
}

/// One attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// What was planned.
    pub record: Record,
    /// How far it is.
    pub phase: Phase,
    /// The dataplane has its port, as far as we know.
    pub live: bool,
    /// The first version of [`Attachments::local_pods`] that has it.
    pub revision: u64,
}

/// All of them.
#[derive(Debug)]
pub struct Attachments {
    ipam: Ipam,
    held: BTreeMap<PortName, Held>,
    store: IpamStore,
    /// The state of this boot was found, so no port is missing in it.
    certain: bool,
    /// Grows when an attachment comes or goes.
    revision: u64,
}

impl Attachments {
    /// As the agent before this one left them, and what is wrong with what it left.
    ///
    /// # Errors
    /// When the state directory cannot be used.
    pub fn open(state_dir: &Path, cooldown_ms: u64) -> io::Result<(Self, Option<String>)> {
        let store = IpamStore::open(state_dir)?;
        let mut attachments = Self {
            ipam: Ipam::new(cooldown_ms),
            held: BTreeMap::new(),
            store,
            certain: false,
            revision: 0,
        };
        let problem = match attachments.store.load()? {
            Found::Nothing => None,
            Found::Broken { problem } => Some(problem),
            Found::Saved(saved) => attachments.take(*saved)?,
        };
        Ok((attachments, problem))
    }

    fn take(&mut self, saved: Saved) -> io::Result<Option<String>> {
        if let Err(error) = self.ipam.restore(saved.ipam, now_ms()) {
            return Ok(match self.store.set_aside(&error.to_string())? {
                Found::Broken { problem } => Some(problem),
                _ => None,
            });
        }
        for record in saved.records {
            self.hold(record, Phase::Restored, false);
        }
        self.certain = true;
        Ok(None)
    }

    /// Who the attachments' pods are, for policies.
    pub fn local_pods(&self) -> LocalPods {
        let pods = self.held.values().map(|held| LocalPod {
            pod: held.record.pod_or_container(),
            addresses: held.record.addresses.clone(),
            host_ports: held.record.host_ports.clone(),
        });
        LocalPods {
            revision: self.revision,
            pods: pods.collect(),
        }
    }

    fn hold(&mut self, record: Record, phase: Phase, live: bool) {
        self.revision += 1;
        let held = Held {
            record,
            phase,
            live,
            revision: self.revision,
        };
        self.held.insert(held.record.port.clone(), held);
    }

    /// Whether every address in use is known.
    pub fn is_certain(&self) -> bool {
        self.certain
    }

    /// Gives addresses out of these prefixes from now on.
    pub fn set_prefixes(&mut self, prefixes: &[IpNet]) {
        self.ipam.set_prefixes(prefixes);
    }

    /// Plans an attachment and writes it down; the same request gives the same plan.
    ///
    /// # Errors
    /// Exhausted, Conflict, or Failed when it cannot be written: then nothing is taken.
    pub fn plan(&mut self, request: &Prepare, path_mtu: u32) -> Result<Record, ApiError> {
        let attachment = &request.attachment;
        let port = attachment.port_name();
        if let Some(held) = self.held.get_mut(&port) {
            claim(held, attachment)?;
            return Ok(held.record.clone());
        }
        self.refuse_taken(&request.host_ports)?;
        let addresses = self
            .addresses(&port, &request.delegated)
            .map_err(api_error)?;
        let record = Record {
            mac: MacAddr::of_pod(addresses[0]),
            port: port.clone(),
            attachment: Some(attachment.clone()),
            pod: request.pod.clone(),
            path_mtu: request.mtu.map_or(path_mtu, |mtu| mtu.min(path_mtu)),
            netns: request.netns.clone(),
            host_ports: request.host_ports.clone(),
            addresses,
        };
        self.hold(record.clone(), Phase::Prepared, false);
        if let Err(error) = self.save() {
            self.held.remove(&port);
            self.ipam.release(&port, now_ms());
            return Err(error);
        }
        Ok(record)
    }

    /// A host port leads to one pod.
    fn refuse_taken(&self, wanted: &[HostPort]) -> Result<(), ApiError> {
        for held in self.held.values() {
            let in_the_way = |port: &&HostPort| {
                let mut others = held.record.host_ports.iter();
                others.any(|other| other.is_in_the_way_of(port))
            };
            if let Some(port) = wanted.iter().find(in_the_way) {
                let protocol = match port.protocol {
                    17 => "UDP",
                    132 => "SCTP",
                    _ => "TCP",
                };
                let (number, pod) = (port.host_port, held.record.pod_or_container());
                let message = format!("host port {number}/{protocol} leads to pod {pod} already");
                return Err(ApiError::new(ErrorKind::Conflict, message));
            }
        }
        Ok(())
    }

    fn addresses(
        &mut self,
        port: &PortName,
        delegated: &[IpNet],
    ) -> Result<Vec<IpAddr>, IpamError> {
        let lease = if delegated.is_empty() {
            self.ipam.allocate(port, now_ms())?
        } else {
            let addresses: Vec<IpAddr> = delegated.iter().map(IpNet::addr).collect();
            self.ipam.record(port, &addresses)?
        };
        Ok(lease.addresses)
    }

    /// The attachment's record and how far it is.
    pub fn find(&mut self, attachment: &Attachment) -> Option<&mut Held> {
        let held = self.held.get_mut(&attachment.port_name())?;
        claim(held, attachment).is_ok().then_some(held)
    }

    /// By port name.
    pub fn find_port(&mut self, port: &PortName) -> Option<&mut Held> {
        self.held.get_mut(port)
    }

    /// Gives the addresses of `port` back and forgets it.
    ///
    /// # Errors
    /// Failed when that cannot be written; it is forgotten all the same, and written next time.
    pub fn forget(&mut self, port: &PortName) -> Result<(), ApiError> {
        if self.held.remove(port).is_none() {
            return Ok(());
        }
        self.revision += 1;
        self.ipam.release(port, now_ms());
        self.save()
    }

    /// Takes over a port of the dataplane whose record was lost.
    ///
    /// # Errors
    /// A sentence, when its addresses are somebody else's.
    pub fn adopt(&mut self, port: &PortStatus, path_mtu: u32) -> Result<(), String> {
        let adopted = self.ipam.adopt(&port.name, &port.addresses);
        adopted.map_err(|error| format!("port {} cannot be taken over: {error}", port.name))?;
        let record = Record {
            port: port.name.clone(),
            attachment: None,
            pod: port.pod.clone(),
            mac: port.mac,
            addresses: port.addresses.clone(),
            path_mtu,
            netns: None,
            host_ports: Vec::new(),
        };
        self.hold(record, Phase::Restored, true);
        Ok(())
    }

    /// All are known now, ports that were taken over included.
    ///
    /// # Errors
    /// Failed when it cannot be written.
    pub fn settle(&mut self) -> Result<(), ApiError> {
        self.certain = true;
        self.save()
    }

    /// All of them, by port name.
    pub fn iter(&self) -> impl Iterator<Item = &Held> {
        self.held.values()
    }

    /// All of them, for people.
    pub fn status(&self) -> Vec<AttachmentStatus> {
        let lost = Attachment {
            network: String::new(),
            container_id: String::new(),
            ifname: String::new(),
        };
        let status = |held: &Held| AttachmentStatus {
            attachment: held
                .record
                .attachment
                .clone()
                .unwrap_or_else(|| lost.clone()),
            port: held.record.port.clone(),
            pod: held.record.pod.clone(),
            addresses: held.record.addresses.clone(),
            live: held.live,
        };
        self.held.values().map(status).collect()
    }

    /// Free and used addresses per prefix.
    pub fn pools(&self) -> Vec<PoolStatus> {
        self.ipam.status(now_ms())
    }

    /// Families no address is free of, a sentence each.
    pub fn exhausted(&self) -> Vec<String> {
        let pools = self.pools();
        let family = |ipv6: bool| {
            pools
                .iter()
                .filter(move |p| p.prefix.network().is_ipv6() == ipv6)
        };
        let full = |ipv6: &bool| {
            let mut of_family = family(*ipv6).peekable();
            of_family.peek().is_some() && of_family.all(|pool| pool.free == 0)
        };
        let sentence = |ipv6: bool| {
            let prefixes: Vec<String> = family(ipv6).map(|pool| pool.prefix.to_string()).collect();
            format!("no free address in {}", prefixes.join(", "))
        };
        [false, true]
            .into_iter()
            .filter(full)
            .map(sentence)
            .collect()
    }

    fn save(&self) -> Result<(), ApiError> {
        let saved = Saved {
            records: self.held.values().map(|held| held.record.clone()).collect(),
            ipam: self.ipam.persisted(),
        };
        self.store.save(&saved).map_err(|error| {
            let message =
                format!("the attachments cannot be written to the state directory: {error}");
            ApiError::new(ErrorKind::Failed, message)
        })
    }
}

impl Record {
    /// The pod; a container that came without one counts as a pod of `default` without labels.
    fn pod_or_container(&self) -> PodRef {
        let name = match &self.attachment {
            Some(attachment) => &attachment.container_id,
            None => &self.port.0,
        };
        self.pod.clone().unwrap_or_else(|| PodRef {
            namespace: "default".to_owned(),
            name: name.clone(),
        })
    }

    /// How to attach it.
    pub fn port_spec(&self) -> PortSpec {
        PortSpec {
            name: self.port.clone(),
            kind: PortKind::Pod,
            mac: self.mac,
            addresses: self.addresses.clone(),
            // The veth takes 65,535, but nobody sends a pod more than its TCP's local MTU, and
            // that fits one packet of the kernel's.
            mtu: local_mtu(),
            pod: self.pod.clone(),
            netns: self.netns.clone(),
        }
    }
}

/// A port name is a hash: the same one of another attachment must not pass for this one. A port
/// found without its record belongs to whoever knows its name.
fn claim(held: &mut Held, attachment: &Attachment) -> Result<(), ApiError> {
    match &held.record.attachment {
        Some(other) if other != attachment => {
            let (port, id) = (&held.record.port, &other.container_id);
            let message = format!("port {port} belongs to container {id} already");
            Err(ApiError::new(ErrorKind::Conflict, message))
        }
        Some(_) => Ok(()),
        None => {
            held.record.attachment = Some(attachment.clone());
            Ok(())
        }
    }
}

fn api_error(error: IpamError) -> ApiError {
    let kind = match error {
        IpamError::NoPool => ErrorKind::TryAgain,
        IpamError::Exhausted { .. } => ErrorKind::Exhausted,
        IpamError::InUse { .. } | IpamError::Reserved { .. } | IpamError::Differs { .. } => {
            ErrorKind::Conflict
        }
    };
    ApiError::new(kind, error.to_string())
}
