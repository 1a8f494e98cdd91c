//! A small ISO 9660 image with a few files in its root, with Rock Ridge for their real names.
//!
//! | sector (of 2048 bytes) | what |
//! | --- | --- |
//! | 0–15 | system area: zeros |
//! | 16 | primary volume descriptor |
//! | 17 | end of the descriptors |
//! | 18, 19 | path table, little and big endian |
//! | 20 | the root directory |
//! | 21… | the files, each from a sector's beginning |
//!
//! ECMA-119 gives the layout, IEEE P1281 (SUSP) and P1282 (RRIP) the additions. Numbers that both kinds of machine read
//! stand there twice, little endian first.

/// A sector.
const SECTOR: usize = 2048;
/// Where the root directory is.
const ROOT: u32 = 20;
/// Where the first file is.
const FIRST: u32 = 21;
/// Date of everything: an image depends on nothing but its files. Years since 1900, month, day, hour, minute, second,
/// zone.
const DATE: [u8; 7] = [100, 1, 1, 0, 0, 0, 0];
const LONG_DATE: &[u8; 17] = b"2000010100000000\0";
const NO_DATE: &[u8; 17] = b"0000000000000000\0";

/// A file of the image.
#[derive(Debug, Clone, Copy)]
pub struct IsoFile<'a> {
    /// Name in the directory, of ISO's own form: at most eight capital letters, digits and `_`. The files stand in the
    /// order of these.
    pub short: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its content; at most 1 MiB.
    pub content: &'a [u8],
}

fn both_16(value: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (value.to_le_bytes(), value.to_be_bytes());
    [a, b, c, d]
}

fn both_32(value: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&value.to_le_bytes());
    bytes[4..].copy_from_slice(&value.to_be_bytes());
    bytes
}

/// A number that fits by the limits of [`IsoFile`].
fn small(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn byte(value: usize) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}

/// An entry of SUSP: two letters, its length, version 1, data.
fn entry(kind: [u8; 2], data: &[u8]) -> Vec<u8> {
    let mut entry = kind.to_vec();
    entry.extend([byte(data.len() + 4), 1]);
    entry.extend(data);
    entry
}

/// Mode and number of links; everything is root's.
fn attributes(mode: u32, links: u32) -> Vec<u8> {
    entry(*b"PX", &[both_32(mode), both_32(links), both_32(0), both_32(0)].concat())
}

/// A directory record with SUSP entries behind it.
fn record(id: &[u8], extent: u32, bytes: u32, is_directory: bool, additions: &[u8]) -> Vec<u8> {
    let mut record = vec![0, 0];
    record.extend(both_32(extent));
    record.extend(both_32(bytes));
    record.extend(DATE);
    record.extend([if is_directory { 2 } else { 0 }, 0, 0]);
    record.extend(both_16(1));
    record.push(byte(id.len()));
    record.extend(id);
    if id.len().is_multiple_of(2) {
        record.push(0);
    }
    record.extend(additions);
    if !record.len().is_multiple_of(2) {
        record.push(0);
    }
    record[0] = byte(record.len());
    record
}

const DIRECTORY_MODE: u32 = 0o040_500;
const FILE_MODE: u32 = 0o100_400;

fn root_directory(files: &[IsoFile<'_>]) -> Vec<u8> {
    // The first record says that SUSP is used, and by which extension.
    let extension = entry(*b"ER", &[&[10, 0, 0, 1][..], b"RRIP_1991A"].concat());
    let own = [entry(*b"SP", &[0xbe, 0xef, 0]), attributes(DIRECTORY_MODE, 2), extension].concat();
    let mut directory = record(&[0], ROOT, small(SECTOR), true, &own);
    directory.extend(record(&[1], ROOT, small(SECTOR), true, &attributes(DIRECTORY_MODE, 2)));
    let mut at = FIRST;
    for file in files {
        let name = entry(*b"NM", &[&[0][..], file.name.as_bytes()].concat());
        let additions = [attributes(FILE_MODE, 1), name].concat();
        let id = format!("{}.;1", file.short);
        directory.extend(record(id.as_bytes(), at, small(file.content.len()), false, &additions));
        at += small(file.content.len().div_ceil(SECTOR));
    }
    directory
}

/// An image with this label and these files.
pub fn image(label: &str, files: &[IsoFile<'_>]) -> Vec<u8> {
    let sectors: u32 =
        FIRST + files.iter().map(|file| small(file.content.len().div_ceil(SECTOR))).sum::<u32>();
    let mut image = vec![0; 16 * SECTOR];
    let mut sector = |content: &[u8]| {
        image.extend(content);
        image.resize(image.len().next_multiple_of(SECTOR), 0);
    };
    sector(&descriptor(label, sectors));
    sector(b"\xffCD001\x01");
    let table = |extent: [u8; 4], parent: [u8; 2]| [&[1, 0][..], &extent, &parent, &[0, 0]].concat();
    sector(&table(ROOT.to_le_bytes(), 1_u16.to_le_bytes()));
    sector(&table(ROOT.to_be_bytes(), 1_u16.to_be_bytes()));
    sector(&root_directory(files));
    for file in files {
        sector(file.content);
    }
    image
}

fn descriptor(label: &str, sectors: u32) -> Vec<u8> {
    let mut text = vec![0; SECTOR];
    let mut put = |at: usize, bytes: &[u8]| text[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x01CD001\x01");
    // Names that are not given are spaces.
    put(8, &[b' '; 64]);
    put(40, label.as_bytes());
    put(80, &both_32(sectors));
    put(120, &both_16(1));
    put(124, &both_16(1));
    put(128, &both_16(2048));
    put(132, &both_32(10));
    put(140, &18_u32.to_le_bytes());
    put(148, &19_u32.to_be_bytes());
    put(156, &record(&[0], ROOT, 2048, true, &[]));
    put(190, &[b' '; 813 - 190]);
    put(813, LONG_DATE);
    put(830, LONG_DATE);
    put(847, NO_DATE);
    put(864, NO_DATE);
    put(881, &[1]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn le(bytes: &[u8]) -> usize {
        usize::try_from(u32::from_le_bytes(bytes[..4].try_into().unwrap())).unwrap()
    }

    /// Reads names and contents back, with nothing but the standard's offsets.
    fn read(image: &[u8]) -> (String, Vec<(String, String, Vec<u8>)>) {
        let volume = &image[16 * SECTOR..];
        assert_eq!((&volume[..7], &image[17 * SECTOR..][..6]), (&b"\x01CD001\x01"[..], &b"\xffCD001"[..]));
        assert_eq!(le(&volume[80..]) * SECTOR, image.len());
        let label = std::str::from_utf8(&volume[40..72]).unwrap().trim_end().to_owned();
        let directory = &image[le(&volume[158..]) * SECTOR..][..le(&volume[166..])];
        let mut files = Vec::new();
        let mut at = 0;
        while directory[at] != 0 {
            let record = &directory[at..at + usize::from(directory[at])];
            for both in [2, 10] {
                let big = u32::from_be_bytes(record[both + 4..both + 8].try_into().unwrap());
                assert_eq!(le(&record[both..]), usize::try_from(big).unwrap());
            }
            let id_len = usize::from(record[32]);
            let id = &record[33..33 + id_len];
            let mut name = String::new();
            let mut rest = &record[(33 + id_len).next_multiple_of(2)..];
            while rest.len() >= 4 {
                let (one, next) = rest.split_at(usize::from(rest[2]));
                if one.starts_with(b"NM") {
                    name = std::str::from_utf8(&one[5..]).unwrap().to_owned();
                }
                rest = next;
            }
            if id_len > 1 {
                let content = &image[le(&record[2..]) * SECTOR..][..le(&record[10..])];
                files.push((String::from_utf8(id.to_vec()).unwrap(), name, content.to_vec()));
            }
            at += record.len();
        }
        (label, files)
    }

    #[test]
    fn what_is_written_is_read() {
        let long = vec![7; 5000];
        let files = [
            IsoFile { short: "A", name: "a-b", content: b"first" },
            IsoFile { short: "EMPTY", name: "empty", content: b"" },
            IsoFile { short: "LONG_1", name: "a long-name.txt", content: &long },
        ];
        let (label, read) = read(&image("cidata", &files));
        let expected: Vec<_> = files
            .iter()
            .map(|file| (format!("{}.;1", file.short), file.name.to_owned(), file.content.to_vec()))
            .collect();
        assert_eq!((label.as_str(), read), ("cidata", expected));
    }
}
