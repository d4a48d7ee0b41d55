//! Taking over a region: what was there goes on, and no bytes whatever do harm.

use std::os::fd::AsFd;

use proptest::prelude::*;
use weft_xsk::Region;

use super::track_tests::{Bed, Side};
use super::{
    Direction, FlowMemory, FlowTable, MacAddr, MemoryError, NextHop, PortId, Tick, Tracked, Upper,
};

const FLOWS: u32 = 16;

const ROUTER: NextHop = NextHop {
    port: PortId(3),
    mac: MacAddr([2, 0, 0, 0, 0, 9]),
};

fn filled() -> Bed {
    let mut bed = Bed::new(FLOWS);
    for number in 0..14 {
        for side in [Side::A, Side::B] {
            bed.track(Bed::numbered(side, 17, number), Upper::Udp);
            bed.pass(1);
        }
    }
    let key = Bed::numbered(Side::A, 17, 4);
    let (flow, _) = bed
        .table
        .find(&key, key.hash(bed.table.seed()), bed.now)
        .expect("it is there");
    assert!(
        bed.table
            .translate(flow, Bed::numbered(Side::B, 17, 100).tuple)
    );
    bed.table.decide(flow, Direction::Original, 3, 7);
    bed.table.set_next_hop(flow, ROUTER);
    let key = Bed::numbered(Side::A, 17, 6);
    let (flow, _) = bed
        .table
        .find(&key, key.hash(bed.table.seed()), bed.now)
        .expect("it is there");
    bed.table.remove(flow);
    bed
}

#[test]
fn connections_go_on_and_decisions_do_not() {
    let mut bed = filled();
    let before: Vec<_> = bed.table.iter(bed.now).collect();
    let (table, recovery) = FlowTable::recover(bed.table.into_memory(), bed.now).expect("a table");
    bed.table = table;
    assert_eq!(
        (recovery.kept, recovery.expired, recovery.broken),
        (13, 0, 0)
    );
    assert_eq!(bed.table.iter(bed.now).collect::<Vec<_>>(), before);
    let backend = Bed::numbered(Side::B, 17, 100);
    let found = bed
        .table
        .find(&backend, backend.hash(bed.table.seed()), bed.now);
    let (flow, direction) = found.expect("found by its reply's tuple");
    assert_eq!(direction, Direction::Reply);
    assert_eq!(bed.table.decision(flow, Direction::Original, 3), 0);
    assert_eq!(bed.table.next_hop(flow), Some(ROUTER));
    // All that is free can be used, and the longest silent gives way first.
    for number in 200..203 {
        bed.track(Bed::numbered(Side::A, 17, number), Upper::Udp);
    }
    assert_eq!((bed.table.len(), bed.table.counters().evicted), (16, 0));
    bed.pass(100);
    assert_eq!(bed.table.expire(bed.now, 100), 16);
}

#[test]
fn connections_go_on_in_memory_that_outlives_the_table() {
    let bytes = FlowMemory::bytes(FLOWS);
    let fd = Region::create_memfd(bytes).expect("memory");
    let memory = || {
        let region = Region::own_memfd(fd.as_fd(), bytes).expect("its only owner");
        FlowMemory::within(region, FLOWS).expect("its size")
    };
    let mut bed = Bed::new(FLOWS);
    bed.table = FlowTable::empty_in(memory(), 5);
    let key = Bed::numbered(Side::A, 17, 1);
    bed.track(key, Upper::Udp);
    let before: Vec<_> = bed.table.iter(bed.now).collect();
    // The table is gone as with its process: nothing but the bytes stays.
    bed.table = FlowTable::new(FLOWS, 1);
    let (table, recovery) = FlowTable::recover(memory(), bed.now).expect("a table");
    bed.table = table;
    assert_eq!((recovery.kept, recovery.broken), (1, 0));
    assert_eq!(bed.table.iter(bed.now).collect::<Vec<_>>(), before);
    bed.track(key, Upper::Udp);
    let counters = bed.table.counters();
    assert_eq!((counters.hits, counters.new), (1, 0));
}

#[test]
fn memory_nobody_used_and_memory_of_another_size_hold_no_table() {
    let bytes = FlowMemory::bytes(FLOWS);
    let zero = || Region::anonymous(bytes).expect("memory");
    let memory = FlowMemory::within(zero(), FLOWS).expect("its size");
    let refused = FlowTable::recover(memory, Tick(1)).map(|(_, recovery)| recovery);
    assert_eq!(refused, Err(MemoryError::NotFlows));
    let short = FlowMemory::within(zero(), FLOWS + 1).map(|_| ());
    assert_eq!(short, Err(MemoryError::Size));
}

#[test]
fn what_ran_out_meanwhile_is_gone() {
    let mut bed = filled();
    bed.pass(10_000);
    let (table, recovery) = FlowTable::recover(bed.table.into_memory(), bed.now).expect("a table");
    assert_eq!((recovery.kept, recovery.expired, table.len()), (0, 13, 0));
}

#[test]
fn a_clock_that_went_back_ends_everything() {
    let bed = filled();
    let (_, recovery) = FlowTable::recover(bed.table.into_memory(), Tick(1)).expect("a table");
    assert_eq!((recovery.kept, recovery.broken), (0, 13));
}

/// Uses a table whatever it holds: no panic, no number out of range, never more than fit.
fn use_it(bed: &mut Bed) {
    for round in 0..3 {
        for number in 0..40 {
            for side in [Side::A, Side::B] {
                let key = Bed::numbered(side, 17, number);
                let tracked = bed.track(key, Upper::Udp);
                if let Tracked::Flow { flow, .. } = tracked {
                    assert!(bed.table.describe(flow, bed.now).is_some());
                    bed.table.decide(flow, Direction::Reply, 1, 1);
                    if number % 7 == round {
                        bed.table.remove(flow);
                    }
                }
            }
        }
        bed.pass(20);
        bed.table.expire(bed.now, 8);
        assert!(bed.table.len() <= FLOWS as usize);
        assert_eq!(bed.table.iter(bed.now).count(), bed.table.len());
    }
}

proptest! {
    #[test]
    fn no_bytes_do_harm(
        writes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..400),
        in_header: bool,
    ) {
        let mut bed = filled();
        let mut memory = bed.table.into_memory();
        let bytes = memory.as_bytes_mut();
        for (at, value) in writes {
            let at = at.index(bytes.len());
            if in_header || at >= 64 {
                bytes[at] = value;
            }
        }
        bed.table = match FlowTable::recover(memory, bed.now) {
            Ok((table, recovery)) => {
                prop_assert_eq!(table.len(), recovery.kept as usize);
                table
            }
            Err(_) => FlowTable::new(FLOWS, 1),
        };
        use_it(&mut bed);
    }

    #[test]
    fn no_bytes_under_a_running_table_make_it_panic(
        writes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..60),
    ) {
        let mut bed = filled();
        let bytes = bed.table.memory_mut().as_bytes_mut();
        for (at, value) in writes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        for number in 0..40 {
            bed.track(Bed::numbered(Side::B, 17, number), Upper::Udp);
        }
        bed.pass(300);
        bed.table.expire(bed.now, 100);
    }
}
