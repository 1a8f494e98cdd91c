//! Worlds of chance: hosts that read old blocks, write late, freeze, lose storage, die and come back. Whatever happens,
//! each order is held against the truth.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::tests::{LIMITS, facts, id, peer};
use super::*;

/// How long a deed takes.
const DEED: u64 = 15;

#[derive(Debug, Clone)]
enum Fault {
    Freezes(u64),
    LosesStorage(u64),
    Dies(u64),
}

#[derive(Debug, Clone)]
struct Misfortune {
    at: u64,
    host: usize,
    fault: Fault,
}

#[derive(Clone)]
struct Block {
    stamp: i64,
    score: u32,
    entries: Vec<FencingEntry>,
}

struct Node {
    fencing: Fencing,
    frozen_until: u64,
    cut_until: u64,
    dead_until: Option<u64>,
    /// What the broker read last, and when that began; and the read under way with its end.
    cache: (u64, Vec<Block>),
    reading: Option<(u64, u64, Vec<Block>)>,
    past: VecDeque<(u64, Vec<i64>)>,
    /// The write under way: when it lands.
    writing: Option<(u64, Block)>,
    acknowledged: u64,
    next_look: u64,
    deed: Option<(u64, HostName)>,
    froze_at: u64,
}

struct World {
    nodes: Vec<Node>,
    blocks: Vec<Block>,
    /// When each block was last changed on storage.
    changed: Vec<VecDeque<u64>>,
    latencies: Vec<u64>,
    drawn: usize,
    orders: Vec<(u64, u16, u16)>,
}

impl World {
    fn new(hosts: usize, latencies: Vec<u64>) -> Self {
        let blocks = vec![Block { stamp: 0, score: 3400, entries: Vec::new() }; hosts];
        let node = |at: usize| Node {
            fencing: Fencing::default(),
            frozen_until: 0,
            cut_until: 0,
            dead_until: None,
            cache: (0, blocks.clone()),
            reading: None,
            past: VecDeque::new(),
            writing: None,
            acknowledged: 0,
            next_look: at as u64 * 3,
            deed: None,
            froze_at: 0,
        };
        Self {
            nodes: (0..hosts).map(node).collect(),
            changed: vec![VecDeque::new(); hosts],
            blocks,
            latencies,
            drawn: 0,
            orders: Vec::new(),
        }
    }

    fn latency(&mut self) -> u64 {
        self.drawn += 1;
        self.latencies[self.drawn % self.latencies.len()]
    }

    fn suffers(&mut self, now: u64, misfortune: &Misfortune) {
        let at = misfortune.host % self.nodes.len();
        let node = &mut self.nodes[at];
        match misfortune.fault {
            Fault::Freezes(secs) => {
                node.frozen_until = now + secs;
                node.froze_at = now;
            }
            Fault::LosesStorage(secs) => node.cut_until = now + secs,
            Fault::Dies(secs) => {
                node.dead_until = Some(now + secs);
                // What it had sent may still land; nobody hears of it.
                node.deed = None;
                node.reading = None;
            }
        }
    }

    fn second(&mut self, now: u64) {
        for at in 0..self.nodes.len() {
            let lands = self.nodes[at].writing.take_if(|(lands, _)| *lands <= now);
            if let Some((_, block)) = lands
                && self.nodes[at].cut_until <= now
            {
                self.blocks[at] = block;
                self.changed[at].push_back(now);
                if self.nodes[at].dead_until.is_none() && self.nodes[at].frozen_until <= now {
                    self.nodes[at].acknowledged = now;
                    self.nodes[at].fencing.written(Secs(now));
                }
            }
            if self.nodes[at].dead_until.is_some_and(|until| until <= now) {
                let entries = self.blocks[at].entries.clone();
                let node = &mut self.nodes[at];
                node.dead_until = None;
                node.fencing = Fencing::resume(&entries);
                node.past.clear();
                node.acknowledged = now;
                node.cache = (now, self.blocks.clone());
            }
            let node = &self.nodes[at];
            if node.dead_until.is_none() && node.frozen_until <= now {
                self.host_goes_on(at, now);
            }
        }
    }

    fn host_goes_on(&mut self, at: usize, now: u64) {
        let latency = self.latency();
        let cut = self.nodes[at].cut_until > now;
        let blocks = self.blocks.clone();
        let node = &mut self.nodes[at];
        match &node.reading {
            Some((began, ends, seen)) if *ends <= now => {
                if !cut {
                    node.cache = (*began, seen.clone());
                }
                node.reading = None;
            }
            None if now.is_multiple_of(2) && !cut => node.reading = Some((now, now + latency, blocks)),
            Some(_) | None => {}
        }
        if let Some((_, host)) = node.deed.take_if(|(ends, _)| *ends <= now) {
            let fails = latency == 0;
            let ended =
                if fails { Ended::Failed { detail: String::new() } } else { Ended::Off { remark: None } };
            node.fencing.ended(host.id, &ended, 0);
            if !fails {
                let target = usize::from(host.id.get()) - 1;
                self.nodes[target].dead_until.get_or_insert(now + 500);
            }
        }
        if self.nodes[at].next_look <= now {
            self.host_looks(at, now, cut);
        }
    }

    fn host_looks(&mut self, at: usize, now: u64, cut: bool) {
        let latency = self.latency();
        let own = u16::try_from(at + 1).expect("few");
        let count = self.nodes.len();
        let node = &mut self.nodes[at];
        let (read, seen) = node.cache.clone();
        let stamps: Vec<i64> = seen.iter().map(|block| block.stamp).collect();
        let past =
            node.past.iter().rev().find(|(then, _)| then + LIMITS.alive < now).map(|(_, past)| past.clone());
        let peers: Vec<Peer> = (0..count)
            .filter(|other| *other != at)
            .map(|other| {
                let block = &seen[other];
                let alive = past.as_ref().is_some_and(|past| past[other] != block.stamp);
                Peer {
                    stamp: block.stamp,
                    score: Score(block.score),
                    entries: block.entries.clone(),
                    // Everybody claims to have run the VM: the worst case.
                    ..peer(u16::try_from(other + 1).expect("few"), alive, true)
                }
            })
            .collect();
        let seen_by = Facts {
            own: id(own),
            tells_liveness: past.is_some(),
            no_footing: cut.then_some(NoFooting::StorageStuck { secs: 1 }),
            acknowledged: Secs(node.acknowledged),
            blocks_read: Some(Secs(read)),
            // Nobody vouches for anything, and who was never seen counts as well.
            vm_here: false,
            ..facts(now, &peers)
        };
        node.past.push_back((now, stamps));
        if node.past.len() > 100 {
            node.past.pop_front();
        }
        let order = node.fencing.look(&seen_by, &LIMITS);
        node.next_look = now + node.fencing.again_in(Secs(now), &LIMITS).unwrap_or(10).min(10);
        let score = 3000 + u32::try_from((now / 50 + u64::from(own) * 7) % 3 * 100).expect("small");
        let block =
            Block { stamp: i64::try_from(now).expect("small"), score, entries: node.fencing.entries() };
        if node.writing.is_none() && !cut {
            node.writing = Some((now + latency, block));
        }
        if let Some(order) = order {
            node.deed = Some((now + DEED, order.host.clone()));
            let acknowledged = node.acknowledged;
            self.check(at, &order, now, read, acknowledged, cut);
            self.orders.push((now, own, order.host.id.get()));
        }
    }

    /// The truth about an order.
    fn check(&self, at: usize, order: &Order, now: u64, read: u64, acknowledged: u64, cut: bool) {
        let target = usize::from(order.host.id.get()) - 1;
        assert_ne!(target, at, "a host fences itself");
        assert!(!cut && now - acknowledged <= 30, "a host fences that has no footing");
        let wrote = self.changed[target].iter().rev().find(|then| **then < read).copied().unwrap_or(0);
        assert!(now - wrote >= 40, "{now}: host {} was seen to write at {wrote}", target + 1);
        for (other, node) in self.nodes.iter().enumerate().filter(|(other, _)| *other != at) {
            let Some((ends, host)) = &node.deed else { continue };
            if host.id != order.host.id || *ends <= now {
                continue;
            }
            // Who stands still for so long is dead to the others, and its deed does not count any more.
            let gone = node.frozen_until > node.froze_at + LIMITS.alive / 2 && node.froze_at + 20 <= now;
            assert!(gone, "{now}: hosts {} and {} fence one host at once", at + 1, other + 1);
        }
    }
}

fn misfortunes() -> impl Strategy<Value = Vec<Misfortune>> {
    let fault = prop_oneof![
        (5_u64..200).prop_map(Fault::Freezes),
        (5_u64..200).prop_map(Fault::LosesStorage),
        (30_u64..400).prop_map(Fault::Dies),
    ];
    let one = (100_u64..900, 0_usize..4, fault).prop_map(|(at, host, fault)| Misfortune { at, host, fault });
    proptest::collection::vec(one, 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nobody_shoots_who_is_seen_and_no_two_shoot_at_once(
        hosts in 2_usize..5,
        latencies in proptest::collection::vec(0_u64..9, 1..40),
        misfortunes in misfortunes(),
    ) {
        let mut world = World::new(hosts, latencies);
        for now in 0..1200 {
            for misfortune in misfortunes.iter().filter(|misfortune| misfortune.at == now) {
                world.suffers(now, misfortune);
            }
            world.second(now);
        }
        // Two that shoot each other would both have been seen to write by the other: `check` forbids it.
    }

    #[test]
    fn a_host_that_dies_for_good_is_fenced_by_one_survivor(
        hosts in 2_usize..5,
        latencies in proptest::collection::vec(1_u64..4, 1..40),
        victim in 0_usize..4,
    ) {
        let victim = victim % hosts;
        let mut world = World::new(hosts, latencies);
        for now in 0..500 {
            if now == 150 {
                world.suffers(now, &Misfortune { at: now, host: victim, fault: Fault::Dies(10_000) });
            }
            world.second(now);
        }
        let orders: Vec<_> = world.orders.iter().filter(|(.., host)| usize::from(*host) == victim + 1).collect();
        prop_assert_eq!(orders.len(), 1);
        let took = orders[0].0 - 150;
        prop_assert!((80..=170).contains(&took), "{} s", took);
        prop_assert_eq!(world.orders.len(), 1, "nobody else is fenced: {:?}", world.orders);
    }
}
