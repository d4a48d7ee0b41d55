//! What the CNI plugin asks for: attachments come and go.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::watch;
use weft_api::agent::{Attachment, Checked, Collected, Plan, Prepare};
use weft_api::dataplane::{Done, Op, PortAttached, PortList, PortSpec};
use weft_api::envelope::{ApiError, ErrorKind};
use weft_api::{PortName, VETH_MTU};

use crate::attachments::Phase;
use crate::host::mtu::local_mtu;
use crate::state::{Agent, lock};

/// How long an ADD waits for its pod to appear, or for the agent to be ready: the runtime may be
/// ahead of the source. Then it is told to try again.
const WAIT: Duration = Duration::from_secs(5);

/// How long an attachment waits for its policies: some milliseconds, and a few seconds where hundreds
/// of pods are attached at once on a busy machine.
const POLICY_WAIT: Duration = Duration::from_secs(15);

impl Agent {
    /// Allocates addresses and plans an attachment; the same request gives the same plan.
    ///
    /// # Errors
    /// TryAgain for a pod nobody knows and while the agent is not ready, Exhausted without a free
    /// address, Conflict for a delegated address in use.
    pub async fn prepare(&self, request: &Prepare) -> Result<Plan, ApiError> {
        if let Some(pod) = &request.pod
            && self.wait_for_pod(pod, WAIT).await.is_none()
        {
            let message = format!("pod {pod} is not known yet");
            return Err(ApiError::new(ErrorKind::TryAgain, message));
        }
        self.wait_until_usable().await?;
        let record = lock(&self.attachments).plan(request, self.path_mtu())?;
        self.pods_changed();
        Ok(Plan {
            port: record.port,
            mac: record.mac,
            addresses: record.addresses,
            path_mtu: record.path_mtu,
            local_mtu: local_mtu(),
            veth_mtu: VETH_MTU,
        })
    }

    /// Without the node's prefixes, the addresses in use and the dataplane's tables an ADD can
    /// only fail, or give a pod that reaches nothing.
    async fn wait_until_usable(&self) -> Result<(), ApiError> {
        let mut desired = self.watch_desired();
        let mut recovered = self.recovered.subscribe();
        let mut progress = self.watch_progress();
        let usable = async {
            wait_for(&mut desired, |desired| desired.local.is_some()).await;
            wait_for(&mut recovered, |recovered| *recovered).await;
            wait_for(&mut progress, |progress| progress.generation.is_some()).await;
        };
        let waited = tokio::time::timeout(WAIT, usable).await;
        waited.map_err(|_| {
            let message = format!(
                "the agent is not ready: {}",
                self.ready().problems.join("; ")
            );
            ApiError::new(ErrorKind::TryAgain, message)
        })
    }

    /// Makes a prepared attachment's port live.
    ///
    /// # Errors
    /// NotFound when it was not prepared, TryAgain while its policies are not in force, else the
    /// dataplane's.
    pub async fn attach(&self, attachment: &Attachment) -> Result<(), ApiError> {
        // Not while holding the ports: who pushes the policies compares ports too.
        let (revision, _) = self.find(attachment)?;
        self.wait_for_policy(revision).await?;
        let _sharing = self.ports.read().await;
        let (_, spec) = self.find(attachment)?;
        let name = spec.name.clone();
        let _: PortAttached = self.dataplane().call(Op::PortAttach(spec)).await?;
        if let Some(held) = lock(&self.attachments).find(attachment) {
            held.phase = Phase::Attached;
            held.live = true;
            return Ok(());
        }
        // A DEL overtook us: the port must not outlive its attachment.
        let _: Done = self.dataplane().call(Op::PortDetach { name }).await?;
        let message = format!(
            "container {} was deleted meanwhile",
            attachment.container_id
        );
        Err(ApiError::new(ErrorKind::NotFound, message))
    }

    /// The version of the local pods that has it, and how to attach it.
    fn find(&self, attachment: &Attachment) -> Result<(u64, PortSpec), ApiError> {
        let mut attachments = lock(&self.attachments);
        let found = attachments.find(attachment);
        let found = found.map(|held| (held.revision, held.record.port_spec()));
        found.ok_or_else(|| {
            let message = format!("container {} was not prepared", attachment.container_id);
            ApiError::new(ErrorKind::NotFound, message)
        })
    }

    /// Waits until the dataplane has the policies of the pods of a version: a port's first packet
    /// must find them.
    async fn wait_for_policy(&self, revision: u64) -> Result<(), ApiError> {
        if self.dataplane().connection().is_none() {
            return Ok(()); // attaching says so at once
        }
        let mut progress = self.watch_progress();
        let pushed = wait_for(&mut progress, |progress| {
            progress.generation.is_some() && progress.pods_revision >= revision
        });
        tokio::time::timeout(POLICY_WAIT, pushed)
            .await
            .map_err(|_| {
                let message = "the dataplane did not take the pod's policies in time";
                ApiError::new(ErrorKind::TryAgain, message)
            })
    }

    /// The plugin went away between prepare and attach: releases what never became live.
    pub async fn abandon(&self, attachment: &Attachment) {
        let phase = lock(&self.attachments)
            .find(attachment)
            .map(|held| held.phase);
        if phase == Some(Phase::Prepared)
            && let Err(error) = self.release(attachment).await
        {
            tracing::warn!(container = attachment.container_id, %error, "cannot release an abandoned attachment");
        }
    }

    /// Detaches and releases; an unknown attachment is success. Without a dataplane the port is
    /// left to the comparison that follows the next connection.
    ///
    /// # Errors
    /// The dataplane's, then nothing is released; or when it cannot be written.
    pub async fn release(&self, attachment: &Attachment) -> Result<(), ApiError> {
        let _sharing = self.ports.read().await;
        let found = lock(&self.attachments)
            .find(attachment)
            .map(|held| held.record.port.clone());
        match found {
            Some(port) => self.release_port(&port).await,
            None => Ok(()),
        }
    }

    async fn release_port(&self, port: &PortName) -> Result<(), ApiError> {
        if let Some(dataplane) = self.dataplane().connection() {
            let name = port.clone();
            match dataplane.call::<Done>(Op::PortDetach { name }).await {
                Ok(_) => {}
                // The connection broke: whoever is there next compares its ports with ours.
                Err(error) if error.kind == ErrorKind::TryAgain => {}
                Err(error) => return Err(error),
            }
        }
        let forgotten = lock(&self.attachments).forget(port);
        self.pods_changed();
        forgotten
    }

    /// Compares an attachment with what agent and dataplane know.
    pub async fn check(&self, attachment: &Attachment) -> Checked {
        let record = lock(&self.attachments)
            .find(attachment)
            .map(|held| held.record.clone());
        let Some(record) = record else {
            let problems = vec![format!(
                "container {} is not attached",
                attachment.container_id
            )];
            return Checked {
                problems,
                ..Checked::default()
            };
        };
        let listed: Result<PortList, _> = self.dataplane().call(Op::PortList).await;
        let problem = match listed {
            Err(error) => Some(error.to_string()),
            Ok(list) => match list.ports.iter().find(|port| port.name == record.port) {
                None => Some(format!("the dataplane has no port {}", record.port)),
                Some(port) if port.addresses != record.addresses || port.mac != record.mac => Some(
                    format!("the dataplane's port {} has other addresses", record.port),
                ),
                Some(_) => None,
            },
        };
        Checked {
            addresses: record.addresses,
            mac: Some(record.mac),
            problems: problem.into_iter().collect(),
        }
    }

    /// Releases every attachment of `network` that is not among `valid`; goes on after errors.
    pub async fn collect(&self, network: &str, valid: &[Attachment]) -> Collected {
        let valid: HashSet<&Attachment> = valid.iter().collect();
        let stale: Vec<Attachment> = {
            let mut attachments = lock(&self.attachments);
            for attachment in &valid {
                // Gives a port found without its record back to its container.
                attachments.find(attachment);
            }
            // What is prepared has a plugin at work that knows better.
            let known = attachments
                .iter()
                .filter(|held| held.phase != Phase::Prepared);
            let known = known.filter_map(|held| held.record.attachment.clone());
            known
                .filter(|attachment| attachment.network == network && !valid.contains(attachment))
                .collect()
        };
        let mut collected = Collected::default();
        for attachment in stale {
            match self.release(&attachment).await {
                Ok(()) => collected.released.push(attachment),
                Err(error) => {
                    let id = &attachment.container_id;
                    collected.problems.push(format!("container {id}: {error}"));
                }
            }
        }
        collected
    }
}

async fn wait_for<T>(receiver: &mut watch::Receiver<T>, ready: impl FnMut(&T) -> bool) {
    // The senders live as long as the agent.
    let _ = receiver.wait_for(ready).await;
}
