//! Mending the `hosted-engine` lockspace: only sectors that are provably bad are written, one atomic write for each.
//!
//! A bad sector belongs to nobody: no lock manager takes it or goes on renewing it. A host that lost its lease to it may
//! live all the same, and is left alone; so is what changes while one looks. The good sectors of other hosts are not
//! touched, and their leases go on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use ha_config::{HaToml, HostedEngineConf};
use metadata_format::{HostId, MAX_HOST_ID};
use sanlock_client::{BadRecord, DeltaRecord, GridSize, LockspaceName};

use super::Stop;
use super::liveness::{Snapshot, patience, watch};
use super::lockspace::{area, keep_copy};
use crate::delta_lease;
use crate::setup::{LOCKSPACE_NAME, Leases, Report};
use crate::shared_file::SharedFile;

/// What is in one host id's sector.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sector {
    /// A host has the id, or had it when it died.
    Held(DeltaRecord),
    /// Given up in order by the host that had it last.
    GivenUp(DeltaRecord),
    /// Nobody ever took the id.
    Unused,
    Bad(BadRecord),
}

/// A whole lockspace as it was read at one moment.
struct Sectors {
    grid: GridSize,
    bytes: Vec<u8>,
    all: BTreeMap<HostId, Sector>,
}

impl Sectors {
    fn read(file: &SharedFile, name: &LockspaceName) -> Result<Self, Stop> {
        let Some(grid) = delta_lease::layout(file)? else {
            return Err(Stop::refused(
                "Refused: no sector of the lockspace has a record, so nothing tells its layout. Write it anew as a whole: \
                 --reinitialize-lockspace --all",
            ));
        };
        Ok(Self::parse(grid, area(file, grid)?, name))
    }

    fn parse(grid: GridSize, bytes: Vec<u8>, name: &LockspaceName) -> Self {
        let ids = (1..=MAX_HOST_ID).filter(|id| u32::from(*id) <= grid.max_hosts());
        let ids = ids.filter_map(|id| HostId::new(id).ok());
        let sectors = bytes.chunks_exact(grid.sector_bytes() as usize);
        let all = ids.zip(sectors).map(|(id, sector)| {
            let found = match DeltaRecord::check(sector, name, u64::from(id.get()), grid) {
                Ok(record) if record.is_taken() => Sector::Held(record),
                Ok(record) if record.generation == 0 => Sector::Unused,
                Ok(record) => Sector::GivenUp(record),
                Err(bad) => Sector::Bad(bad),
            };
            (id, found)
        });
        let all = all.collect();
        Self { grid, bytes, all }
    }

    fn offset(&self, id: HostId) -> u64 {
        u64::from(self.grid.sector_bytes()) * u64::from(id.get() - 1)
    }

    fn raw(&self, id: HostId) -> &[u8] {
        let size = self.grid.sector_bytes() as usize;
        self.bytes.chunks_exact(size).nth(usize::from(id.get()) - 1).unwrap_or_default()
    }

    /// The ids whose sectors are to be written.
    fn wanted(&self, with_unused: bool) -> BTreeSet<HostId> {
        let is_wanted = |sector: &Sector| match sector {
            Sector::Bad(_) => true,
            Sector::GivenUp(_) | Sector::Unused => with_unused,
            Sector::Held(_) => false,
        };
        self.all.iter().filter(|(_, sector)| is_wanted(sector)).map(|(id, _)| *id).collect()
    }

    /// A line for each id; ids beside each other of which the same is true share one.
    fn table(&self, later: &Self) -> String {
        let mut lines: Vec<(HostId, HostId, String)> = Vec::new();
        for (id, sector) in &self.all {
            let words = match (sector, later.all.get(id)) {
                (Sector::Held(before), Some(Sector::Held(after))) if before.renewed_until(after) => {
                    format!("good: held by {} and renewed meanwhile", after.owner)
                }
                (Sector::Held(record), _) => format!("good: held by {}", record.owner),
                (Sector::GivenUp(record), _) => format!("good: given up by {}", record.owner),
                (Sector::Unused, _) => "good: never taken".to_owned(),
                (Sector::Bad(why), _) => format!("BAD: {why}"),
            };
            match lines.last_mut() {
                Some((_, last, same)) if *same == words => *last = *id,
                _ => lines.push((*id, *id, words)),
            }
        }
        let mut text = "Host ids and what is in their sectors:".to_owned();
        for (first, last, words) in lines {
            let ids = if first == last { first.to_string() } else { format!("{first}-{last}") };
            // Writing to a String cannot fail.
            let _ = write!(text, "\n  {ids:>9}  {words}");
        }
        text
    }
}

/// Shows what is in the lockspace and writes anew what is bad, `with_unused` what nobody has, too.
pub(super) async fn mend(
    with_unused: bool,
    conf: &HostedEngineConf,
    toml: &HaToml,
    report: &dyn Report,
) -> Result<(), Stop> {
    let paths = conf.paths();
    if matches!(Leases::new(paths, toml), Leases::File) {
        return Err(Stop::refused(
            "Refused: the hosts of this cluster use file locks (lease.adapter in ha.toml), and keep no leases in the \
             lockspace that could be mended",
        ));
    }
    let io_timeout = u8::try_from(toml.lease.io_timeout)
        .map_err(|_| Stop::refused("lease.io_timeout in ha.toml is greater than 255 s"))?;
    let name = LockspaceName::new(LOCKSPACE_NAME)?;
    let path = conf.lockspace_path()?;
    let before = Sectors::read(&SharedFile::open(&path, false)?, &name)?;
    let wanted = before.wanted(with_unused);
    if wanted.is_empty() {
        report.info(&before.table(&before));
        report.info("No sector is bad: nothing was written");
        return Ok(());
    }
    let first = Snapshot::read(conf)?;
    let wait = patience(toml, &first);
    let (live, last) = watch(conf, first, &wanted, None, wait, report).await?;

    let file = SharedFile::open(&path, true)?;
    let after = Sectors::read(&file, &name)?;
    report.info(&before.table(&after));
    let left: BTreeMap<HostId, &str> = wanted
        .iter()
        .filter_map(|id| {
            let changes = before.raw(*id) != after.raw(*id);
            Some((*id, live.get(id).copied().or_else(|| changes.then_some("its sector changes"))?))
        })
        .collect();
    keep_copy(paths, &after.bytes, report)?;
    let sector = DeltaRecord::unused(&name, after.grid, io_timeout);
    for id in wanted.iter().filter(|id| !left.contains_key(id)) {
        file.write_sectors(after.offset(*id), &sector)?;
    }
    let written = wanted.len() - left.len();
    report.info(&format!("Wrote {written} of {} sectors anew; the others are as they were", after.all.len()));
    if left.is_empty() {
        return Ok(());
    }
    let signs: Vec<_> = left.iter().map(|(id, sign)| format!("{}: {sign}", last.name(*id))).collect();
    Err(Stop::refused(format!(
        "Not written, because their hosts are alive: {}. Stop the HA services there first; this cannot be forced",
        signs.join("; ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u16) -> HostId {
        HostId::new(number).unwrap()
    }

    #[test]
    fn the_table_tells_what_is_in_each_sector_and_only_bad_ones_are_wanted() {
        let name = LockspaceName::new(LOCKSPACE_NAME).unwrap();
        for grid in [GridSize::Sector512Align1M, GridSize::Sector4kAlign1M, GridSize::Sector4kAlign8M] {
            let size = grid.sector_bytes() as usize;
            let mut bytes = vec![0; usize::try_from(grid.align_bytes()).unwrap()];
            let sector = DeltaRecord::unused(&name, grid, 10);
            for place in bytes.chunks_exact_mut(size).take(grid.max_hosts() as usize) {
                place.copy_from_slice(&sector);
            }
            bytes[2 * size] = b'x';
            bytes[3 * size + 44] = 1;
            let sectors = Sectors::parse(grid, bytes, &name);
            assert_eq!(sectors.wanted(false), [id(3), id(4)].into());
            assert_eq!(sectors.wanted(true).len(), grid.max_hosts() as usize);
            assert_eq!(sectors.offset(id(3)), 2 * u64::from(grid.sector_bytes()));
            assert_eq!(sectors.raw(id(3))[0], b'x');
            let table = sectors.table(&sectors);
            let lines: Vec<&str> = table.lines().skip(1).map(str::trim).collect();
            assert_eq!(
                lines,
                [
                    "1-2  good: never taken",
                    "3  BAD: no record of a host id is there",
                    "4  BAD: its checksum is wrong",
                    &format!("5-{}  good: never taken", grid.max_hosts()),
                ]
            );
        }
    }
}
