use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use proptest::prelude::*;

use super::*;

const GRID: GridSize = GridSize::Sector512Align1M;

/// A small volume in memory, with a lock manager that writes records as sanlock does. Each write counts down to a loss of
/// power, after which nothing is written any more.
#[derive(Clone)]
struct Memory {
    bytes: Rc<RefCell<Vec<u8>>>,
    writes_left: Rc<Cell<u32>>,
    alive: Rc<Cell<bool>>,
    /// Offset of the lease that is held here.
    held: Rc<Cell<Option<u64>>>,
}

impl Memory {
    fn new() -> Self {
        Self {
            bytes: Rc::new(RefCell::new(vec![0; 6 << 20])),
            writes_left: Rc::new(Cell::new(u32::MAX)),
            alive: Rc::new(Cell::new(false)),
            held: Rc::default(),
        }
    }

    fn put(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let left = self.writes_left.get().checked_sub(1).ok_or_else(|| io::Error::other("power loss"))?;
        self.writes_left.set(left);
        let at = usize::try_from(offset).unwrap();
        self.bytes.borrow_mut()[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn record(&self, magic: u32, lockspace: &str, name: &str, offset: u64) -> Result<(), String> {
        let mut sector = [0; 512];
        sector[..4].copy_from_slice(&magic.to_le_bytes());
        sector[12..16].copy_from_slice(&512_u32.to_le_bytes());
        sector[56..56 + lockspace.len()].copy_from_slice(lockspace.as_bytes());
        sector[104..104 + name.len()].copy_from_slice(name.as_bytes());
        self.put(offset, &sector).map_err(|error| error.to_string())
    }

    /// Host 2 takes the lease at `offset`.
    fn take(&self, offset: u64) {
        let at = usize::try_from(offset).unwrap();
        let mut bytes = self.bytes.borrow_mut();
        bytes[at + 32] = 2;
        bytes[at + 40] = 1;
        bytes[at + 152] = 9;
        self.alive.set(true);
    }
}

impl Storage for Memory {
    fn size(&self) -> io::Result<u64> {
        Ok(self.bytes.borrow().len() as u64)
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let at = usize::try_from(offset).unwrap();
        Ok(self.bytes.borrow()[at..at + len].to_vec())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.put(offset, bytes)
    }
}

impl Resources for Memory {
    fn write(&self, lockspace: &str, name: &LeaseName, offset: u64) -> Result<(), String> {
        self.record(0x0615_2010, lockspace, name.as_str(), offset)
    }

    fn clear(&self, lockspace: &str, offset: u64) -> Result<(), String> {
        self.record(0x1128_2016, lockspace, "", offset)
    }

    fn may_hold(&self, _lockspace: &str, _owner: Owner) -> Result<bool, String> {
        Ok(self.alive.get())
    }

    fn take(&self, _lockspace: &str, _name: &LeaseName, offset: u64) -> Result<(), String> {
        assert_eq!(self.held.replace(Some(offset)), None);
        Ok(())
    }

    fn give_back(&self, _lockspace: &str, _name: &LeaseName, offset: u64) -> Result<(), String> {
        assert_eq!(self.held.take(), Some(offset));
        Ok(())
    }
}

type Volume = LeasesVolume<Memory, Memory>;

fn name(text: &str) -> LeaseName {
    LeaseName::new(text).unwrap()
}

fn format(memory: &Memory) -> Volume {
    Volume::format(memory.clone(), memory.clone(), GRID, "sd", 7).unwrap()
}

fn open(memory: &Memory) -> Result<Volume, VolumeError> {
    Volume::open(memory.clone(), memory.clone(), GRID)
}

#[test]
fn leases_come_and_go_and_are_there_for_the_next_reader() {
    let memory = Memory::new();
    let mut volume = format(&memory);
    let a = volume.add(&name("a")).unwrap();
    assert_eq!((a.offset, a.lockspace.as_str(), a.owner), (3 << 20, "sd", None));
    assert!(matches!(volume.add(&name("a")), Err(VolumeError::Exists(_))));
    assert_eq!(volume.add(&name("b")).unwrap().offset, 4 << 20);
    volume.add(&name("c")).unwrap();
    assert!(matches!(volume.add(&name("d")), Err(VolumeError::Full)));
    volume.remove(&name("a")).unwrap();
    assert!(matches!(volume.remove(&name("a")), Err(VolumeError::Missing(_))));

    let mut volume = open(&memory).unwrap();
    assert!(matches!(volume.lookup(&name("a")), Err(VolumeError::Missing(_))));
    assert_eq!(volume.add(&name("d")).unwrap().offset, 3 << 20, "the free place is used again");
    let (leases, damaged) = volume.list().unwrap();
    assert_eq!(leases.iter().map(|lease| lease.name.as_str()).collect::<Vec<_>>(), ["d", "b", "c"]);
    assert_eq!(damaged, []);
}

#[test]
fn a_lease_that_a_host_may_hold_is_never_overwritten() {
    let memory = Memory::new();
    let mut volume = format(&memory);
    let a = volume.add(&name("a")).unwrap();
    memory.take(a.offset);
    assert_eq!(volume.lookup(&name("a")).unwrap().owner.unwrap().host_id, 2);
    let error = volume.remove(&name("a")).unwrap_err().to_string();
    assert!(
        error.starts_with("host 2 may hold the lease \"a\" in place 0 (offset 3145728): stop its holder"),
        "{error}"
    );
    // Nor when its record says that the place is free, or another's.
    memory.bytes.borrow_mut()[(1 << 20) + 512..(1 << 20) + 513].copy_from_slice(b"z");
    let mut volume = open(&memory).unwrap();
    let before = memory.bytes.borrow().clone();
    assert!(matches!(volume.rebuild(8), Err(VolumeError::Held { .. })));
    assert!(*memory.bytes.borrow() == before, "nothing was written");
    let formatted = Volume::format(memory.clone(), memory.clone(), GRID, "sd", 9);
    assert!(matches!(formatted, Err(VolumeError::Held { .. })));
    assert!(*memory.bytes.borrow() == before, "nothing was written");
    memory.alive.set(false);
    assert_eq!(volume.rebuild(8).unwrap().len(), 1);
}

#[test]
fn a_loss_of_power_at_any_write_leaves_a_volume_that_a_rebuild_puts_right() {
    type Change = fn(&mut Volume) -> Result<(), VolumeError>;
    let add: Change = |volume| volume.add(&name("b")).map(drop);
    let remove: Change = |volume| volume.remove(&name("a"));
    let rebuild: Change = |volume| volume.rebuild(9).map(drop);
    for (change, adds) in [(add, true), (remove, false), (rebuild, false)] {
        for writes in 0..8 {
            let memory = Memory::new();
            let mut volume = format(&memory);
            volume.add(&name("a")).unwrap();
            // Something for the rebuild to do.
            memory.record(0x0615_2010, "sd", "left", 5 << 20).unwrap();
            memory.writes_left.set(writes);
            let outcome = change(&mut volume);
            memory.writes_left.set(u32::MAX);
            let mut volume = Volume::open_to_mend(memory.clone(), memory.clone(), GRID).unwrap();
            volume.rebuild(10).unwrap();
            let mut volume = open(&memory).unwrap();
            assert_eq!(volume.rebuild(11).unwrap(), [], "nothing is left to mend");
            let (leases, damaged) = volume.list().unwrap();
            assert_eq!(damaged, []);
            assert!(leases.len() <= 2, "{leases:?}");
            if adds && outcome.is_ok() {
                assert!(volume.lookup(&name("b")).is_ok());
            }
        }
    }
}

#[test]
fn an_interrupted_index_must_be_rebuilt_first() {
    let memory = Memory::new();
    let mut volume = format(&memory);
    memory.record(0x0615_2010, "sd", "left", 5 << 20).unwrap();
    memory.writes_left.set(1);
    assert!(volume.rebuild(9).is_err());
    memory.writes_left.set(u32::MAX);
    assert!(matches!(open(&memory), Err(VolumeError::Interrupted)));
}

#[test]
fn what_is_no_index_is_refused() {
    let memory = Memory::new();
    assert!(matches!(open(&memory), Err(VolumeError::Index(IndexError::Blank))));
}

/// What an operator asks for.
#[derive(Debug, Clone)]
enum Step {
    Add(u8),
    Remove(u8),
    Rebuild,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_u8..4).prop_map(Step::Add),
        3 => (0_u8..4).prop_map(Step::Remove),
        1 => Just(Step::Rebuild),
    ];
    prop::collection::vec(step, 0..12)
}

fn carry_out(volume: &mut Volume, step: &Step) -> Result<(), VolumeError> {
    let lease = |number: u8| name(&format!("vm-{number}"));
    match step {
        Step::Add(number) => volume.add(&lease(*number)).map(drop),
        Step::Remove(number) => volume.remove(&lease(*number)),
        Step::Rebuild => volume.rebuild(9).map(drop),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever was done before, and wherever the power went away in the last step: every lease that the index names is
    /// there, the last step happened or did not, and all others are as they were, each in its place.
    #[test]
    fn a_crash_costs_at_most_the_change_that_was_under_way(
        before in steps(),
        last in prop_oneof![(0_u8..4).prop_map(Step::Add), (0_u8..4).prop_map(Step::Remove), Just(Step::Rebuild)],
        writes in 0_u32..6,
    ) {
        let memory = Memory::new();
        let mut volume = format(&memory);
        for step in &before {
            let _ = carry_out(&mut volume, step);
        }
        let places = |volume: &Volume| {
            let (leases, damaged) = volume.list().unwrap();
            assert_eq!(damaged, []);
            leases.into_iter().map(|lease| (lease.name.to_string(), lease.offset)).collect::<BTreeMap<_, _>>()
        };
        let earlier = places(&volume);
        memory.writes_left.set(writes);
        let outcome = carry_out(&mut volume, &last);
        memory.writes_left.set(u32::MAX);
        memory.held.set(None);

        let mut volume = match open(&memory) {
            Ok(volume) => volume,
            Err(VolumeError::Interrupted) => {
                prop_assert!(matches!(last, Step::Rebuild));
                Volume::open_to_mend(memory.clone(), memory.clone(), GRID).unwrap()
            }
            Err(error) => panic!("{error}"),
        };
        let later = places(&volume);
        for (name, offset) in &later {
            let record = PaxosRecord::parse(&Storage::read(&memory, *offset, 512).unwrap()).unwrap();
            prop_assert_eq!(&record.resource, name, "the index never names a lease that is not there");
        }
        let touched = match last {
            Step::Add(number) | Step::Remove(number) => Some(format!("vm-{number}")),
            Step::Rebuild => None,
        };
        let others = |all: &BTreeMap<String, u64>| {
            all.iter().filter(|(name, _)| Some(*name) != touched.as_ref()).map(|(n, o)| (n.clone(), *o)).collect::<Vec<_>>()
        };
        prop_assert_eq!(others(&earlier), others(&later));
        if let (Ok(()), Some(name)) = (outcome, &touched) {
            prop_assert_eq!(later.contains_key(name), matches!(last, Step::Add(_)));
        }
        volume.rebuild(10).unwrap();
        let mut volume = open(&memory).unwrap();
        prop_assert_eq!(places(&volume), later);
        prop_assert_eq!(volume.rebuild(11).unwrap(), vec![]);
    }
}
