//! What another host's block says that an agent's decisions depend on, and whether that is news. Pure: no I/O, no clock.
//!
//! Each host writes its block every loop, mostly with nothing new but times. An agent that were woken by those would look
//! as often as there are hosts, so only this counts:
//!
//! | news | not news |
//! | --- | --- |
//! | the VM's state, the engine's health, the VM's status word | the words of the reason |
//! | the state of the agent, local maintenance, a clean stop | timestamps, the configuration's age |
//! | a score that becomes 0 or more than that, or has moved by [`SCORE_STEP`] | a score that wavers |
//! | lines of a live migration or of fencing | other lines for people |
//! | a block that appears, goes, or cannot be read any more | why it cannot be read |
//!
//! The cluster's block is not looked at here: the whiteboard tells of each change of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use metadata_format::{Health, HostBlock, HostId, Score, VmState};

use crate::whiteboard::{Block, Snapshot};

/// Points that a score must have moved by since it was last news: a quarter of the lead that moves a running VM.
const SCORE_STEP: u32 = 200;
/// Lines for people that other hosts act upon begin so.
const LINES: [&str; 3] = ["state=", "migration", "fencing"];

/// What was last told of each other host.
#[derive(Debug, Default)]
pub struct News {
    /// `None` before the first good reading: nothing in that is news.
    told: Option<BTreeMap<HostId, Told>>,
}

#[derive(Debug)]
struct Told {
    /// The block's bytes as last looked at, to see quickly that it did not change.
    bytes: Arc<Block>,
    gist: Gist,
}

/// What a block says, as far as it matters.
#[derive(Debug, PartialEq, Eq)]
enum Gist {
    Unreadable,
    Says {
        score: Score,
        vm: VmState,
        health: Health,
        detail: String,
        is_in_maintenance: bool,
        is_stopped: bool,
        lines: Vec<String>,
    },
}

impl News {
    /// Looks at `snapshot`; true when a host other than `own` says something new.
    pub fn take(&mut self, snapshot: &Snapshot, own: Option<HostId>) -> bool {
        if snapshot.read_at.is_none() {
            return false;
        }
        let is_first = self.told.is_none();
        let told = self.told.get_or_insert_default();
        let before = told.len();
        told.retain(|id, _| snapshot.blocks.contains_key(&id.get()));
        let mut is_news = told.len() != before;
        for (block, seen) in &snapshot.blocks {
            // Block 0 is no host's.
            let Ok(id) = HostId::new(*block) else { continue };
            if Some(id) == own {
                continue;
            }
            let known = told.get_mut(&id);
            if known.as_ref().is_some_and(|known| Arc::ptr_eq(&known.bytes, &seen.bytes)) {
                continue;
            }
            let (bytes, gist) = (Arc::clone(&seen.bytes), Gist::of(id, &seen.bytes));
            match known {
                // What was told stays, so that a score that creeps is news after some steps.
                Some(known) if known.gist.covers(&gist) => known.bytes = bytes,
                Some(known) => {
                    *known = Told { bytes, gist };
                    is_news = true;
                }
                None => {
                    told.insert(id, Told { bytes, gist });
                    is_news = true;
                }
            }
        }
        is_news && !is_first
    }
}

impl Gist {
    fn of(id: HostId, bytes: &Block) -> Self {
        let Ok(Some(block)) = HostBlock::parse(id, bytes) else { return Self::Unreadable };
        let matters = |line: &&str| LINES.iter().any(|start| line.starts_with(start));
        Self::Says {
            score: block.score,
            vm: block.engine_status.vm,
            health: block.engine_status.health,
            detail: block.engine_status.detail,
            is_in_maintenance: block.maintenance,
            is_stopped: block.stopped,
            lines: block.extra.lines().filter(matters).map(str::to_owned).collect(),
        }
    }

    /// Whether whoever was told this needs not be told `now`.
    fn covers(&self, now: &Self) -> bool {
        match (self, now) {
            (Self::Unreadable, Self::Unreadable) => true,
            (Self::Unreadable, Self::Says { .. }) | (Self::Says { .. }, Self::Unreadable) => false,
            (
                Self::Says { score: old, vm, health, detail, is_in_maintenance, is_stopped, lines },
                Self::Says {
                    score: new,
                    vm: new_vm,
                    health: new_health,
                    detail: new_detail,
                    is_in_maintenance: now_in_maintenance,
                    is_stopped: now_stopped,
                    lines: new_lines,
                },
            ) => {
                (old.0 == 0) == (new.0 == 0)
                    && old.0.abs_diff(new.0) < SCORE_STEP
                    && (vm, health, detail) == (new_vm, new_health, new_detail)
                    && (is_in_maintenance, is_stopped, lines) == (now_in_maintenance, now_stopped, new_lines)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clock::Monotonic;
    use metadata_format::{EngineStatus, HostRecord};

    use super::*;
    use crate::whiteboard::{BlockRange, Reading, zero_block};

    fn id(id: u16) -> HostId {
        HostId::new(id).expect("a valid id")
    }

    fn record(host: u16, ts: i64) -> HostRecord {
        HostRecord {
            host_ts: ts,
            host_time: format!("at {ts}"),
            host_id: id(host),
            score: Score(3400),
            engine_status: EngineStatus {
                vm: VmState::Up,
                health: Health::Good,
                detail: "Up".to_owned(),
                reason: None,
            },
            hostname: format!("host{host}"),
            maintenance: false,
            stopped: false,
            conf_on_shared_storage: true,
            vm_conf_refresh_ts: ts,
            vm_conf_refresh_time: String::new(),
            state: "EngineUp".to_owned(),
            timeout: None,
            notes: BTreeMap::new(),
        }
    }

    fn block(record: &HostRecord) -> Box<Block> {
        let mut block = zero_block();
        let bytes = record.encode().expect("a record that fits");
        block[..bytes.len()].copy_from_slice(&bytes);
        Box::new(block)
    }

    /// Snapshots one after the other, and what each is to host 1.
    struct Watched {
        snapshot: Snapshot,
        news: News,
        second: u64,
    }

    impl Watched {
        fn new(records: &[HostRecord]) -> Self {
            let mut new = Self { snapshot: Snapshot::default(), news: News::default(), second: 0 };
            assert!(!new.reads(records), "the first look is no news");
            new
        }

        fn reads(&mut self, records: &[HostRecord]) -> bool {
            let present = records.iter().map(|record| (record.host_id.get(), block(record)));
            self.reads_blocks(present.collect())
        }

        fn reads_blocks(&mut self, present: Vec<(u16, Box<Block>)>) -> bool {
            self.second += 1;
            let at = Monotonic::from_secs(self.second);
            let covered = vec![BlockRange { first: 0, count: 9 }];
            self.snapshot.take(Reading { covered, present, file_blocks: 9, ..Reading::default() }, at, at);
            self.news.take(&self.snapshot, Some(id(1)))
        }
    }

    /// A record that differs in one thing.
    fn with(record: &HostRecord, change: impl FnOnce(&mut HostRecord)) -> HostRecord {
        let mut changed = record.clone();
        change(&mut changed);
        changed
    }

    #[test]
    fn times_and_words_are_no_news_and_what_decisions_depend_on_is() {
        let first = record(2, 100);
        for (is_news, what, changed) in [
            (false, "a new timestamp", record(2, 110)),
            (false, "a reason", with(&first, |r| r.engine_status.reason = Some("x".to_owned()))),
            (false, "a timer", with(&first, |r| r.timeout = Some("at noon".to_owned()))),
            (false, "a note", with(&first, |r| drop(r.notes.insert("note".to_owned(), "x".to_owned())))),
            (false, "199 points less", with(&first, |r| r.score = Score(3201))),
            (true, "200 points less", with(&first, |r| r.score = Score(3200))),
            (true, "no points any more", with(&first, |r| r.score = Score(0))),
            (true, "the health", with(&first, |r| r.engine_status.health = Health::Bad)),
            (true, "the VM", with(&first, |r| r.engine_status.vm = VmState::DownUnexpected)),
            (true, "a pause", with(&first, |r| r.engine_status.detail = "Paused".to_owned())),
            (true, "the state", with(&first, |r| r.state = "EngineStop".to_owned())),
            (true, "local maintenance", with(&first, |r| r.maintenance = true)),
            (true, "a clean stop", with(&first, |r| r.stopped = true)),
            (
                true,
                "a request",
                with(&first, |r| drop(r.notes.insert("migration_to".to_owned(), "3".to_owned()))),
            ),
        ] {
            assert_eq!(Watched::new(std::slice::from_ref(&first)).reads(&[changed]), is_news, "{what}");
        }
    }

    #[test]
    fn hosts_that_come_and_go_are_news_and_the_own_block_never_is() {
        let mut watched = Watched::new(&[record(1, 1), record(2, 1)]);
        assert!(!watched.reads(&[with(&record(1, 2), |r| r.score = Score(0)), record(2, 1)]));
        assert!(watched.reads(&[record(1, 2), record(2, 1), record(3, 1)]));
        assert!(!watched.reads(&[record(1, 3), record(2, 2), record(3, 2)]));
        assert!(watched.reads(&[record(1, 3), record(3, 3)]));
        assert!(watched.reads_blocks(vec![(1, block(&record(1, 4))), (3, Box::new([b'x'; 4096]))]));
        assert!(!watched.reads_blocks(vec![(1, block(&record(1, 5))), (3, Box::new([b'y'; 4096]))]));
    }

    #[test]
    fn a_score_that_creeps_is_news_when_it_has_crept_far_enough() {
        let scored = |points| with(&record(2, 1), |r| r.score = Score(points));
        let mut watched = Watched::new(&[scored(1000)]);
        let told: Vec<bool> =
            [1080, 1160, 1240, 1300, 1180].map(|points| watched.reads(&[scored(points)])).into();
        assert_eq!(told, [false, false, true, false, false]);
    }
}
