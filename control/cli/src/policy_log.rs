//! `weft policy log`: verdicts on connections as they are given.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, bail};
use weft_api::dataplane::Op;
use weft_api::explain::{
    PolicyLogEntry, PolicyLogEvent, PolicyLogSpec, PolicyLogStarted, PolicyLogVerdict,
    PolicyOutcome, PolicyParty, PolicySide,
};
use weft_api::frame;

use crate::args::{LogVerdict, Output, PolicyLogArguments};
use crate::text::{grouped, utc};
use crate::{Found, Node, policy, traffic};

/// Prints verdicts until so many were printed, the dataplane ends, or a signal.
pub fn run(node: &Node, asked: &PolicyLogArguments) -> anyhow::Result<Found> {
    let mut client = node.dataplane()?;
    let PolicyLogStarted {} = client.call(Op::PolicyLog(PolicyLogSpec {
        pod: asked.pod.clone(),
        verdict: asked.verdict.map(|verdict| match verdict {
            LogVerdict::Allowed => PolicyLogVerdict::Allowed,
            LogVerdict::Denied => PolicyLogVerdict::Denied,
        }),
    }))?;
    let mut stream = client.into_stream();
    stream.get_ref().set_read_timeout(None)?;
    let mut left = asked.count;
    while left != Some(0) {
        let event: Option<PolicyLogEvent> =
            frame::read_line(&mut stream).context("the connection to the dataplane broke")?;
        let Some(event) = event else {
            bail!("the dataplane ended the log");
        };
        let line = match node.output {
            Output::Json => serde_json::to_string(&event)?,
            Output::Table => line(&event),
        };
        // Whoever reads it wants it now.
        let mut out = io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush())?;
        if matches!(event, PolicyLogEvent::Verdict(_)) {
            left = left.map(|left| left - 1);
        }
    }
    Ok(Found::Nothing)
}

fn line(event: &PolicyLogEvent) -> String {
    let entry = match event {
        PolicyLogEvent::Verdict(entry) => entry,
        PolicyLogEvent::LeftOut { count } => {
            return format!("... {} more came too fast to be shown", grouped(*count));
        }
    };
    let verdict = match (entry.verdict, entry.revoked) {
        (PolicyLogVerdict::Allowed, _) => "allowed",
        (PolicyLogVerdict::Denied, false) => "denied",
        (PolicyLogVerdict::Denied, true) => "revoked",
    };
    format!(
        "{} {verdict} {} {} -> {}: {}",
        utc(entry.time_ns),
        traffic::name(entry.protocol),
        end(&entry.source, entry.source_port),
        end(&entry.destination, entry.port),
        why(entry)
    )
}

/// `10.1.1.5:80 shop/web (shop app=web)`.
fn end(party: &PolicyParty, port: u16) -> String {
    let address = place(party.address, port);
    match &party.pod {
        Some(pod) => format!("{address} {pod} ({})", party.name),
        None => format!("{address} ({})", party.name),
    }
}

fn place(address: IpAddr, port: u16) -> String {
    match port {
        0 => address.to_string(),
        port => SocketAddr::new(address, port).to_string(),
    }
}

/// The rules that decided: of a denial only those that deny.
fn why(entry: &PolicyLogEntry) -> String {
    let sides = [
        ("egress", "sender", &entry.egress),
        ("ingress", "receiver", &entry.ingress),
    ];
    let denies = |side: &PolicySide| {
        matches!(
            side.outcome,
            PolicyOutcome::Denied | PolicyOutcome::NoPolicy
        )
    };
    let counts = |side: &PolicySide| match entry.verdict {
        PolicyLogVerdict::Denied => denies(side),
        PolicyLogVerdict::Allowed => side.outcome != PolicyOutcome::Elsewhere,
    };
    let told = sides.into_iter().filter(|(_, _, side)| counts(side));
    let told = told.map(|(direction, who, side)| {
        let said = policy::side(side, who);
        format!("{direction} {said}")
    });
    told.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_api::PodRef;
    use weft_api::policy::RuleOrigin;

    fn side(outcome: PolicyOutcome, rule: Option<&str>) -> PolicySide {
        PolicySide {
            outcome,
            origin: rule.map(|rule| RuleOrigin {
                object: "NetworkPolicy shop/db".into(),
                rule: rule.into(),
            }),
        }
    }

    fn party(address: &str, pod: Option<&str>, name: &str) -> PolicyParty {
        PolicyParty {
            address: address.parse().unwrap(),
            pod: pod.map(|name| PodRef {
                namespace: "shop".into(),
                name: name.into(),
            }),
            identity: 1,
            name: name.into(),
        }
    }

    fn entry() -> PolicyLogEntry {
        PolicyLogEntry {
            time_ns: 1_795_271_025_123_999_999,
            verdict: PolicyLogVerdict::Denied,
            revoked: false,
            source: party("fd00::5", Some("web"), "shop app=web"),
            source_port: 40_000,
            destination: party("fd00::9", None, "world"),
            protocol: 6,
            port: 443,
            egress: side(PolicyOutcome::Allowed, Some("egress[0]")),
            ingress: side(PolicyOutcome::Denied, Some("isolates ingress")),
        }
    }

    #[test]
    fn a_denial_names_ends_and_the_rule_that_denies() {
        let denied = entry();
        let told = line(&PolicyLogEvent::Verdict(Box::new(denied.clone())));
        assert_eq!(
            told,
            "2026-11-21T14:23:45.123Z denied tcp [fd00::5]:40000 shop/web (shop app=web) -> \
             [fd00::9]:443 (world): ingress denied by NetworkPolicy shop/db isolates ingress"
        );
        let revoked = PolicyLogEntry {
            revoked: true,
            ..denied
        };
        assert!(line(&PolicyLogEvent::Verdict(Box::new(revoked))).contains(" revoked tcp "));
    }

    #[test]
    fn what_is_allowed_names_both_sides_that_decided() {
        let mut allowed = entry();
        allowed.verdict = PolicyLogVerdict::Allowed;
        allowed.ingress = side(PolicyOutcome::Allowed, None);
        (allowed.protocol, allowed.port, allowed.source_port) = (58, 0, 0);
        let told = line(&PolicyLogEvent::Verdict(Box::new(allowed.clone())));
        assert!(told.contains("icmpv6 fd00::5 shop/web"), "{told}");
        assert!(
            told.ends_with("egress allowed by NetworkPolicy shop/db egress[0]; ingress allowed: no rule says otherwise"),
            "{told}"
        );
        allowed.ingress = side(PolicyOutcome::Elsewhere, None);
        assert!(!line(&PolicyLogEvent::Verdict(Box::new(allowed))).contains("ingress"));
        let left_out = line(&PolicyLogEvent::LeftOut { count: 1_234 });
        assert!(left_out.contains("1,234"), "{left_out}");
    }
}
