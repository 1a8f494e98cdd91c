//! What is kept of a VM on disk, so that a stand-in that was killed finds it again.

use std::fs;
use std::io;
use std::path::Path;

use engine_vm::lease::LeaseSpec;
use serde::{Deserialize, Serialize};

use super::description::Description;
use super::exit::Exit;

/// The file's name in the VM's run directory, beside the QEMU adapter's own.
const FILE: &str = "vdsm.json";

/// One VM.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// What it is.
    pub description: Description,
    /// What protects it, once that was found out.
    pub lease: Option<LeaseSpec>,
    /// It came, or is to come, from another host.
    pub is_incoming: bool,
    /// How it ended.
    pub exit: Option<Exit>,
}

impl Record {
    pub fn load(directory: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(directory.join(FILE))?)?)
    }

    /// Replaces the file: readers see the old text or the new one.
    pub fn save(&self, directory: &Path) -> io::Result<()> {
        let new = directory.join("vdsm.json.new");
        fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&new, directory.join(FILE))
    }
}
