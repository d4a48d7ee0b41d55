//! `weft policy`: what the policies of this node's pods say.

use weft_api::dataplane::Op;
use weft_api::explain::{
    PeerStatus, PolicyEndpoint, PolicyExplained, PolicyList, PolicyOutcome, PolicyParty,
    PolicyQuestion, PolicySide, RuleStatus,
};
use weft_api::policy::RuleVerdict;

use crate::args::{ExplainArguments, PolicyCommand};
use crate::text::{Listing, Page, grouped, list};
use crate::{Found, Node, policy_log, traffic};

/// Answers a subcommand.
pub fn run(node: &Node, command: &PolicyCommand) -> anyhow::Result<Found> {
    match command {
        PolicyCommand::List => show_list(node),
        PolicyCommand::Explain(asked) => explain(node, asked),
        PolicyCommand::Log(asked) => policy_log::run(node, asked),
    }
}

fn show_list(node: &Node) -> anyhow::Result<Found> {
    let list: PolicyList = node.dataplane()?.call(Op::PolicyList)?;
    node.show(&list, |list| render_list(list, crate::styled()))?;
    Ok(if list.endpoints.iter().any(is_cut_off) {
        Found::Problem
    } else {
        Found::Nothing
    })
}

/// Its pods have no rules, not even the rule that everything is allowed.
fn is_cut_off(endpoint: &PolicyEndpoint) -> bool {
    !endpoint.known && !endpoint.addresses.is_empty()
}

fn render_list(policies: &PolicyList, styled: bool) -> String {
    if policies.endpoints.is_empty() {
        return "no pod of this node has a policy".to_owned();
    }
    let mut page = Page::new(styled);
    let mut endpoints =
        Listing::new(&["IDENTITY", "NAME", "PODS", "INGRESS", "EGRESS"]).right(&[0]);
    for endpoint in &policies.endpoints {
        let rules = |rules: &[RuleStatus]| match (endpoint.known, rules.len()) {
            (false, _) => "cut off".to_owned(),
            (true, 0) => "open".to_owned(),
            (true, 1) => "1 rule".to_owned(),
            (true, count) => format!("{count} rules"),
        };
        endpoints.row([
            endpoint.identity.to_string(),
            endpoint.name.clone(),
            list(&endpoint.pods),
            rules(&endpoint.ingress),
            rules(&endpoint.egress),
        ]);
    }
    page.table("ENDPOINTS", &endpoints);
    for endpoint in &policies.endpoints {
        let heading = format!("RULES OF {} ({})", endpoint.identity, endpoint.name);
        page.table(&heading, &rules(endpoint));
    }
    let cut_off: Vec<String> = policies
        .endpoints
        .iter()
        .filter(|it| is_cut_off(it))
        .map(|it| {
            format!(
                "{}: its rules have not arrived from the agent, so nothing passes",
                list(&it.addresses)
            )
        })
        .collect();
    page.items("PROBLEMS", &cut_off);
    page.finish()
}

fn rules(endpoint: &PolicyEndpoint) -> Listing {
    let headings = [
        "DIRECTION",
        "TIER",
        "VERDICT",
        "PEER",
        "PORTS",
        "FROM",
        "ALLOWED",
        "DENIED",
    ];
    let mut listing = Listing::new(&headings).right(&[1, 6, 7]);
    let both = [("ingress", &endpoint.ingress), ("egress", &endpoint.egress)];
    for (direction, rules) in both {
        for rule in rules {
            listing.row([
                direction.to_owned(),
                rule.tier.to_string(),
                verdict(rule.verdict).to_owned(),
                peer(rule.peer.as_ref()),
                traffic::of_rule(rule.protocol, rule.ports),
                format!("{} {}", rule.origin.object, rule.origin.rule),
                grouped(rule.allowed),
                grouped(rule.denied),
            ]);
        }
    }
    listing
}

fn verdict(verdict: RuleVerdict) -> &'static str {
    match verdict {
        RuleVerdict::Allow => "allow",
        RuleVerdict::Deny => "deny",
        RuleVerdict::Pass => "pass",
    }
}

fn peer(peer: Option<&PeerStatus>) -> String {
    let Some(peer) = peer else {
        return "any".to_owned();
    };
    let more = peer.identities.saturating_sub(peer.names.len() as u32);
    match (peer.identities, more) {
        (0, _) => "nobody".to_owned(),
        (_, 0) => list(&peer.names),
        _ => format!("{} and {more} more", list(&peer.names)),
    }
}

fn explain(node: &Node, asked: &ExplainArguments) -> anyhow::Result<Found> {
    let question = PolicyQuestion {
        source: asked.source.clone(),
        destination: asked.destination.clone(),
        protocol: asked.port.protocol,
        port: asked.port.port,
    };
    let explained: PolicyExplained = node.dataplane()?.call(Op::PolicyExplain(question))?;
    node.show(&explained, |it| render_explained(it, crate::styled()))?;
    Ok(if explained.allowed {
        Found::Nothing
    } else {
        Found::Problem
    })
}

fn render_explained(explained: &PolicyExplained, styled: bool) -> String {
    let mut page = Page::new(styled);
    let verdict = if explained.allowed {
        "allowed"
    } else {
        "denied"
    };
    page.facts(&[
        ("from", party(&explained.source)),
        ("to", party(&explained.destination)),
        ("port", traffic::one(explained.protocol, explained.port)),
        ("egress", side(&explained.egress, "sender")),
        ("ingress", side(&explained.ingress, "receiver")),
        ("verdict", verdict.to_owned()),
    ]);
    page.finish()
}

/// `10.1.1.5 shop/web (shop app=web)`.
pub fn party(party: &PolicyParty) -> String {
    match &party.pod {
        Some(pod) => format!("{} {pod} ({})", party.address, party.name),
        None => format!("{} ({})", party.address, party.name),
    }
}

/// What the policy of `who`, sender or receiver, says.
pub fn side(side: &PolicySide, who: &str) -> String {
    let by = side
        .origin
        .as_ref()
        .map(|origin| format!("{} {}", origin.object, origin.rule));
    match (side.outcome, by) {
        (PolicyOutcome::Allowed, Some(by)) => format!("allowed by {by}"),
        (PolicyOutcome::Allowed, None) => "allowed: no rule says otherwise".to_owned(),
        (PolicyOutcome::Denied, Some(by)) => format!("denied by {by}"),
        (PolicyOutcome::Denied, None) => "denied".to_owned(),
        (PolicyOutcome::NoPolicy, _) => {
            format!("denied: the {who}'s rules have not arrived from the agent")
        }
        (PolicyOutcome::Exempt, _) => {
            "allowed: a node may always connect to its own pods, and a pod to itself".to_owned()
        }
        (PolicyOutcome::Elsewhere, _) => format!(
            "not decided here: the {who} is no pod of this node; if it is another node's, ask there"
        ),
    }
}
