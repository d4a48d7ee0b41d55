//! `weft status`: the node at a glance.

use serde::Serialize;
use weft_api::agent::{self, AgentStatus};
use weft_api::client::ClientError;
use weft_api::dataplane::{self, Counter, Feature, RemoteStatus, Status, WorkerStatus};

use crate::text::{Listing, Page, grouped, or_dash, span};
use crate::{Found, Node, port};

/// The document of `--output json`: the dataplane's status, the agent's beside it.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    dataplane: Option<Status>,
    agent: Option<AgentStatus>,
    /// Everything that is not as it should be, a sentence each.
    problems: Vec<String>,
}

/// Asks dataplane and agent, shows what they say and what is wrong.
pub fn run(node: &Node) -> anyhow::Result<Found> {
    let dataplane = || node.dataplane()?.call(dataplane::Op::Status);
    let agent = || node.agent()?.call(agent::Op::Status);
    let report = report(dataplane(), agent());
    node.show(&report, |r| render(r, crate::styled()))?;
    Ok(if report.problems.is_empty() {
        Found::Nothing
    } else {
        Found::Problem
    })
}

fn report(
    dataplane: Result<Status, ClientError>,
    agent: Result<AgentStatus, ClientError>,
) -> Report {
    let mut problems = Vec::new();
    match &dataplane {
        Ok(status) => dataplane_problems(status, &mut problems),
        Err(error) => problems.push(error.to_string()),
    }
    match &agent {
        Ok(status) => agent_problems(status, &mut problems),
        Err(error) => problems.push(error.to_string()),
    }
    Report {
        dataplane: dataplane.ok(),
        agent: agent.ok(),
        problems,
    }
}

fn dataplane_problems(status: &Status, problems: &mut Vec<String>) {
    if !status.committed {
        problems.push(
            "the dataplane has not been given its tables since it started: it forwards by the last ones or not at all".into(),
        );
    }
    if status.frames.leaked > 0 {
        let leaked = grouped(status.frames.leaked);
        problems.push(format!(
            "{leaked} frames are not accounted for: this is a bug"
        ));
    }
    for remote in &status.remotes {
        let (name, vtep) = (&remote.name, remote.vtep);
        match (&remote.uplink, remote.next_hop_mac) {
            (None, _) => problems.push(format!(
                "node {name} cannot be reached: no uplink has a route to {vtep}"
            )),
            (Some(uplink), None) => problems.push(format!(
                "node {name} cannot be reached: the next hop to {vtep} on {uplink} does not answer"
            )),
            _ => {}
        }
    }
}

fn agent_problems(status: &AgentStatus, problems: &mut Vec<String>) {
    if !status.dataplane {
        problems.push("the agent cannot reach the dataplane".into());
    }
    let dead = status.attachments.iter().filter(|a| !a.live);
    problems.extend(
        dead.map(|a| format!("port {} of {} is not live", a.port, or_dash(a.pod.as_ref()))),
    );
    let empty = status.pools.iter().filter(|p| p.free == 0);
    problems.extend(empty.map(|p| format!("no address is left in {}", p.prefix)));
    problems.extend(status.problems.iter().cloned());
}

fn render(report: &Report, styled: bool) -> String {
    let mut page = Page::new(styled);
    page.facts(&facts(report));
    if let Some(status) = &report.dataplane {
        page.table("WORKERS", &workers(&status.workers));
        page.table("PORTS", &port::listing(&status.ports));
        page.table("PACKETS BY STAGE", &counters("STAGE", &status.stages));
        page.table("PACKETS BY VERDICT", &counters("VERDICT", &status.verdicts));
        page.table("POLICIES", &described("WHAT", &status.policy));
        page.table("CONNECTIONS", &described("WHAT", &status.flows));
        page.table("SHORTCUTS", &described("WHAT", &status.shortcuts));
        page.table("DROPS", &described("REASON", &status.drops));
        page.table("REMOTE NODES", &remotes(&status.remotes));
    }
    if let Some(agent) = &report.agent {
        page.table("ADDRESS POOLS", &pools(agent));
    }
    if let Some(status) = &report.dataplane {
        page.table("MISSING IN THIS KERNEL", &missing(&status.features));
    }
    page.items("PROBLEMS", &report.problems);
    page.finish()
}

fn facts(report: &Report) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    let unreachable = || "not reachable".to_owned();
    if let Some(status) = &report.dataplane {
        let committed = if status.committed {
            ""
        } else {
            ", not committed since start"
        };
        facts.push(("node", or_dash(status.node.as_ref())));
        facts.push(("generation", format!("{}{committed}", status.generation)));
    }
    let dataplane = report.dataplane.as_ref().map(|s| {
        let restarts = match s.restarts {
            0 => String::new(),
            n => format!(", restarted {n}x"),
        };
        format!(
            "{}, pid {}, up {}{restarts}",
            s.version,
            s.pid,
            span(s.uptime_s)
        )
    });
    facts.push(("dataplane", dataplane.unwrap_or_else(unreachable)));
    let agent = report.agent.as_ref().map(|a| {
        let count = a.attachments.len();
        format!("generation {}, {count} attachments", a.generation)
    });
    facts.push(("agent", agent.unwrap_or_else(unreachable)));
    if let Some(status) = &report.dataplane {
        let f = &status.frames;
        let [total, free, fill, tx, held] = [f.total, f.free, f.fill, f.tx, f.held].map(grouped);
        let leaked = match f.leaked {
            0 => String::new(),
            n => format!(", {} LEAKED", grouped(n)),
        };
        facts.push((
            "frames",
            format!("{total}: {free} free, {fill} waiting to receive, {tx} being sent, {held} held{leaked}"),
        ));
    }
    facts
}

fn workers(workers: &[WorkerStatus]) -> Listing {
    let headings = [
        "WORKER",
        "CORE",
        "PORTS",
        "BUSY LOOPS",
        "SLEEPS",
        "HANDOFFS",
    ];
    let mut listing = Listing::new(&headings).right(&[2, 3, 4, 5]);
    for worker in workers {
        listing.row([
            worker.id.to_string(),
            worker.core.map_or("any".to_owned(), |c| c.to_string()),
            worker.ports.to_string(),
            grouped(worker.busy_loops),
            grouped(worker.sleeps),
            grouped(worker.handoffs),
        ]);
    }
    listing
}

fn counters(heading: &str, counters: &[Counter]) -> Listing {
    let mut listing = Listing::new(&[heading, "PACKETS"]).right(&[1]);
    for counter in counters {
        listing.row([counter.name.clone(), grouped(counter.count)]);
    }
    listing
}

/// Counters that are not zero, with their meaning.
fn described(heading: &'static str, all: &[Counter]) -> Listing {
    let mut listing = Listing::new(&[heading, "COUNT", "MEANING"]).right(&[1]);
    for counter in all.iter().filter(|counter| counter.count > 0) {
        listing.row([
            counter.name.clone(),
            grouped(counter.count),
            counter.description.clone(),
        ]);
    }
    listing
}

fn remotes(remotes: &[RemoteStatus]) -> Listing {
    let headings = ["NODE", "ENDPOINT", "UPLINK", "NEXT HOP", "MTU"];
    let mut listing = Listing::new(&headings).right(&[4]);
    for remote in remotes {
        listing.row([
            remote.name.clone(),
            remote.vtep.to_string(),
            or_dash(remote.uplink.as_ref()),
            or_dash(remote.next_hop_mac),
            remote.mtu.to_string(),
        ]);
    }
    listing
}

fn pools(agent: &AgentStatus) -> Listing {
    let mut listing = Listing::new(&["PREFIX", "USED", "COOLING", "FREE"]).right(&[1, 2, 3]);
    for pool in &agent.pools {
        let free = match pool.free {
            u64::MAX => "plenty".to_owned(),
            n => grouped(n),
        };
        listing.row([
            pool.prefix.to_string(),
            grouped(pool.used),
            grouped(pool.cooling),
            free,
        ]);
    }
    listing
}

fn missing(features: &[Feature]) -> Listing {
    let mut listing = Listing::new(&["FEATURE", "COST"]);
    for feature in features.iter().filter(|f| !f.present) {
        listing.row([feature.name.clone(), feature.cost.clone()]);
    }
    listing
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use weft_api::agent::PoolStatus;
    use weft_api::dataplane::FrameStatus;

    fn well() -> (Status, AgentStatus) {
        let status = Status {
            node: Some("n1".into()),
            committed: true,
            ..Status::default()
        };
        let agent = AgentStatus {
            dataplane: true,
            ..AgentStatus::default()
        };
        (status, agent)
    }

    fn gone() -> ClientError {
        ClientError::Connect {
            name: "weft-dataplane",
            path: "/r/dataplane.sock".into(),
            source: io::ErrorKind::NotFound.into(),
        }
    }

    #[test]
    fn a_node_that_is_well_has_no_problems() {
        let (status, agent) = well();
        assert!(report(Ok(status), Ok(agent)).problems.is_empty());
    }

    #[test]
    fn every_kind_of_problem_is_said() {
        let (mut status, mut agent) = well();
        status.committed = false;
        status.frames = FrameStatus {
            leaked: 3,
            ..FrameStatus::default()
        };
        for (name, uplink) in [("n2", None), ("n3", Some("eth0".to_owned()))] {
            status.remotes.push(RemoteStatus {
                name: name.into(),
                vtep: [192, 0, 2, 1].into(),
                uplink,
                next_hop_mac: None,
                mtu: 1450,
            });
        }
        agent.dataplane = false;
        agent.problems.push("pods.yaml:3: broken".into());
        agent.pools.push(PoolStatus {
            prefix: "10.0.0.0/24".parse().unwrap(),
            used: 254,
            cooling: 0,
            free: 0,
        });
        let report = report(Ok(status), Ok(agent));
        for says in [
            "tables",
            "3 frames",
            "n2 cannot",
            "n3 cannot",
            "agent cannot",
            "pods.yaml:3",
            "10.0.0.0/24",
        ] {
            assert!(report.problems.iter().any(|p| p.contains(says)), "{says}");
        }
        assert_eq!(report.problems.len(), 7);
    }

    #[test]
    fn what_is_not_reachable_is_a_problem_and_the_rest_is_shown() {
        let (_, agent) = well();
        let report = report(Err(gone()), Ok(agent));
        assert_eq!(report.problems.len(), 1);
        let text = render(&report, false);
        assert!(text.contains("dataplane  not reachable"), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert!(json.get("version").is_none() && json["agent"].is_object());
    }
}
