//! Who has a frontend that several services claim.
//!
//! The service that is older has it, and of two that do not say or are of one age the first by
//! namespace and name: an order every node finds the same.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use weft_api::service::{Frontend, FrontendKind};

use crate::manifest::ObjectKey;

/// What no two services may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Claim {
    address: Option<IpAddr>,
    ipv6: bool,
    protocol: u8,
    port: u16,
}

/// A service; the least of several that claim one thing has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claimant {
    /// None sorts first, so this is asked before the time.
    has_no_age: bool,
    created: Option<Time>,
    pub key: ObjectKey,
}

/// Everything claimed, and by whom.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims(HashMap<Claim, BTreeSet<Arc<Claimant>>>);

impl Claim {
    /// What a frontend claims.
    pub fn of(frontend: &Frontend) -> Self {
        Self {
            address: frontend.address,
            ipv6: frontend.ipv6,
            protocol: frontend.protocol,
            port: frontend.port,
        }
    }
}

impl Claimant {
    pub fn new(key: ObjectKey, created: Option<Time>) -> Self {
        Self {
            has_no_age: created.is_none(),
            created,
            key,
        }
    }
}

impl Claims {
    /// Puts in a claim. Others with the same one are added to `touched`.
    pub fn add(
        &mut self,
        claim: Claim,
        claimant: &Arc<Claimant>,
        touched: &mut BTreeSet<ObjectKey>,
    ) {
        let claimants = self.0.entry(claim).or_default();
        touched.extend(claimants.iter().map(|claimant| claimant.key.clone()));
        claimants.insert(Arc::clone(claimant));
    }

    /// Takes a claim back. Others with the same one are added to `touched`.
    pub fn remove(&mut self, claim: Claim, claimant: &Claimant, touched: &mut BTreeSet<ObjectKey>) {
        let Some(claimants) = self.0.get_mut(&claim) else {
            return;
        };
        claimants.retain(|other| **other != *claimant);
        touched.extend(claimants.iter().map(|claimant| claimant.key.clone()));
        if claimants.is_empty() {
            self.0.remove(&claim);
        }
    }

    /// Who has it instead of `key`.
    pub fn holder(&self, claim: &Claim, key: &ObjectKey) -> Option<&ObjectKey> {
        let holder = &self.0.get(claim)?.first()?.key;
        (holder != key).then_some(holder)
    }
}

/// What a service is told that does not get a frontend.
pub(super) fn problem(key: &ObjectKey, frontend: &Frontend, holder: &ObjectKey) -> String {
    let kind = match frontend.kind {
        FrontendKind::ClusterIp => "cluster IP",
        FrontendKind::NodePort => "node port",
        FrontendKind::LoadBalancer => "load balancer address",
        FrontendKind::ExternalIp => "external IP",
        FrontendKind::HostPort => "host port",
    };
    let protocol = match frontend.protocol {
        17 => "UDP",
        132 => "SCTP",
        _ => "TCP",
    };
    let port = frontend.port;
    let place = match frontend.address {
        Some(address) => format!("{address} port {port}/{protocol}"),
        None => format!("{port}/{protocol}"),
    };
    format!("{key}: {kind} {place} is also that of {holder}, which keeps it")
}
