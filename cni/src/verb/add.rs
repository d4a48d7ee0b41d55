//! ADD: attaches a container.

use std::net::IpAddr;

use ipnet::IpNet;
use weft_api::MacAddr;
use weft_api::agent::{Attachment, Plan, Prepare};

use crate::agent::Agent;
use crate::env::Command;
use crate::error::Error;
use crate::ipam::Delegate;
use crate::netlink::Netlink;
use crate::netns::Netns;
use crate::pod_end::gateway;
use crate::result::{AddResult, Dns, Interface, Ip, Route};
use crate::types::PodConf;
use crate::verb::Call;
use crate::{host_end, pod_end};

/// Attaches the container, or fails and leaves nothing behind.
pub(crate) fn run(call: &Call<'_>) -> Result<AddResult, Error> {
    let pod_conf = call.conf.pod()?;
    let netns = netns(call)?;
    let delegate = Delegate::find(call.conf, call.env)?;
    refuse_unheard_address(call, delegate.is_some())?;
    let mut agent = Agent::connect(&call.run_dir())?;
    let mut add = Add {
        call,
        netns: &netns,
        agent: &mut agent,
        netlink: Netlink::open()?,
        undo: Undo::default(),
    };
    let attached = add.attach(&pod_conf, delegate.as_ref());
    if attached.is_err() {
        add.roll_back(delegate.as_ref());
    }
    attached
}

/// The namespace of CNI_NETNS.
pub(crate) fn netns(call: &Call<'_>) -> Result<Netns, Error> {
    let path = call.env.netns.as_deref();
    Netns::open(path.ok_or_else(|| Error::Environment("CNI_NETNS is not set".into()))?)
}

fn refuse_unheard_address(call: &Call<'_>, delegated: bool) -> Result<(), Error> {
    match &call.env.args.ip {
        Some(ip) if !delegated => Err(Error::UnsupportedField {
            key: "CNI_ARGS IP".into(),
            value: ip.clone(),
            reason: "addresses are given by the agent; delegate ipam to a plugin that takes them",
        }),
        _ => Ok(()),
    }
}

struct Add<'a> {
    call: &'a Call<'a>,
    netns: &'a Netns,
    agent: &'a mut Agent,
    netlink: Netlink,
    undo: Undo,
}

/// Steps to be undone when a later one fails.
#[derive(Default)]
struct Undo {
    delegated: bool,
    created: bool,
}

impl Add<'_> {
    fn attach(
        &mut self,
        pod_conf: &PodConf,
        delegate: Option<&Delegate<'_>>,
    ) -> Result<AddResult, Error> {
        let attachment = self.call.attachment();
        let ifname = self.call.env.ifname.as_str();
        let given = match delegate {
            Some(delegate) => {
                // Not before: after a refusal, DEL would free what a live attachment holds.
                let given = delegate.add()?;
                self.undo.delegated = true;
                given
            }
            None => AddResult::default(),
        };
        let plan = self.agent.prepare(Prepare {
            attachment: attachment.clone(),
            pod: self.call.env.args.pod.clone(),
            delegated: given.ips.iter().map(|ip| ip.address).collect(),
            mtu: pod_conf.mtu,
            netns: self.call.env.netns.clone(),
            host_ports: pod_conf.host_ports.clone(),
        })?;
        check_plan(&plan, &attachment)?;
        let host_mac = host_end::create(&mut self.netlink, self.netns, &plan, ifname)?;
        // Not before: until here the agent forgets the plan when the connection closes, and an
        // attachment that was live before this call is left alone.
        self.undo.created = true;
        host_end::bring_up(&mut self.netlink, &plan.port)?;
        self.netns.inside(|| pod_end::configure(&plan, ifname))?;
        self.agent.attach(attachment)?;
        let dns = if pod_conf.dns.is_empty() {
            &given.dns
        } else {
            &pod_conf.dns
        };
        let mut result = pod_conf.prev_result.clone().unwrap_or_default();
        self.extend(&mut result, &plan, host_mac, dns);
        Ok(result)
    }

    /// Adds what this attachment made to the results of the plugins before.
    fn extend(&self, result: &mut AddResult, plan: &Plan, host_mac: MacAddr, dns: &Dns) {
        let host_end = Interface {
            name: plan.port.0.clone(),
            mac: Some(host_mac.to_string()),
            mtu: Some(plan.veth_mtu),
            ..Interface::default()
        };
        let netns = self.call.env.netns.as_deref();
        let pod_end = Interface {
            name: self.call.env.ifname.clone(),
            mac: Some(plan.mac.to_string()),
            mtu: Some(plan.veth_mtu),
            sandbox: netns.map(|path| path.display().to_string()),
            ..Interface::default()
        };
        result.interfaces.extend([host_end, pod_end]);
        let index = u32::try_from(result.interfaces.len() - 1).ok();
        for address in &plan.addresses {
            result.ips.push(Ip {
                address: IpNet::from(*address),
                gateway: Some(gateway(address.is_ipv4()).to_string()),
                interface: index,
            });
        }
        for (v4, dst) in [(true, "0.0.0.0/0"), (false, "::/0")] {
            if pod_end::has_family(&plan.addresses, v4) {
                result.routes.push(Route {
                    dst: dst.to_owned(),
                    gw: Some(gateway(v4).to_string()),
                    mtu: Some(plan.path_mtu),
                    ..Route::default()
                });
            }
        }
        if !dns.is_empty() {
            result.dns = dns.clone();
        }
    }

    /// Undoes what was begun, in reverse. What fails here is said on stderr only: the caller needs
    /// the error that started it, and the runtime calls DEL after a failed ADD.
    fn roll_back(&mut self, delegate: Option<&Delegate<'_>>) {
        let attachment = self.call.attachment();
        let mut failures = Vec::new();
        if self.undo.created {
            let deleted = host_end::delete(&mut self.netlink, &attachment.port_name());
            failures.extend(deleted.err());
            failures.extend(self.netns.inside(pod_end::forget).err());
            failures.extend(self.agent.release(attachment).err());
        }
        if let Some(delegate) = delegate.filter(|_| self.undo.delegated) {
            failures.extend(delegate.call(Command::Del).err());
        }
        for failure in failures {
            eprintln!("weft-cni: while undoing ADD: {failure}");
        }
    }
}

/// An agent of another build must not make this one leave a veth DEL cannot find.
fn check_plan(plan: &Plan, attachment: &Attachment) -> Result<(), Error> {
    let port = attachment.port_name();
    if plan.port != port {
        return Err(Error::Refused(format!(
            "the agent names the host end {} where {port} was expected",
            plan.port
        )));
    }
    let unusable = |a: &IpAddr| a.is_unspecified() || a.is_multicast() || a.is_loopback();
    if plan.addresses.is_empty() || plan.addresses.iter().any(unusable) {
        return Err(Error::Refused(format!(
            "the agent planned {port} with the addresses {:?}",
            plan.addresses
        )));
    }
    Ok(())
}
