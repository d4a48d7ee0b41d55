//! Verdicts of policies as a log is told of them.

use weft_engine::testbed::*;
use weft_engine::{DropReason, PolicyVerdict, Rule, RuleId, RuleVerdict, Side};
use weft_wire::{Protocol, TcpFlags};

const DENIES: RuleId = RuleId(6);

/// Pods that take no connections to UDP port 53, or to any port of TCP.
fn deny(bed: &mut Testbed, protocol: Protocol, port: Option<u16>) {
    let rule = Rule {
        tier: 1,
        peer: None,
        protocol: Some(protocol.0),
        ports: port.map(|port| (port, port)),
        verdict: RuleVerdict::Deny,
        id: DENIES,
    };
    bed.change(|builder| builder.policy().set_rules(ANYBODY, vec![rule], vec![]));
}

fn verdicts(bed: &mut Testbed) -> Vec<PolicyVerdict> {
    bed.pipeline.verdicts_mut().take().collect()
}

fn bed() -> Testbed {
    let mut bed = Testbed::new();
    deny(&mut bed, Protocol::UDP, Some(53));
    bed.pipeline.verdicts_mut().keep(true);
    bed
}

#[test]
fn a_connection_is_told_once_and_a_denial_each_time() {
    let mut bed = bed();
    for (from, to) in [("10.1.1.10", "10.1.1.11"), ("fd00:1:1::10", "fd00:1:1::11")] {
        let allowed = packet(from, to).udp(4000, 80).build();
        let denied = packet(from, to).udp(4000, 53).build();
        let back = packet(to, from).udp(80, 4000).build();
        bed.run(&[
            (A, allowed.clone()),
            (A, allowed),
            (A, denied.clone()),
            (A, denied),
        ]);
        let [begun, refused, again] = verdicts(&mut bed)[..] else {
            panic!("three verdicts");
        };
        assert_eq!(
            (begun.reason, refused.reason),
            (None, Some(DropReason::PolicyIngress))
        );
        assert_eq!(refused, again);
        assert_eq!(refused.source_port, 4000);
        let connection = refused.connection;
        assert_eq!(
            (connection.source, connection.destination),
            (ip(from), ip(to))
        );
        assert_eq!(
            (connection.traffic.protocol(), connection.traffic.port()),
            (Protocol::UDP, 53)
        );
        let Side::Decided(decision) = refused.judgement.ingress else {
            panic!("{refused:?}");
        };
        assert_eq!((decision.is_allowed(), decision.rule()), (false, DENIES));
        assert_eq!(refused.policy_epoch, bed.tables.policy().epoch());
        bed.run(&[(B, back)]);
        assert_eq!(
            verdicts(&mut bed),
            [],
            "replies have no verdict of their own"
        );
    }
}

#[test]
fn a_connection_that_may_no_longer_be_is_told_by_who_opened_it() {
    let mut bed = bed();
    let syn = packet("10.1.1.10", "10.1.1.11")
        .tcp(4000, 80)
        .flags(TcpFlags::SYN);
    bed.run(&[(A, syn.build())]);
    assert_eq!(verdicts(&mut bed).len(), 1);
    deny(&mut bed, Protocol::TCP, None);
    let reply = packet("10.1.1.11", "10.1.1.10")
        .tcp(80, 4000)
        .flags(TcpFlags::SYN | TcpFlags::ACK);
    bed.run(&[(B, reply.build())]);
    let [revoked] = verdicts(&mut bed)[..] else {
        panic!("one verdict");
    };
    assert_eq!(revoked.reason, Some(DropReason::PolicyRevoked));
    assert_eq!(
        (revoked.connection.source, revoked.source_port),
        (ip("10.1.1.10"), 4000)
    );
}

#[test]
fn nothing_is_kept_unless_somebody_asks() {
    let mut bed = bed();
    bed.pipeline.verdicts_mut().keep(false);
    bed.run(&[(A, packet("10.1.1.10", "10.1.1.11").udp(4000, 53).build())]);
    bed.pipeline.verdicts_mut().keep(true);
    assert_eq!(verdicts(&mut bed), []);
}
