use proptest::prelude::*;

use super::*;

const GRID: GridSize = GridSize::Sector512Align1M;

fn metadata() -> Metadata {
    Metadata { lockspace: "sd".to_owned(), modified: 1_700_000_000, is_updating: false }
}

fn name(text: &str) -> LeaseName {
    LeaseName::new(text).unwrap()
}

fn slot(number: u16) -> Slot {
    Slot::new(number).unwrap()
}

#[test]
fn the_bytes_are_those_of_the_format() {
    let mut index = Index::empty(metadata()).unwrap();
    index.set(slot(1), Some(&name("vm-1")), GRID);
    let bytes = index.bytes();
    assert_eq!(bytes.len(), 253_952);
    assert_eq!(&bytes[..4], [0x12, 0x15, 0x20, 0x16]);
    assert_eq!(&bytes[4..13], b"\x000001\0sd\0");
    assert_eq!(&bytes[58..71], b"\x001700000000\0-");
    assert_eq!(bytes[511], b'\n');
    let record = &bytes[576..640];
    assert_eq!(&record[..5], b"vm-1\0");
    assert_eq!(&record[48..], b"\x0000004194304\0--\n");
    assert_eq!(&bytes[512 + 48..576], b"\x0000000000000\0--\n");
}

#[test]
fn leases_are_found_by_name_and_lie_where_their_record_is() {
    let mut index = Index::empty(metadata()).unwrap();
    index.set(slot(7), Some(&name("a")), GRID);
    assert_eq!(index.find(&name("a")), Some((slot(7), Record::Used(name("a")))));
    assert_eq!(index.find(&name("aa")), None);
    assert_eq!(slot(7).lease_offset(GRID), 10 << 20);
    assert_eq!(slot(7).lease_offset(GridSize::Sector4kAlign8M), 80 << 20);
    index.set(slot(0), Some(&name("b")), GRID);
    assert_eq!(index.first_free(1 << 30, GRID), Some(slot(1)));
    // Three reserved slots and one lease.
    assert_eq!(index.first_free(4 << 20, GRID), None);
}

#[test]
fn a_half_made_and_a_damaged_record_cost_one_lease() {
    let mut index = Index::empty(metadata()).unwrap();
    index.set(slot(0), Some(&name("a")), GRID);
    index.set(slot(1), Some(&name("b")), GRID);
    let mut bytes = index.bytes().to_vec();
    bytes[METADATA_BYTES + FLAG_AT] = UPDATING;
    bytes[METADATA_BYTES + RECORD_BYTES + 50] = b'x';
    let index = Index::parse(&bytes).unwrap();
    assert_eq!(index.get(slot(0)), Ok(Record::HalfMade(name("a"))));
    assert_eq!(index.get(slot(1)).unwrap_err().reason, "the offset is no number");
    assert_eq!(index.get(slot(2)), Ok(Record::Free));
}

#[test]
fn what_is_no_index_is_named() {
    assert_eq!(Index::parse(&[0; 10]), Err(IndexError::Short(10)));
    assert_eq!(Index::parse(&vec![0; INDEX_BYTES]), Err(IndexError::Blank));
    assert!(matches!(Index::parse(&vec![1; INDEX_BYTES]), Err(IndexError::BadHead(_))));
    let mut bytes = Index::empty(metadata()).unwrap().bytes().to_vec();
    bytes[8] = b'2';
    assert_eq!(Index::parse(&bytes), Err(IndexError::TooNew { found: 2 }));
    bytes[8] = b'x';
    assert!(matches!(Index::parse(&bytes), Err(IndexError::BadHead("the version is no number"))));
}

#[test]
fn names_that_do_not_fit_are_refused() {
    for bad in ["", "a b", "a:b", "ü", &"x".repeat(49)] {
        assert_eq!(LeaseName::new(bad), Err(IndexError::BadName(bad.to_owned())), "{bad}");
    }
    let long = Metadata { lockspace: "x".repeat(49), ..metadata() };
    assert!(matches!(Index::empty(long), Err(IndexError::BadLockspace(_))));
}

#[test]
fn a_record_lies_in_one_sector() {
    let index = Index::empty(metadata()).unwrap();
    let (start, sector) = index.sector(slot(8), GRID);
    assert_eq!((start, sector.len()), (1024, 512));
    let (start, sector) = index.sector(slot(3959), GridSize::Sector4kAlign1M);
    assert_eq!((start, sector.len()), (INDEX_BYTES - 4096, 4096));
}

proptest! {
    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..700), at in 0_usize..INDEX_BYTES, byte: u8) {
        let _ = Index::parse(&bytes);
        let mut good = Index::empty(metadata()).unwrap().bytes().to_vec();
        good[at] = byte;
        if let Ok(index) = Index::parse(&good) {
            for slot in Slot::all() {
                let _ = index.get(slot);
            }
        }
    }

    #[test]
    fn records_read_back(number in 0..MAX_RECORDS, text in "[a-z0-9-]{1,48}") {
        let mut index = Index::empty(metadata()).unwrap();
        index.set(slot(number), Some(&name(&text)), GRID);
        let index = Index::parse(index.bytes()).unwrap();
        prop_assert_eq!(index.find(&name(&text)), Some((slot(number), Record::Used(name(&text)))));
        prop_assert_eq!(index.metadata(), &metadata());
    }
}
