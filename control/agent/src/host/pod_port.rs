//! The host end of a pod's veth, as the node's kernel has it.

use weft_api::PortName;

use super::{Netlink, sysctl};

/// What is wrong with it, a sentence each.
pub async fn problems(netlink: &Netlink, port: &PortName) -> Vec<String> {
    let link = match netlink.link(&port.0).await {
        Ok(Some(link)) => link,
        Ok(None) => return vec![format!("the host end {port} does not exist")],
        Err(error) => return vec![error.to_string()],
    };
    let mut problems = Vec::new();
    if !link.veth {
        problems.push(format!("the host end {port} is no veth"));
    }
    if !link.up {
        problems.push(format!("the host end {port} is down"));
    }
    if sysctl::is_open(&port.0) {
        problems.push(format!(
            "the kernel would forward packets of the host end {port} that the dataplane does not take"
        ));
    }
    problems
}
