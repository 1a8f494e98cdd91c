//! Any bytes as a volume, and as its description: no panic, and no more content than the volume has.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ovf_store::archive::{self, Bytes};
use ovf_store::description::Description;

struct Volume<'a>(&'a [u8]);

impl Bytes for Volume<'_> {
    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, String> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        let to = from.saturating_add(len).min(self.0.len());
        Ok(self.0[from..to].to_vec())
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(content) = archive::read(&Volume(bytes), "a.ovf") {
        assert!(content.len() < bytes.len());
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Description::parse(text, "d0e1f2a3-4b5c-4d6e-8f70-8192a3b4c5d6");
    }
});
