//! Compares the dataplane's pod ports with the attachments.

use std::collections::HashMap;

use nix::net::if_::if_nametoindex;
use weft_api::PortName;
use weft_api::dataplane::{Done, Op, PortAttached, PortKind, PortList, PortStatus};
use weft_api::envelope::ApiError;

use super::Session;
use crate::attachments::{Held, Phase};
use crate::state::lock;

impl Session<'_> {
    /// Makes ports and attachments agree; false when something must be tried again. Nothing is
    /// attached or detached by others meanwhile.
    ///
    /// # Errors
    /// When the dataplane does not list its ports.
    pub(super) async fn compare_ports(&self) -> Result<bool, ApiError> {
        let _alone = self.agent.ports.write().await;
        let list: PortList = self.connection.call(Op::PortList).await?;
        let pods = list.ports.iter().filter(|port| port.kind == PortKind::Pod);
        let listed: HashMap<&PortName, &PortStatus> = pods.map(|p| (&p.name, p)).collect();
        let mut problems = Vec::new();
        for port in listed.values() {
            problems.extend(self.take_or_detach(port).await);
        }
        let held: Vec<Held> = lock(&self.agent.attachments).iter().cloned().collect();
        for held in held {
            problems.extend(
                self.replay(&held, listed.get(&held.record.port).copied())
                    .await,
            );
        }
        if !*self.agent.recovered.borrow() {
            match lock(&self.agent.attachments).settle() {
                Ok(()) => drop(self.agent.recovered.send_replace(true)),
                Err(error) => problems.push(error.to_string()),
            }
        }
        self.agent.pods_changed();
        let well = problems.is_empty();
        self.agent.set_problems("ports", problems);
        Ok(well)
    }

    /// A port nobody knows: of a container that is gone, unless our records were lost.
    async fn take_or_detach(&self, port: &PortStatus) -> Option<String> {
        if lock(&self.agent.attachments)
            .find_port(&port.name)
            .is_some()
        {
            return None;
        }
        if !*self.agent.recovered.borrow() {
            let path_mtu = self.agent.path_mtu();
            let adopted = lock(&self.agent.attachments).adopt(port, path_mtu);
            tracing::info!(port = %port.name, "took over a port without a record");
            return adopted.err();
        }
        tracing::info!(port = %port.name, "detaching a port of no attachment");
        let name = port.name.clone();
        let detached = self.connection.call::<Done>(Op::PortDetach { name }).await;
        detached
            .err()
            .map(|error| format!("port {} cannot be detached: {error}", port.name))
    }

    /// Attaches again what should be attached. An interface that is gone took its pod's end with
    /// it: nobody uses the addresses any more, whether or not a DEL ever comes.
    async fn replay(&self, held: &Held, listed: Option<&PortStatus>) -> Option<String> {
        let spec = held.record.port_spec();
        let name = &spec.name;
        if held.phase == Phase::Prepared {
            return None;
        }
        if if_nametoindex(name.0.as_str()).is_err() {
            tracing::info!(port = %name, "the interface is gone: releasing its addresses");
            let detached = match listed {
                Some(_) => self.done(Op::PortDetach { name: name.clone() }).await,
                None => Ok(()),
            };
            let forgotten = detached.and_then(|()| lock(&self.agent.attachments).forget(name));
            return forgotten
                .err()
                .map(|e| format!("port {name} cannot be released: {e}"));
        }
        let same = |port: &PortStatus| {
            (port.mac, port.mtu) == (spec.mac, spec.mtu) && port.addresses == spec.addresses
        };
        let problem = if listed.is_some_and(same) {
            None
        } else {
            let attached = self
                .connection
                .call::<PortAttached>(Op::PortAttach(spec.clone()))
                .await;
            attached
                .err()
                .map(|e| format!("port {name} cannot be attached: {e}"))
        };
        if let Some(held) = lock(&self.agent.attachments).find_port(name) {
            held.live = problem.is_none();
        }
        problem
    }
}
