//! Archives with a disk and its description: OVA files, and the gzipped appliances that oVirt publishes.
//!
//! ```text
//!  tar, or tar in gzip
//!  ├─ …/<uuid>.ovf, vm.ovf      the description: which file is the disk, memory, processors
//!  ├─ images/<image>/<volume>   the disk: raw (perhaps with holes) or qcow2
//!  └─ *.mf                      checksums of the others, where there is one
//! ```
//!
//! Nothing is unpacked to names out of the archive.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use ovf_store::EngineVm;
use ovf_store::xml::{Element, MAX_BYTES, Namespace};
use tar::EntryType;

use super::checksum::Sum;
use super::content::{self, Content, HEAD_BYTES};
use super::{Proposal, refused};
use crate::deploy::DeployError;

/// Smaller files are no disks.
const LEAST_DISK: u64 = 1 << 20;
/// Longest manifest that is read.
const MANIFEST_LIMIT: u64 = 1 << 20;

/// Around the tar archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::deploy::vm) enum Packing {
    Plain,
    Gzip,
}

/// The disk in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::deploy::vm) struct Member {
    /// Its name there.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its place in the file when it lies there in one piece as it is.
    pub offset: Option<u64>,
    /// It is a qcow2, else raw.
    pub is_qcow2: bool,
    /// Bytes of the disk as the VM sees it.
    pub virtual_bytes: u64,
}

/// An archive that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::deploy::vm) struct Archive {
    pub packing: Packing,
    pub disk: Member,
    pub proposal: Proposal,
}

/// A file of the archive, as far as it was looked at.
struct Seen {
    name: String,
    bytes: u64,
    offset: Option<u64>,
    head: Vec<u8>,
}

/// What the description says.
struct Description {
    disk: String,
    proposal: Proposal,
}

impl Archive {
    /// Reads it as far as its description and the beginning of its disk.
    pub fn read(path: &Path, packing: Packing) -> Result<Self, DeployError> {
        let mut description = None;
        let mut seen = Vec::new();
        each(path, packing, &mut |entry| {
            if entry.has_ending("ovf") && description.is_none() {
                description = Some(describe(&entry.text(path, MAX_BYTES as u64)?, path)?);
            } else if entry.bytes >= LEAST_DISK {
                let head = entry.head(path)?;
                seen.push(Seen { name: entry.name.clone(), bytes: entry.bytes, offset: entry.offset, head });
            }
            let is_complete = description
                .as_ref()
                .is_some_and(|description| seen.iter().any(|file| is_file(&file.name, &description.disk)));
            Ok(if is_complete { Next::Stop } else { Next::Go })
        })?;
        let description = description.ok_or_else(|| {
            refused(
                path,
                "there is no description (*.ovf) in the archive; unpack it and name the disk image in it",
            )
        })?;
        let disk = seen.into_iter().find(|file| is_file(&file.name, &description.disk)).ok_or_else(|| {
            refused(
                path,
                &format!(
                    "its description names the disk {:?}, which is not in the archive; copy it here again",
                    description.disk
                ),
            )
        })?;
        Ok(Self { packing, disk: member(disk, path)?, proposal: description.proposal })
    }

    /// Reads all of it: that it is complete, and that every file has the checksum that a manifest in it gives. `progress`
    /// is told bytes done. Gives the manifest's name.
    pub fn verify(&self, path: &Path, progress: &mut dyn FnMut(u64)) -> Result<Option<String>, DeployError> {
        let mut manifest = None;
        let mut sums: BTreeMap<String, [String; 3]> = BTreeMap::new();
        each(path, self.packing, &mut |entry| {
            if entry.has_ending("mf") {
                manifest = Some((entry.name.clone(), entry.text(path, MANIFEST_LIMIT)?));
            } else {
                let name = entry.name.clone();
                sums.insert(name, entry.sums(path, progress)?);
            }
            Ok(Next::Go)
        })?;
        let Some((name, text)) = manifest else { return Ok(None) };
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let wrong = |why: &str| {
                refused(path, &format!("its manifest {name} {why}: {line:?}; copy it here again"))
            };
            let (kind, of, wanted) =
                manifest_line(line).ok_or_else(|| wrong("has a line of no known form"))?;
            let place = ["SHA1", "SHA256", "SHA512"]
                .iter()
                .position(|known| *known == kind)
                .ok_or_else(|| wrong("uses an unknown kind of checksum"))?;
            let found = sums.iter().find(|(file, _)| is_file(file, of)).map(|(_, sums)| &sums[place]);
            match found {
                None => return Err(wrong("names a file that is not in the archive")),
                Some(found) if *found != wanted.to_ascii_lowercase() => {
                    return Err(wrong(&format!("gives {of} another checksum than its own, {found}")));
                }
                Some(_) => {}
            }
        }
        Ok(Some(name))
    }

    /// Gives `act` the disk's bytes, holes as zeros.
    pub fn with_disk<T>(
        &self,
        path: &Path,
        act: impl FnOnce(&mut dyn Read) -> Result<T, DeployError>,
    ) -> Result<T, DeployError> {
        let mut act = Some(act);
        let mut result = None;
        each(path, self.packing, &mut |entry| {
            if entry.name == self.disk.name
                && let Some(act) = act.take()
            {
                result = Some(act(entry.content)?);
                return Ok(Next::Stop);
            }
            Ok(Next::Go)
        })?;
        result.ok_or_else(|| refused(path, &format!("its disk {:?} is not in it any more", self.disk.name)))
    }
}

fn manifest_line(line: &str) -> Option<(String, &str, &str)> {
    // `SHA256(disk.img)= 0123…`
    let (head, sum) = line.rsplit_once('=')?;
    let (kind, rest) = head.split_once('(')?;
    let name = rest.trim_end().strip_suffix(')')?;
    Some((kind.trim().to_ascii_uppercase(), name, sum.trim()))
}

/// Whether the archive's `name` is the file that a description calls `wanted`, which may leave directories out.
fn is_file(name: &str, wanted: &str) -> bool {
    name == wanted || name.strip_suffix(wanted).is_some_and(|before| before.ends_with('/'))
}

fn member(file: Seen, path: &Path) -> Result<Member, DeployError> {
    let name = &file.name;
    let cannot = |why: String| refused(path, &format!("the disk {name:?} in it {why}"));
    let (is_qcow2, virtual_bytes) = match content::of(&file.head) {
        Content::Qcow2 => {
            // Offset 24 of the header: the disk's size, big endian.
            let size = file.head.get(24..32).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
            (
                true,
                size.and_then(content::whole_sectors)
                    .ok_or_else(|| cannot("has a damaged header".to_owned()))?,
            )
        }
        Content::Raw { .. } => {
            let bytes = content::whole_sectors(file.bytes)
                .ok_or_else(|| cannot(format!("has {} bytes, no whole number of sectors", file.bytes)))?;
            (false, bytes)
        }
        Content::Tar | Content::Gzip => {
            return Err(cannot("is packed once more; unpack the archive and name the disk image".to_owned()));
        }
        Content::Unusable { what, advice } => {
            return Err(cannot(format!("is {what}; unpack the archive with tar and {advice}")));
        }
    };
    Ok(Member { bytes: file.bytes, offset: file.offset, is_qcow2, virtual_bytes, name: file.name })
}

/// Reads an OVF: the engine's own dialect for all of it, any for the disk.
fn describe(text: &str, path: &Path) -> Result<Description, DeployError> {
    let root = Element::parse(text)
        .map_err(|error| refused(path, &format!("the description (OVF) in it cannot be read: {error}")))?;
    let value = |element: &Element, name: &str| {
        let found = element.attribute(Namespace::Ovf, name).or(element.attribute(Namespace::None, name));
        found.map(ToOwned::to_owned)
    };
    let disks: Vec<_> = root
        .descendants()
        .filter(|element| element.name == "Disk" && value(element, "fileRef").is_some())
        .collect();
    let disk = match disks.as_slice() {
        [] => return Err(refused(path, "the description (OVF) in it names no disk")),
        [disk] => *disk,
        [..] => {
            return Err(refused(
                path,
                &format!(
                    "it has {} disks, and an engine VM has one; name an image with one disk",
                    disks.len()
                ),
            ));
        }
    };
    let reference = value(disk, "fileRef").unwrap_or_default();
    // By the id of a <File>, else the reference is the file's name itself.
    let href = root
        .descendants()
        .filter(|element| element.name == "File")
        .find(|file| value(file, "id").as_deref() == Some(&reference))
        .and_then(|file| value(file, "href"))
        .unwrap_or(reference);
    let proposal = EngineVm::parse(text).map_or_else(
        |_| Proposal::default(),
        |vm| {
            let vcpus = vm.cpu.sockets.saturating_mul(vm.cpu.cores).saturating_mul(vm.cpu.threads);
            Proposal { memory_mb: Some(vm.memory_mib), vcpus: Some(vcpus), disk_gib: 0 }
        },
    );
    Ok(Description { disk: href, proposal })
}

enum Next {
    Go,
    Stop,
}

/// A file of the archive while it is read.
struct Open<'a> {
    name: String,
    bytes: u64,
    offset: Option<u64>,
    content: &'a mut dyn Read,
}

impl Open<'_> {
    fn has_ending(&self, ending: &str) -> bool {
        Path::new(&self.name).extension().is_some_and(|found| found.eq_ignore_ascii_case(ending))
    }

    fn text(&mut self, path: &Path, limit: u64) -> Result<String, DeployError> {
        let mut bytes = Vec::new();
        (&mut *self.content).take(limit).read_to_end(&mut bytes).map_err(damaged(path))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn head(&mut self, path: &Path) -> Result<Vec<u8>, DeployError> {
        let mut head = Vec::new();
        (&mut *self.content).take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(damaged(path))?;
        Ok(head)
    }

    /// By SHA-1, SHA-256, SHA-512.
    fn sums(&mut self, path: &Path, progress: &mut dyn FnMut(u64)) -> Result<[String; 3], DeployError> {
        let mut sums = ["SHA1", "SHA256", "SHA512"].map(Sum::named);
        let mut chunk = vec![0; 1 << 20];
        let mut done = 0;
        loop {
            let got = self.content.read(&mut chunk).map_err(damaged(path))?;
            if got == 0 {
                break;
            }
            for sum in sums.iter_mut().flatten() {
                sum.add(&chunk[..got]);
            }
            done += got as u64;
            if self.bytes >= LEAST_DISK {
                progress(done);
            }
        }
        if done != self.bytes {
            return Err(damaged(path)(std::io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(sums.map(|sum| sum.map(Sum::hex).unwrap_or_default()))
    }
}

fn damaged(path: &Path) -> impl FnOnce(std::io::Error) -> DeployError {
    move |error| refused(path, &format!("the archive is damaged or was cut ({error}); copy it here again"))
}

/// Calls `act` for every regular file.
fn each(
    path: &Path,
    packing: Packing,
    act: &mut dyn FnMut(&mut Open<'_>) -> Result<Next, DeployError>,
) -> Result<(), DeployError> {
    let file = File::open(path).map_err(DeployError::io("open the disk image", path))?;
    match packing {
        Packing::Plain => {
            let mut archive = tar::Archive::new(BufReader::new(file));
            entries(archive.entries_with_seek(), path, packing, act)
        }
        Packing::Gzip => {
            let mut unpacked = MultiGzDecoder::new(BufReader::with_capacity(1 << 18, file));
            // A gzipped something that is no archive is told apart before tar's own words confuse.
            let mut first = vec![0; 512];
            unpacked.read_exact(&mut first).map_err(damaged(path))?;
            if content::of(&first) != Content::Tar {
                return Err(refused(
                    path,
                    "it is compressed with gzip and no archive is in it; unpack it with: gunzip -k IMAGE",
                ));
            }
            let mut archive = tar::Archive::new(Cursor::new(first).chain(unpacked));
            entries(archive.entries(), path, packing, act)
        }
    }
}

fn entries<R: Read>(
    entries: std::io::Result<tar::Entries<'_, R>>,
    path: &Path,
    packing: Packing,
    act: &mut dyn FnMut(&mut Open<'_>) -> Result<Next, DeployError>,
) -> Result<(), DeployError> {
    for entry in entries.map_err(damaged(path))? {
        let mut entry = entry.map_err(damaged(path))?;
        let kind = entry.header().entry_type();
        if !matches!(kind, EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse) {
            continue;
        }
        let extensions = entry.pax_extensions().map_err(damaged(path))?;
        let is_pax_sparse = extensions.is_some_and(|mut all| {
            all.any(|one| one.is_ok_and(|one| one.key_bytes().starts_with(b"GNU.sparse.")))
        });
        if is_pax_sparse {
            return Err(refused(
                path,
                "its disk is kept in a form that only GNU tar reads; unpack it with tar -xSf and name the disk image",
            ));
        }
        let name = entry.path().map_err(damaged(path))?.components().collect::<PathBuf>();
        let name = name.strip_prefix(".").unwrap_or(&name).to_string_lossy().into_owned();
        let in_place = packing == Packing::Plain && kind != EntryType::GNUSparse;
        let bytes = entry.size();
        let offset = in_place.then(|| entry.raw_file_position());
        match act(&mut Open { name, bytes, offset, content: &mut entry })? {
            Next::Go => {}
            Next::Stop => return Ok(()),
        }
    }
    Ok(())
}
