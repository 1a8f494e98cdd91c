use sanlock_client::GridSize;

use super::*;
use crate::index::Metadata;

fn name(text: &str) -> LeaseName {
    LeaseName::new(text).unwrap()
}

/// An index whose record 0 is `record` and whose record 1 is a lease `b`.
fn index(record: &str) -> Index {
    let metadata = Metadata { lockspace: "sd".to_owned(), modified: 0, is_updating: false };
    let mut index = Index::empty(metadata).unwrap();
    let first = Slot::new(0).unwrap();
    let grid = GridSize::Sector512Align1M;
    index.set(Slot::new(1).unwrap(), Some(&name("b")), grid);
    if record != "free" {
        index.set(first, Some(&name("a")), grid);
    }
    let mut bytes = index.bytes().to_vec();
    match record {
        "half" => bytes[512 + 61] = b'u',
        "damaged" => bytes[512 + 50] = b'?',
        _ => {}
    }
    Index::parse(&bytes).unwrap()
}

#[test]
fn the_index_is_the_truth_where_it_can_be_read() {
    let slot = Slot::new(0).unwrap();
    let a = || Found::Resource(name("a"));
    let b = || Found::Resource(name("b"));
    let foreign = || Found::Foreign("x y".to_owned());
    let (write, clear) = (Mend::WriteResource(slot, name("a")), Mend::ClearResource(slot));
    let free = Mend::ClearRecord(slot);
    for (record, found, wanted) in [
        ("free", Found::Nothing, vec![]),
        ("free", a(), vec![clear.clone()]),
        ("free", foreign(), vec![clear.clone()]),
        ("used", a(), vec![]),
        ("used", Found::Nothing, vec![write.clone()]),
        ("used", b(), vec![write.clone()]),
        ("used", foreign(), vec![write]),
        ("half", Found::Nothing, vec![free.clone()]),
        ("half", a(), vec![free.clone(), clear.clone()]),
        ("damaged", Found::Nothing, vec![free.clone()]),
        ("damaged", a(), vec![Mend::WriteRecord(slot, name("a"))]),
        ("damaged", b(), vec![free.clone(), clear.clone()]),
        ("damaged", foreign(), vec![free.clone(), clear]),
    ] {
        assert_eq!(mends(&index(record), slot, &found, false), wanted, "{record} {found:?}");
    }
    assert_eq!(mends(&index("used"), slot, &Found::Nothing, true), [free]);
    assert_eq!(mends(&index("free"), slot, &Found::Nothing, true), []);
}
