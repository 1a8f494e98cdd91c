//! Any bytes as a metadata file: `cargo +nightly fuzz run blocks`, from `metadata-format/`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use metadata_format::{GlobalBlock, HostBlock, HostId, parse_blocks};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(block) = GlobalBlock::parse(bytes) {
        // What was read is written back as it was, apart from the NULs after it.
        let written = block.encode().expect("what fitted into a block still does");
        assert_eq!(GlobalBlock::parse(&written), Ok(block));
    }
    for (id, row) in parse_blocks(bytes) {
        match row {
            Ok(block) => {
                assert_eq!(block.host_id, id);
                assert!(!block.hostname.contains(char::is_control));
            }
            Err(error) => assert!(!error.to_string().contains('\u{1b}')),
        }
    }
    let first = HostId::new(1).expect("1 is in range");
    let _ = HostBlock::parse(first, bytes);
});
