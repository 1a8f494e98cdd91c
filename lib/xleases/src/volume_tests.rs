use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::*;

const GRID: GridSize = GridSize::Sector512Align1M;

/// A small volume in memory, with a lock manager that writes records as sanlock does. Each write counts down to a loss of
/// power, after which nothing is written any more.
#[derive(Clone)]
struct Memory {
    bytes: Rc<RefCell<Vec<u8>>>,
    writes_left: Rc<Cell<u32>>,
    alive: Rc<Cell<bool>>,
}

impl Memory {
    fn new() -> Self {
        Self {
            bytes: Rc::new(RefCell::new(vec![0; 6 << 20])),
            writes_left: Rc::new(Cell::new(u32::MAX)),
            alive: Rc::new(Cell::new(false)),
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
    assert_eq!(error, "host 2 may hold the lease in place 0 (a): stop its holder first");
    // Nor when its record says that the place is free, or another's.
    memory.bytes.borrow_mut()[(1 << 20) + 512..(1 << 20) + 513].copy_from_slice(b"z");
    let mut volume = open(&memory).unwrap();
    let before = memory.bytes.borrow().clone();
    assert!(matches!(volume.rebuild(8), Err(VolumeError::Held { .. })));
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
