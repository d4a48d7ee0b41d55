//! CHECK: is the container attached as it was?

use std::net::IpAddr;

use weft_api::MacAddr;

use crate::agent::Agent;
use crate::env::Command;
use crate::error::Error;
use crate::host_end;
use crate::inspect::{self, Expected};
use crate::ipam::Delegate;
use crate::netlink::Netlink;
use crate::result::AddResult;
use crate::types::Version;
use crate::verb::{Call, add};

/// Fails with everything that is wrong.
pub(crate) fn run(call: &Call<'_>) -> Result<(), Error> {
    call.since(Version::V0_4_0)?;
    let prev_result = call.conf.pod()?.prev_result;
    let prev_result =
        prev_result.ok_or_else(|| Error::Config("CHECK needs prevResult".to_owned()))?;
    let recorded = recorded(call, &prev_result)?;
    let netns = add::netns(call)?;
    let attachment = call.attachment();
    let port = attachment.port_name();

    let mut problems = host_end::problems(&mut Netlink::open()?, &port)?;
    let expected = Expected {
        ifname: &call.env.ifname,
        mac: recorded.mac,
        addresses: &recorded.addresses,
    };
    problems.extend(netns.inside(|| inspect::problems(&expected))?);
    let asked = Agent::connect(&call.run_dir()).and_then(|mut agent| agent.check(attachment));
    match asked {
        Ok(known) => {
            let unknown = |a: &&IpAddr| !known.addresses.contains(a);
            let unknown = recorded.addresses.iter().filter(unknown);
            problems
                .extend(unknown.map(|a| format!("the agent did not give {a} to this attachment")));
            problems.extend(known.problems);
        }
        // What was found wrong without the agent is worth more than that it is not there.
        Err(error) if problems.is_empty() => return Err(error),
        Err(error) => problems.push(error.to_string()),
    }
    if let Some(delegate) = Delegate::find(call.conf, call.env)? {
        problems.extend(delegate.call(Command::Check).err().map(|e| e.to_string()));
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Error::Broken(problems))
    }
}

/// What ADD reported about this attachment.
struct Recorded {
    mac: Option<MacAddr>,
    addresses: Vec<IpAddr>,
}

fn recorded(call: &Call<'_>, result: &AddResult) -> Result<Recorded, Error> {
    let ifname = call.env.ifname.as_str();
    let mut interfaces = result.interfaces.iter().zip(0_u32..);
    let own = interfaces.find(|(i, _)| i.name == ifname && i.sandbox.is_some());
    let (interface, index) = own.ok_or_else(|| {
        Error::Config(format!(
            "prevResult holds no interface {ifname} in a sandbox"
        ))
    })?;
    let mine = result.ips.iter().filter(|ip| ip.interface == Some(index));
    let addresses = mine.map(|ip| ip.address.addr()).collect::<Vec<_>>();
    if addresses.is_empty() {
        let message = format!("prevResult holds no address of {ifname}");
        return Err(Error::Config(message));
    }
    Ok(Recorded {
        mac: interface
            .mac
            .as_ref()
            .and_then(|mac| mac.to_ascii_lowercase().parse().ok()),
        addresses,
    })
}
