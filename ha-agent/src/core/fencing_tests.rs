//! Who is fenced, when and by whom; and in worlds of chance, that nobody shoots who is seen, and no two shoot at once.

use super::*;
use crate::core::reason::NoFooting;

pub const LIMITS: Limits = Limits { grace: 30, alive: 60 };

pub fn id(id: u16) -> HostId {
    HostId::new(id).expect("valid")
}

pub fn peer(number: u16, alive: bool, vm_up: bool) -> Peer {
    Peer {
        name: HostName { id: id(number), name: format!("h{number}") },
        stamp: 500,
        alive,
        stopped: false,
        vm_up,
        score: Score(3400),
        entries: Vec::new(),
        switches: (1..=4).map(id).collect(),
        has_switch: true,
    }
}

/// Host 1 with a good footing looks at `now` and sees these.
pub fn facts(now: u64, peers: &[Peer]) -> Facts {
    Facts {
        now: Secs(now),
        wall: 1_700_000_000,
        own: id(1),
        score: Score(3400),
        global_maintenance: false,
        tells_liveness: true,
        no_footing: None,
        acknowledged: Secs(now),
        lock_manager_live: None,
        vm_owner: None,
        vm_here: false,
        blocks_read: Some(Secs(now)),
        unreadable: Vec::new(),
        peers: peers.to_vec(),
    }
}

/// Looks each 10 s from `from` on, each write acknowledged a second later, until an order comes; gives when.
fn until_order(fencing: &mut Fencing, from: u64, last: u64, peers: &[Peer]) -> Option<(u64, Order)> {
    (from..=last).step_by(10).find_map(|now| {
        let order = fencing.look(&facts(now, peers), &LIMITS);
        fencing.written(Secs(now + 1));
        order.map(|order| (now, order))
    })
}

fn said(fencing: &Fencing) -> String {
    fencing.notes().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[test]
fn the_dead_host_that_ran_the_vm_is_fenced_after_the_grace_and_once_per_death() {
    let mut fencing = Fencing::default();
    let dead = peer(2, false, true);
    let (at, order) = until_order(&mut fencing, 1000, 1200, std::slice::from_ref(&dead)).expect("an order");
    assert_eq!((at, order.host.id, order.stamp), (1030, id(2), 500));
    assert_eq!(until_order(&mut fencing, 1040, 1300, std::slice::from_ref(&dead)), None, "under way");
    fencing.ended(id(2), &Ended::Off { remark: None }, 1_700_000_100);
    assert_eq!(said(&fencing), "h2 (id 2) was powered off by this host, confirmed");
    assert_eq!(until_order(&mut fencing, 1310, 3000, std::slice::from_ref(&dead)), None, "done");
    let back = Peer { alive: true, stamp: 7, ..dead.clone() };
    fencing.look(&facts(3010, std::slice::from_ref(&back)), &LIMITS);
    assert_eq!(said(&fencing), "h2 (id 2), which this host had powered off, is back");
    let again = Peer { stamp: 90, ..dead };
    assert!(until_order(&mut fencing, 4000, 4100, &[again]).is_some(), "another death");
}

#[test]
fn who_is_alive_stopped_in_order_or_did_not_run_the_vm_is_left_alone() {
    let dead = peer(2, false, true);
    for (other, why) in [
        (Peer { alive: true, ..dead.clone() }, "alive"),
        (Peer { stopped: true, ..dead.clone() }, "stopped"),
        (Peer { vm_up: false, ..dead.clone() }, "no VM"),
        (Peer { has_switch: false, ..dead.clone() }, "no switch"),
    ] {
        let mut fencing = Fencing::default();
        assert_eq!(until_order(&mut fencing, 1000, 1300, &[other]), None, "{why}");
        assert_eq!(fencing.entries(), [], "{why}");
    }
    // Gone before this agent began, and the VM runs elsewhere: an old tale.
    let runs = peer(3, true, true);
    assert_eq!(until_order(&mut Fencing::default(), 1000, 1300, &[dead.clone(), runs.clone()]), None);
    let mut fencing = Fencing::default();
    fencing.look(&facts(900, &[Peer { alive: true, ..dead.clone() }, peer(3, true, false)]), &LIMITS);
    assert!(
        until_order(&mut fencing, 1000, 1300, &[dead, runs]).is_some(),
        "seen alive, and started elsewhere"
    );
}

#[test]
fn the_lock_managers_word_and_the_leases_owner_count() {
    let dead = peer(2, false, true);
    let owner = |life| Some(LeaseOwner { host: 2, life, free_in: None });
    let looks = |change: &dyn Fn(&mut Facts)| {
        let mut fencing = Fencing::default();
        (1000..1200).step_by(10).any(|now| {
            let mut facts = facts(now, std::slice::from_ref(&dead));
            change(&mut facts);
            let order = fencing.look(&facts, &LIMITS);
            fencing.written(Secs(now + 1));
            order.is_some()
        })
    };
    assert!(!looks(&|facts| facts.tells_liveness = false), "everybody looks dead");
    assert!(!looks(&|facts| facts.lock_manager_live = Some(vec![id(1), id(2)])), "its id is renewed");
    assert!(looks(&|facts| facts.lock_manager_live = Some(vec![id(1)])));
    assert!(!looks(&|facts| facts.vm_owner = owner(OwnerLife::Live)), "its lease is renewed");
    assert!(looks(&|facts| {
        facts.vm_owner = owner(OwnerLife::Failing);
        facts.peers[0].vm_up = false;
    }));
}

type Change = fn(&mut Facts);

#[test]
fn nobody_is_fenced_while_this_host_may_be_the_one_that_is_cut_off() {
    let dead = peer(2, false, true);
    let changes: [(Change, &str); 7] = [
        (|f| f.global_maintenance = true, "global maintenance"),
        (|f| f.no_footing = Some(NoFooting::HostLeaseNotHeld), "does not hold its host id lease"),
        (|f| f.no_footing = Some(NoFooting::StorageStuck { secs: 3 }), "shared storage has not worked"),
        (|f| f.acknowledged = Secs(f.now.0 - 31), "own block was not written for 31 s (limit 30 s)"),
        (|f| f.blocks_read = None, "how old the hosts' rows are"),
        (
            |f| {
                f.lock_manager_live = Some(vec![id(1), id(4)]);
                f.unreadable = vec![id(4)];
            },
            "the block of host 4",
        ),
        (
            |f| {
                let entry = FencingEntry {
                    host: id(1),
                    stamp: 1,
                    phase: FencingPhase::Begun,
                    since: 0,
                    score: Score(1),
                };
                f.peers.push(Peer { entries: vec![entry], ..peer(3, true, false) });
            },
            "h3 (id 3) is about to power this host off",
        ),
    ];
    for (change, why) in changes {
        let mut fencing = Fencing::default();
        // A claim that stands already is withdrawn.
        for now in [1000, 1010] {
            fencing.look(&facts(now, std::slice::from_ref(&dead)), &LIMITS);
        }
        assert_eq!(fencing.entries().len(), 1);
        for now in (1020..1300).step_by(10) {
            let mut facts = facts(now, std::slice::from_ref(&dead));
            change(&mut facts);
            assert_eq!(fencing.look(&facts, &LIMITS), None, "{why}");
            assert!(said(&fencing).contains(why), "{why}: {}", said(&fencing));
        }
        assert_eq!(fencing.entries(), [], "{why}");
    }
}

#[test]
fn the_grace_runs_while_the_lock_manager_has_not_given_the_host_up() {
    let dead = peer(2, false, true);
    let mut fencing = Fencing::default();
    let order = (1000..1200).step_by(10).find(|now| {
        let live = if *now < 1060 { vec![id(1), id(2)] } else { vec![id(1)] };
        let facts = Facts { lock_manager_live: Some(live), ..facts(*now, std::slice::from_ref(&dead)) };
        let order = fencing.look(&facts, &LIMITS);
        if *now == 1050 {
            assert!(said(&fencing).contains("its leases are renewed"), "{}", said(&fencing));
            assert_eq!(fencing.entries(), [], "no claim on a host that renews");
        }
        fencing.written(Secs(now + 1));
        order.is_some()
    });
    assert_eq!(order, Some(1070));
}

#[test]
fn a_block_that_never_was_anybodys_hinders_nothing() {
    let dead = peer(2, false, true);
    let mut fencing = Fencing::default();
    let order = (1000..1100).step_by(10).any(|now| {
        let garbage = Facts { unreadable: vec![id(9)], ..facts(now, std::slice::from_ref(&dead)) };
        let order = fencing.look(&garbage, &LIMITS);
        fencing.written(Secs(now + 1));
        order.is_some()
    });
    assert!(order);
}

#[test]
fn a_claim_that_was_not_written_or_not_read_past_is_no_claim() {
    let dead = peer(2, false, true);
    let mut fencing = Fencing::default();
    for now in (1000..1300).step_by(10) {
        assert_eq!(fencing.look(&facts(now, std::slice::from_ref(&dead)), &LIMITS), None, "never written");
    }
    fencing.written(Secs(1300));
    for now in (1310..1400).step_by(10) {
        let old = Facts { blocks_read: Some(Secs(1300)), ..facts(now, std::slice::from_ref(&dead)) };
        assert_eq!(fencing.look(&old, &LIMITS), None, "read before, or in the same second");
    }
    assert!(fencing.look(&facts(1400, &[dead]), &LIMITS).is_some());
}

#[test]
fn a_host_that_stood_still_begins_anew() {
    let dead = peer(2, false, true);
    let mut fencing = Fencing::default();
    assert_eq!(until_order(&mut fencing, 1000, 1020, std::slice::from_ref(&dead)), None);
    let (at, _) = until_order(&mut fencing, 1060, 1200, &[dead]).expect("an order");
    assert_eq!(at, 1090);
}

#[test]
fn the_better_host_goes_first_and_the_next_one_has_its_turn() {
    let dead = peer(2, false, true);
    let better = Peer { score: Score(3401), ..peer(3, true, false) };
    let when = |other: &Peer| {
        until_order(&mut Fencing::default(), 1000, 1200, &[dead.clone(), other.clone()]).expect("an order").0
    };
    assert_eq!(when(&better), 1050);
    assert_eq!(when(&peer(3, true, false)), 1030, "equal: the lower id");
    assert_eq!(when(&Peer { switches: vec![id(1)], ..better.clone() }), 1030, "it cannot");
    let entry = |phase| FencingEntry { host: id(2), stamp: 500, phase, since: 0, score: Score(3401) };
    let tried = Peer { entries: vec![entry(FencingPhase::Failed)], ..better.clone() };
    assert_eq!(when(&tried), 1030, "it has tried");
    for phase in [FencingPhase::Claimed, FencingPhase::Begun, FencingPhase::Off] {
        let does = Peer { entries: vec![entry(phase)], ..better.clone() };
        let mut fencing = Fencing::default();
        assert_eq!(until_order(&mut fencing, 1000, 1300, &[dead.clone(), does]), None);
        assert_eq!(fencing.entries(), [], "{phase}");
        assert!(said(&fencing).contains("h3 (id 3)"), "{}", said(&fencing));
    }
}

#[test]
fn with_a_short_grace_too_the_better_host_claims_first() {
    let limits = Limits { grace: 3, ..LIMITS };
    let claims_at = |peers: &[Peer]| {
        let mut fencing = Fencing::default();
        (1000..1100).step_by(5).find(|now| {
            fencing.look(&facts(*now, peers), &limits);
            !fencing.entries().is_empty()
        })
    };
    let dead = peer(2, false, true);
    let better = Peer { score: Score(3500), ..peer(3, true, false) };
    assert_eq!(claims_at(std::slice::from_ref(&dead)), Some(1000));
    assert_eq!(claims_at(&[dead, better]), Some(1000 + TURN));
}

#[test]
fn of_two_claims_the_better_one_waits_for_the_other_to_be_withdrawn() {
    let dead = peer(2, false, true);
    let claims = |score| {
        let entry = FencingEntry {
            host: id(2),
            stamp: 500,
            phase: FencingPhase::Claimed,
            since: 0,
            score: Score(score),
        };
        Peer { entries: vec![entry], ..peer(3, true, false) }
    };
    for (score, stays) in [(3399, true), (3400, true), (3401, false)] {
        let mut fencing = Fencing::default();
        assert_eq!(until_order(&mut fencing, 1000, 1020, std::slice::from_ref(&dead)), None);
        assert_eq!(fencing.entries().len(), 1);
        // Both were written before each saw the other.
        let both = [dead.clone(), claims(score)];
        assert_eq!(until_order(&mut fencing, 1030, 1060, &both), None, "{score}");
        assert_eq!(fencing.entries().len(), usize::from(stays), "{score}");
        let alone = [dead.clone(), peer(3, true, false)];
        assert!(until_order(&mut fencing, 1070, 1120, &alone).is_some(), "{score}");
    }
}

#[test]
fn an_agent_that_is_started_anew_knows_what_was_tried_before() {
    let dead = peer(2, false, true);
    let entry = |phase| FencingEntry { host: id(2), stamp: 500, phase, since: 0, score: Score(1) };
    for (left, found) in [
        (FencingPhase::Claimed, None),
        (FencingPhase::Begun, Some(FencingPhase::Failed)),
        (FencingPhase::Off, Some(FencingPhase::Off)),
        (FencingPhase::Failed, Some(FencingPhase::Failed)),
    ] {
        let mut fencing = Fencing::resume(&[entry(left)]);
        let order = until_order(&mut fencing, 1000, 1100, std::slice::from_ref(&dead));
        assert_eq!(order.is_some(), found.is_none(), "{left}");
        assert_eq!(fencing.entries().first().map(|entry| entry.phase).filter(|_| order.is_none()), found);
    }
}
