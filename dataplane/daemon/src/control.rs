//! What the control socket changes: ports, tables, steering. One lock around it all; workers never
//! take it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use weft_api::PortName;
use weft_api::dataplane::{Hello, PortAttached, PortKind, PortSpec, PortStatus};
use weft_api::envelope::{ApiError, ErrorKind};
use weft_api::object::{Key, Object};
use weft_engine::PortId;
use weft_engine::trace::Bench;
use weft_keeper::client::{ClientError, KeeperClient, Port};
use weft_keeper::protocol::BindRequest;
use weft_snapshot::{Publisher, SharedCounters};
use weft_xsk::{FramePool, PacketSocket, Umem};

use crate::compile::{self, Compiler};
use crate::config::Tuning;
use crate::kept_tables::KeptTables;
use crate::objects::{Effect, ObjectStore};
use crate::ports::{AttachedPort, Ports, QUEUES_MAX};
use crate::queue::{Mapped, QUEUE_COUNTERS, Queue};
use crate::redirect_targets::RedirectTargets;
use crate::shortcut::Shortcuts;
use crate::snapshot::{Home, Snapshot};
use crate::steering::Steered;
use crate::workers::{Unresponsive, Workers};

/// The control side of the dataplane.
pub struct Control {
    /// The broker; the session ends with this process.
    pub keeper: KeeperClient,
    /// The frames.
    pub umem: Arc<Umem>,
    /// The workers.
    pub workers: Workers,
    /// Attached ports.
    pub ports: Ports,
    /// Table objects.
    pub objects: ObjectStore,
    /// Makes the tables.
    pub compiler: Compiler,
    /// Where snapshots go.
    pub publisher: Publisher<Snapshot>,
    /// Where the objects are kept for the next start.
    pub kept: KeptTables,
    /// Tuning values.
    pub tuning: Tuning,
    /// Start of this process.
    pub started: Instant,
    /// Zero of the workers' clock.
    pub clock: Instant,
    /// Where packets are traced; made by the first that asks.
    pub trace_bench: Option<Bench>,
    /// What the keeper steers now.
    pub steered: Steered,
    /// Shortcuts between pods, where the keeper knows of them.
    pub shortcuts: Option<Shortcuts>,
    /// Who takes what a shortcut out of a tunnel brings; without it, pods have no shortcuts.
    pub targets: Option<RedirectTargets>,
    /// Captures under way.
    pub captures: u32,
    /// Whether the kernel maps the rings of a socket that is bound (since Linux 6.4).
    pub remap: bool,
}

fn keeper_failed(error: &ClientError) -> ApiError {
    match error {
        ClientError::Refused(refused) => refused.clone(),
        other => ApiError::new(ErrorKind::Failed, format!("weft-keeper: {other}")),
    }
}

impl From<Unresponsive> for ApiError {
    fn from(error: Unresponsive) -> Self {
        Self::new(ErrorKind::Failed, error.to_string())
    }
}

impl Control {
    /// Who is there.
    pub fn hello(&self) -> Hello {
        Hello {
            version: weft_api::PROTOCOL_VERSION,
            generation: self.objects.generation(),
            committed: self.objects.committed(),
        }
    }

    /// The ports and their counters.
    pub fn port_statuses(&self) -> Vec<PortStatus> {
        let status = |port: &AttachedPort| {
            let mut status = port.status();
            let id = PortId(port.record.id);
            status.counters.drops += self.workers.drops_of(id);
            if let Some(shortcuts) = &self.shortcuts {
                shortcuts.add_to(id, &mut status.counters);
            }
            status
        };
        self.ports.iter().map(status).collect()
    }

    /// Adds or replaces objects.
    ///
    /// # Errors
    /// See [`ObjectStore::upsert`]; BadRequest for an object that contradicts itself.
    pub fn upsert(&mut self, generation: u64, objects: Vec<Object>) -> Result<(), ApiError> {
        for object in &objects {
            compile::check(object)?;
        }
        let effect = self.objects.upsert(generation, objects)?;
        self.apply(effect)
    }

    /// Removes objects.
    ///
    /// # Errors
    /// See [`ObjectStore::delete`].
    pub fn delete(&mut self, generation: u64, keys: &[Key]) -> Result<(), ApiError> {
        let effect = self.objects.delete(generation, keys)?;
        self.apply(effect)
    }

    /// Ends a full sync.
    ///
    /// # Errors
    /// See [`ObjectStore::commit`].
    pub fn commit(&mut self, generation: u64) -> Result<(), ApiError> {
        let effect = self.objects.commit(generation)?;
        self.apply(effect)
    }

    fn apply(&mut self, effect: Effect) -> Result<(), ApiError> {
        if effect == Effect::None {
            return Ok(());
        }
        self.publish();
        // Also where the keeper cannot steer: the journal must not miss a change.
        if let Err(error) = self.kept.keep(&mut self.objects) {
            tracing::warn!(path = %self.kept.path().display(), %error, "cannot keep the tables for the next start");
        }
        tracing::debug!(generation = self.objects.generation(), "tables in force");
        self.steer()
    }

    /// Builds the tables from what is known now and hands them to the workers.
    pub fn publish(&mut self) {
        let tables = self.compiler.tables(self.objects.objects(), &self.ports);
        let renamed = self.compiler.take_renamed_rules();
        if !renamed.is_empty()
            && let Err(error) = self.workers.forget_rules(&renamed)
        {
            tracing::warn!(%error, "counters of policy rules begin with those of earlier rules");
        }
        let renumbered = self.compiler.take_renumbered_backends();
        if !renumbered.is_empty()
            && let Err(error) = self.workers.forget_backends(&renumbered)
        {
            tracing::warn!(%error, "counters of backends begin with those of earlier ones");
        }
        if let Some(shortcuts) = &mut self.shortcuts {
            // Before any worker sees the tables: nothing goes by what they may no longer say.
            shortcuts.hold(tables.shortcut_epoch());
        }
        let snapshot = Snapshot::new(tables, &self.ports.homes(), self.workers.len() as u16);
        self.publisher.publish(snapshot);
        self.workers.ring_all();
    }

    /// Gives shortcuts from now on, or takes all of them back; never gives any where the configuration says so.
    pub fn allow_shortcuts(&mut self, allowed: bool) {
        if self.tuning.shortcuts && self.shortcuts.is_some() {
            self.compiler.allow_shortcuts(allowed);
            self.publish();
        }
    }

    /// A capture begins: it is to see every packet.
    pub fn capture_begins(&mut self) {
        self.captures += 1;
        if self.captures == 1 {
            self.allow_shortcuts(false);
        }
    }

    /// A capture ended.
    pub fn capture_ends(&mut self) {
        self.captures = self.captures.saturating_sub(1);
        if self.captures == 0 {
            self.allow_shortcuts(true);
        }
    }

    /// Whether any connection has a shortcut now.
    pub fn has_shortcuts(&self) -> bool {
        self.shortcuts.as_ref().is_some_and(Shortcuts::exist)
    }

    /// Readable when a connection asks for a shortcut.
    ///
    /// # Errors
    /// What the kernel says to dup.
    pub fn shortcut_bell(&self) -> io::Result<Option<OwnedFd>> {
        let bell = self.shortcuts.as_ref().map(Shortcuts::bell);
        bell.map(|it| it.try_clone_to_owned()).transpose()
    }

    /// Tells the keeper what the uplinks take.
    ///
    /// # Errors
    /// What the keeper says.
    pub fn steer(&mut self) -> Result<(), ApiError> {
        let node = self.objects.objects().find_map(|object| match object {
            Object::LocalNode(node) => Some(node),
            _ => None,
        });
        let services = self.compiler.services();
        if let Some(wanted) = self.steered.wanted(node, services) {
            self.keeper
                .steer(&wanted)
                .map_err(|error| keeper_failed(&error))?;
            self.steered.told(node, services);
        }
        Ok(())
    }

    /// Attaches a port; the same port with the same properties is success.
    ///
    /// # Errors
    /// NotFound without the interface, Conflict when something else is attached to it, Exhausted
    /// without a free port id, Failed with what the kernel said.
    pub fn attach(&mut self, spec: PortSpec) -> Result<PortAttached, ApiError> {
        if spec.kind == PortKind::Uplink {
            let message = "uplinks are named by --underlay when weft-dataplane starts";
            return Err(ApiError::new(ErrorKind::BadRequest, message));
        }
        let ifindex = nix::net::if_::if_nametoindex(spec.name.0.as_str()).map_err(|_| {
            ApiError::new(
                ErrorKind::NotFound,
                format!("no interface {} in the node's namespace", spec.name),
            )
        })?;
        if let Some(present) = self.ports.named(&spec.name) {
            let id = present.record.id;
            if present.record.ifindex == ifindex {
                return self.reconfigure(id, spec);
            }
            self.detach(&spec.name)?;
        }
        self.bind(spec, false)
    }

    fn reconfigure(&mut self, id: u16, spec: PortSpec) -> Result<PortAttached, ApiError> {
        let changed = self.ports.get_mut(id).is_some_and(|port| port.spec != spec);
        if changed {
            self.keeper
                .configure(id, &encode(&spec)?)
                .map_err(|error| keeper_failed(&error))?;
            if let Some(port) = self.ports.get_mut(id) {
                port.spec = spec;
            }
            self.publish();
        }
        let mode = self
            .ports
            .get_mut(id)
            .map(|port| port.status().mode)
            .unwrap_or_default();
        Ok(PortAttached { id, mode })
    }

    /// Binds a port through the keeper and starts serving it.
    ///
    /// # Errors
    /// What the keeper refused; nothing stays then.
    pub fn bind(&mut self, spec: PortSpec, zero_copy: bool) -> Result<PortAttached, ApiError> {
        let mut request = BindRequest::new(&spec.name.0, spec.kind);
        request.config = encode(&spec)?;
        request.zero_copy = zero_copy;
        request.hold = !self.remap;
        request.netns.clone_from(&spec.netns);
        if spec.kind != PortKind::Uplink {
            request.queues = Some(1);
        }
        let port = self
            .keeper
            .bind(&request)
            .map_err(|error| keeper_failed(&error))?;
        let id = port.record.id;
        let mapped = map(port, spec, self.workers.len()).and_then(|mapped| self.activate(mapped));
        match mapped {
            Ok((port, queues)) => {
                self.ports.insert(port);
                self.ask_target(id);
                self.publish();
                self.serve(id, queues)
            }
            Err(error) => {
                let _ = self.keeper.unbind(id);
                Err(error)
            }
        }
    }

    /// Has the keeper bind what could only be mapped before.
    fn activate(
        &mut self,
        (mut port, queues): (AttachedPort, Vec<Mapped>),
    ) -> Result<(AttachedPort, Vec<Mapped>), ApiError> {
        if !self.remap {
            let activated = self.keeper.activate(port.record.id);
            port.record = activated.map_err(|error| keeper_failed(&error))?;
        }
        Ok((port, queues))
    }

    /// Gives the queues of port `id` to the workers. The tables published before know the port, so
    /// that its first packet finds it.
    ///
    /// # Errors
    /// Failed when a worker does not answer.
    pub fn serve(&mut self, id: u16, queues: Vec<Mapped>) -> Result<PortAttached, ApiError> {
        let lend = self.tuning.lend_idle;
        let Some(port) = self.ports.get_mut(id) else {
            return Err(ApiError::new(
                ErrorKind::Failed,
                format!("port {id} vanished while it was attached"),
            ));
        };
        let mode = port.status().mode;
        let kind = compile::kind(port.spec.kind);
        for (mapped, home) in queues.into_iter().zip(&port.homes) {
            let queue = Queue::new(home.port, kind, mapped, lend);
            self.workers
                .attach(home.worker, home.slot, Box::new(queue))?;
        }
        Ok(PortAttached { id, mode })
    }

    /// Detaches a port and takes its frames back; an unknown port is success.
    ///
    /// # Errors
    /// Failed when the keeper or a worker does not answer.
    pub fn detach(&mut self, name: &PortName) -> Result<(), ApiError> {
        let Some(id) = self.ports.named(name).map(|port| port.record.id) else {
            return Ok(());
        };
        let Some(port) = self.ports.remove(id) else {
            return Ok(());
        };
        self.publish();
        for home in &port.homes {
            self.workers.detach(home.worker, home.slot)?;
        }
        let slots: Vec<u16> = port.homes.iter().map(|home| home.slot).collect();
        self.keeper
            .unbind(id)
            .map_err(|error| keeper_failed(&error))?;
        let mut frames = FramePool::empty(&self.umem);
        for slot in slots {
            self.umem.reclaim(slot, &mut frames);
        }
        self.workers.forget(PortId(id), frames, &self.umem)?;
        Ok(())
    }

    /// Applies what ICMP reported, collects what the publisher retired, and sees that every worker runs.
    ///
    /// # Errors
    /// A worker that ended: the process must be restarted, which no connection notices.
    pub fn tend(&mut self) -> anyhow::Result<()> {
        let mut changed = self.compiler.unlearn();
        for report in self.workers.take_reports() {
            tracing::info!(vtep = %report.vtep, mtu = report.mtu, "the underlay lowered the path MTU");
            changed |= self.compiler.learn(report);
        }
        if changed {
            self.publish();
        }
        self.publisher.collect();
        if let Some(shortcuts) = &mut self.shortcuts {
            shortcuts.tend(&self.publisher.current().tables, &self.ports);
        }
        match self.workers.ended() {
            Some((index, Ok(()))) => anyhow::bail!("worker {index} ended"),
            Some((index, Err(error))) => {
                Err(error).with_context(|| format!("worker {index} failed"))
            }
            None => Ok(()),
        }
    }

    /// The interface `ifindex` is gone: detaches its port, unless it is an uplink that may come back
    /// only with a restart, which is said.
    pub fn link_gone(&mut self, ifindex: u32) {
        let Some(port) = self.ports.by_ifindex(ifindex) else {
            return;
        };
        let (name, kind) = (port.spec.name.clone(), port.spec.kind);
        tracing::warn!(port = %name, ?kind, "its interface is gone; detaching");
        if let Err(error) = self.detach(&name) {
            tracing::error!(port = %name, %error, "cannot detach");
        }
    }

    /// Takes all shortcuts from those ports with these interfaces that take nothing redirected to them. They get none
    /// until they are attached anew, so that nobody can disturb the others by changing it back and forth.
    pub fn ask_targets(&mut self, ifindices: &[u32]) {
        let ids: Vec<u16> = ifindices
            .iter()
            .filter_map(|it| self.ports.by_ifindex(*it))
            .map(|port| port.record.id)
            .collect();
        self.ask_ports(&ids);
    }

    /// The same for all ports.
    pub fn ask_all_targets(&mut self) {
        let ids: Vec<u16> = self.ports.iter().map(|port| port.record.id).collect();
        self.ask_ports(&ids);
    }

    fn ask_ports(&mut self, ids: &[u16]) {
        let refusing = ids.iter().filter(|id| self.ask_target(**id)).count();
        if refusing > 0 {
            self.publish();
        }
    }

    /// Takes the shortcuts from a pod's port that does not take what is redirected to it. True when it had them.
    fn ask_target(&mut self, id: u16) -> bool {
        let Some(port) = self.ports.get_mut(id) else {
            return false;
        };
        if port.spec.kind != PortKind::Pod || !port.record.shortcuts {
            return false;
        }
        let takes = self
            .targets
            .as_mut()
            .map(|it| it.takes(port.record.ifindex));
        if let Some(Err(error)) = &takes {
            tracing::warn!(port = %port.spec.name, %error, "cannot ask whether it takes redirected packets");
        }
        !matches!(takes, Some(Ok(true))) && port.refuse_shortcuts()
    }

    /// Detaches every port whose interface no longer exists under its index.
    pub fn sweep_gone_links(&mut self) {
        let gone: Vec<u32> = self
            .ports
            .iter()
            .filter(|port| {
                nix::net::if_::if_nametoindex(port.record.ifname.as_str())
                    != Ok(port.record.ifindex)
            })
            .map(|port| port.record.ifindex)
            .collect();
        for ifindex in gone {
            self.link_gone(ifindex);
        }
    }
}

/// Maps the sockets of a bound port and places each queue on a worker.
///
/// # Errors
/// Failed when a ring cannot be mapped.
pub fn map(
    port: Port,
    spec: PortSpec,
    workers: usize,
) -> Result<(AttachedPort, Vec<Mapped>), ApiError> {
    let Port {
        record,
        sockets,
        packet_socket,
    } = port;
    let packet_socket = packet_socket.map(PacketSocket::new);
    let failed = |error: &dyn std::fmt::Display| {
        ApiError::new(
            ErrorKind::Failed,
            format!("mapping the rings of {}: {error}", spec.name),
        )
    };
    if sockets.len() > QUEUES_MAX || sockets.len() != record.queues.len() {
        return Err(failed(&format!(
            "{} queues where at most {QUEUES_MAX} are supported",
            sockets.len()
        )));
    }
    let (mut mapped, mut homes, mut counters) = (Vec::new(), Vec::new(), Vec::new());
    for (index, (fd, queue)) in sockets.into_iter().zip(&record.queues).enumerate() {
        let socket = queue.map(fd).map_err(|error| failed(&error))?;
        let worker = (usize::from(record.id) + index) % workers.max(1);
        homes.push(Home {
            port: PortId(record.id),
            slot: queue.slot,
            worker: worker as u16,
        });
        let block = Arc::new(SharedCounters::new(QUEUE_COUNTERS));
        counters.push(Arc::clone(&block));
        let packet_socket = packet_socket.as_ref().map(PacketSocket::try_clone);
        mapped.push(Mapped {
            socket,
            packet_socket: packet_socket.transpose().map_err(|error| failed(&error))?,
            counters: block,
        });
    }
    Ok((
        AttachedPort {
            record,
            spec,
            homes,
            counters,
        },
        mapped,
    ))
}

fn encode(spec: &PortSpec) -> Result<serde_json::Value, ApiError> {
    serde_json::to_value(spec)
        .map_err(|error| ApiError::new(ErrorKind::BadRequest, error.to_string()))
}
