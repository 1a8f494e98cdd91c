//! What is noted about the VM for another life of this program, and for the other ones on this host. libvirt forgets a
//! transient domain with its end.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::look::failed;
use crate::lease::open_lock;
use crate::port::{VmError, VmExit};
use crate::qemu::run_dir::{EXIT, RunDir, START_LOCK};

const NOTES: &str = "notes.json";

/// About the VM that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Notes {
    /// It is being started, and no guest code has run. True while nobody holds the start's lock: who did that is gone.
    pub is_launching: bool,
    /// The guest was asked to power down.
    pub is_powering_down: bool,
    /// It is being destroyed by command.
    pub is_destroying: bool,
}

/// The notes' directory.
#[derive(Debug)]
pub(super) struct Notebook(RunDir);

impl Notebook {
    pub fn new(path: &Path) -> Self {
        Self(RunDir::new(path))
    }

    /// Keeps two starts on this host from crossing.
    pub fn begin_start(&self, action: &'static str) -> Result<File, VmError> {
        let cannot = |what: &str, error: &dyn std::fmt::Display| {
            failed(action, format!("cannot {what} in {}: {error}", self.0.path().display()))
        };
        self.0.create().map_err(|error| cannot("write", &error))?;
        let file = open_lock(&self.0.file(START_LOCK)).map_err(|error| cannot("open the lock", &error))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(Errno::WOULDBLOCK) => {
                Err(failed(action, "a start on this host is under way; wait for its result"))
            }
            Err(error) => Err(cannot("lock", &error)),
        }
    }

    /// What is noted about the VM that exists; nothing, when it cannot be read.
    pub fn read(&self) -> Notes {
        if self.exit().is_some() { Notes::default() } else { self.last() }
    }

    /// What was noted last, also about a VM that has ended.
    pub fn last(&self) -> Notes {
        self.0.read(NOTES).unwrap_or_default().unwrap_or_default()
    }

    pub fn write(&self, notes: Notes) {
        self.keep("a note", || self.0.create().and_then(|()| self.0.write(NOTES, &notes)));
    }

    pub fn change(&self, change: impl FnOnce(&mut Notes)) {
        let mut notes = self.last();
        change(&mut notes);
        self.write(notes);
    }

    /// How the last VM ended.
    pub fn exit(&self) -> Option<VmExit> {
        self.0.read(EXIT).unwrap_or_default()
    }

    /// Notes how it ended.
    pub fn write_exit(&self, exit: &VmExit) {
        self.keep("how the VM ended", || {
            self.0.create()?;
            self.0.write(EXIT, exit)
        });
    }

    /// A VM exists: how the one before it ended is of no interest.
    pub fn forget_exit(&self) {
        self.keep("that the VM exists", || self.0.remove(EXIT));
    }

    /// The notes are a help: without them the VM is run all the same.
    fn keep(&self, what: &str, write: impl FnOnce() -> io::Result<()>) {
        if let Err(error) = write() {
            tracing::warn!(%error, "cannot note {what} in {}", self.0.path().display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_outlive_their_writer_and_end_with_the_vm() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes");
        let book = Notebook::new(&path);
        assert_eq!((book.read(), book.exit()), (Notes::default(), None));
        book.change(|notes| notes.is_launching = true);
        assert!(Notebook::new(&path).read().is_launching);
        book.write_exit(&VmExit::MigratedAway);
        assert_eq!((book.read(), book.exit()), (Notes::default(), Some(VmExit::MigratedAway)));
        assert!(book.last().is_launching);
        book.forget_exit();
        assert_eq!(Notebook::new(&path).exit(), None);
    }

    #[test]
    fn one_start_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let book = Notebook::new(dir.path());
        let lock = book.begin_start("start").unwrap();
        assert!(book.begin_start("start").unwrap_err().to_string().contains("under way"));
        drop(lock);
        assert!(book.begin_start("start").is_ok());
    }
}
