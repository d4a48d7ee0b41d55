//! GC: removes attachments no runtime knows any more.

use crate::agent::Agent;
use crate::env::Command;
use crate::error::Error;
use crate::host_end;
use crate::ipam::Delegate;
use crate::netlink::Netlink;
use crate::types::Version;
use crate::verb::Call;

/// Collects; goes on after errors and returns them all.
pub(crate) fn run(call: &Call<'_>) -> Result<(), Error> {
    call.since(Version::V1_1_0)?;
    let mut errors = Vec::new();
    match call.conf.valid_attachments()? {
        Some(valid) => collect(call, valid, &mut errors),
        // Some runtimes leave the list out when they detached everything themselves. Another
        // runtime's pods may be on this network, so no list is not an empty list.
        None => eprintln!("weft-cni: GC without cni.dev/valid-attachments collects nothing"),
    }
    let delegate = Delegate::find(call.conf, call.env);
    let collected = delegate.and_then(|d| d.map_or(Ok(()), |d| d.call_if_known(Command::Gc)));
    errors.extend(collected.err());
    Error::collect(errors)
}

fn collect(call: &Call<'_>, valid: Vec<weft_api::agent::Attachment>, errors: &mut Vec<Error>) {
    let network = call.conf.name.clone();
    let connected = Agent::connect(&call.run_dir());
    let collected = match connected.and_then(|mut agent| agent.collect(network, valid)) {
        Ok(collected) => collected,
        Err(error) => return errors.push(error),
    };
    errors.extend(collected.problems.into_iter().map(Error::Refused));
    match Netlink::open() {
        Ok(mut netlink) => {
            let deleted = collected.released.iter().map(|attachment| {
                let port = attachment.port_name();
                host_end::delete(&mut netlink, &port)
            });
            errors.extend(deleted.filter_map(Result::err));
        }
        Err(error) => errors.push(error),
    }
}
