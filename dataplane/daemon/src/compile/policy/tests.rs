//! Policy objects to decisions, and what is refused.

use weft_api::object::Object;
use weft_api::policy::PortRange;
use weft_engine::PolicyDirection;
use weft_engine::Traffic;

use super::*;
use crate::compile::check;

fn origin(rule: &str) -> RuleOrigin {
    RuleOrigin {
        object: "NetworkPolicy shop/web".to_owned(),
        rule: rule.to_owned(),
    }
}

fn rule(name: &str, verdict: ApiVerdict) -> PolicyRule {
    PolicyRule {
        tier: 2,
        peer: None,
        protocol: None,
        ports: None,
        verdict,
        origin: origin(name),
    }
}

fn identity(id: u32, selectors: &[u32]) -> Identity {
    Identity {
        id,
        name: format!("shop app={id}"),
        selectors: selectors.to_vec(),
    }
}

fn address(prefix: &str, identity: u32) -> PolicyAddress {
    PolicyAddress {
        prefix: prefix.parse().unwrap(),
        identity,
        pod: None,
    }
}

fn endpoint(identity: u32, ingress: Vec<PolicyRule>) -> EndpointPolicy {
    EndpointPolicy {
        identity,
        ingress,
        egress: Vec::new(),
    }
}

/// Policies and the builder they go to.
#[derive(Default)]
struct Rig {
    policies: Policies,
    builder: PolicyBuilder,
}

impl Rig {
    /// What 10.0.0.1's ingress rules say to 10.0.0.2 about TCP port 80: allowed, and by which rule.
    fn ask(&mut self, objects: &[Object]) -> Option<(bool, String)> {
        let mut sorted = PolicyObjects::default();
        for object in objects {
            match object {
                Object::Identity(it) => sorted.identities.push(it),
                Object::PolicyAddress(it) => sorted.addresses.push(it),
                Object::EndpointPolicy(it) => sorted.endpoints.push(it),
                _ => {}
            }
        }
        self.policies.apply(&sorted, &mut self.builder);
        let (subject, peer) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let traffic = Traffic::new(Protocol::TCP, 80);
        let tables = self.builder.build();
        let decision = tables.decide(subject, PolicyDirection::Ingress, peer, traffic)?;
        let origin = self.policies.origin(decision.rule());
        let name = origin.map_or_else(String::new, |it| it.rule.clone());
        Some((decision.is_allowed(), name))
    }
}

fn objects(selectors: &[u32], rules: Vec<PolicyRule>) -> Vec<Object> {
    vec![
        Object::Identity(identity(1, &[]).into()),
        Object::Identity(identity(2, selectors).into()),
        Object::PolicyAddress(address("10.0.0.1/32", 1).into()),
        Object::PolicyAddress(address("10.0.0.2/32", 2).into()),
        Object::EndpointPolicy(endpoint(1, rules).into()),
    ]
}

#[test]
fn decisions_follow_the_objects_and_name_where_they_come_from() {
    let from_seven = PolicyRule {
        peer: Some(7),
        protocol: Some(6),
        ports: Some(PortRange {
            first: 80,
            last: 80,
        }),
        ..rule("ingress[0]", ApiVerdict::Allow)
    };
    let rules = || {
        vec![
            from_seven.clone(),
            rule("isolates ingress", ApiVerdict::Deny),
        ]
    };
    let mut rig = Rig::default();
    let answer = |allowed, name: &str| Some((allowed, name.to_owned()));
    assert_eq!(rig.ask(&[]), None);
    assert_eq!(
        rig.ask(&objects(&[], rules())),
        answer(false, "isolates ingress")
    );
    assert_eq!(rig.ask(&objects(&[7], rules())), answer(true, "ingress[0]"));
    assert_eq!(rig.ask(&objects(&[7], Vec::new())), answer(true, ""));
    let mut unknown = objects(&[7], rules());
    unknown.remove(1);
    assert_eq!(
        rig.ask(&unknown),
        answer(false, "isolates ingress"),
        "an unknown identity is world"
    );
    let mut cut_off = objects(&[7], rules());
    cut_off.pop();
    assert_eq!(rig.ask(&cut_off), None);
    assert_eq!(rig.policies.sizes().map(|(_, size)| size), [0, 0, 2, 2]);
}

#[test]
fn a_number_that_goes_to_another_rule_is_told_and_others_stay() {
    let mut rig = Rig::default();
    let two = |a: &str, b: &str| {
        let rules = vec![rule(a, ApiVerdict::Allow), rule(b, ApiVerdict::Deny)];
        objects(&[], rules)
    };
    rig.ask(&two("a", "b"));
    let of = |rig: &Rig, name: &str| rig.policies.rule_id(&origin(name));
    let (a, b) = (of(&rig, "a"), of(&rig, "b"));
    assert!(a != b && a != RuleId::NONE && b != RuleId::NONE);
    rig.ask(&two("b", "c"));
    assert_eq!((of(&rig, "b"), of(&rig, "a")), (b, RuleId::NONE));
    assert_eq!(rig.policies.take_renamed(), []);
    rig.ask(&two("c", "d"));
    assert_eq!(rig.policies.take_renamed(), [of(&rig, "d")]);
    assert_eq!(of(&rig, "d"), a);
    let origins: BTreeSet<u32> = ["c", "d"].map(|it| of(&rig, it).0).into();
    assert_eq!(origins.len(), 2);
}

#[test]
fn what_contradicts_itself_is_refused_by_name_and_never_in_force() {
    let ports = |protocol, first, last| PolicyRule {
        protocol,
        ports: Some(PortRange { first, last }),
        ..rule("ingress[0]", ApiVerdict::Deny)
    };
    let low = PolicyRule {
        tier: 1,
        ..rule("ingress[1]", ApiVerdict::Allow)
    };
    let of = |rules| Object::EndpointPolicy(endpoint(1, rules).into());
    for (object, words) in [
        (Object::Identity(identity(0, &[]).into()), "number 0"),
        (
            Object::Identity(identity(1, &[2, 1]).into()),
            "(shop app=1)",
        ),
        (Object::Identity(identity(1, &[2, 2]).into()), "ascending"),
        (
            Object::PolicyAddress(address("10.0.0.1/8", 1).into()),
            "10.0.0.0/8",
        ),
        (Object::EndpointPolicy(endpoint(0, vec![]).into()), "world"),
        (of(vec![ports(None, 1, 2)]), "no protocol"),
        (of(vec![ports(Some(1), 1, 2)]), "protocol 1 has no ports"),
        (of(vec![ports(Some(6), 2, 1)]), "shop/web, ingress[0]"),
        (of(vec![rule("a", ApiVerdict::Deny), low]), "ingress rule 1"),
    ] {
        let refused = check(&object).unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
        let mut rig = Rig::default();
        let mut all = objects(&[7], Vec::new());
        let replaced = all.iter().any(|it| it.key() == object.key());
        all.retain(|it| it.key() != object.key());
        all.push(object);
        // Kept on disk by somebody who did not check it: the pod is cut off rather than let be.
        let let_be = Some((true, String::new()));
        assert_eq!(rig.ask(&all), if replaced { None } else { let_be });
    }
}
