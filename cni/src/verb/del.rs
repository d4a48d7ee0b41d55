//! DEL: detaches a container, however much of it is still there.

use crate::agent::Agent;
use crate::env::Command;
use crate::error::Error;
use crate::ipam::Delegate;
use crate::netlink::Netlink;
use crate::netns::Netns;
use crate::verb::Call;
use crate::{host_end, pod_end};

/// Detaches; goes on after errors and returns them all. Whatever is gone already is success: a
/// runtime may call twice, without a namespace, without a previous result, and without an agent.
pub(crate) fn run(call: &Call<'_>) -> Result<(), Error> {
    let attachment = call.attachment();
    let port = attachment.port_name();
    let mut errors = Vec::new();
    // The port first: the dataplane lets go of the interface before it vanishes.
    match Agent::connect_if_there(&call.run_dir()) {
        Ok(Some(mut agent)) => errors.extend(agent.release(attachment).err()),
        Ok(None) => eprintln!("weft-cni: no agent; it will release {port} when it is back"),
        Err(error) => errors.push(error),
    }
    let deleted = Netlink::open().and_then(|mut netlink| host_end::delete(&mut netlink, &port));
    errors.extend(deleted.err());
    forget_pod(call);
    let delegate = Delegate::find(call.conf, call.env);
    let released = delegate.and_then(|d| d.map_or(Ok(()), |d| d.call(Command::Del)));
    errors.extend(released.err());
    Error::collect(errors)
}

/// Best effort: the namespace is about to go, or gone.
fn forget_pod(call: &Call<'_>) {
    let Some(path) = call.env.netns.as_deref() else {
        return;
    };
    if let Ok(netns) = Netns::open(path)
        && let Err(error) = netns.inside(pod_end::forget)
    {
        eprintln!("weft-cni: {error}");
    }
}
