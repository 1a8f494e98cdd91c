//! The links `ha_agent/hosted-engine.metadata` and `ha_agent/hosted-engine.lockspace` of a storage domain, which lead
//! to the volumes. Every program that opens the metadata goes through them.
//!
//! On file storage the links are on the shared storage itself, for all hosts at once; on block storage they are this
//! host's. A link that leads to the right volume is left alone. One that leads nowhere, or elsewhere in the same
//! storage domain, is replaced in one step. Anything else is somebody's data and stays: the operator must look.
//!
//! The calls wait for storage as long as it hangs: make them on a thread that nobody waits for.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// Nothing: it led to the volume already.
    Kept,
    /// There was none.
    New,
    /// It led nowhere, or to another volume of the domain.
    Replaced,
}

/// Why a link does not lead to its volume.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The volume is not there.
    #[error(
        "the prepared volume {} is not there ({source}): VDSM said that it had prepared it; is the storage still \
         connected?",
        volume.display()
    )]
    NoVolume {
        /// Where VDSM said that it is.
        volume: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The domain's directory is not there: nothing may be made below an empty mount point.
    #[error("{} is not there: the storage domain is not mounted, or under another name", .0.display())]
    NoDomain(PathBuf),
    /// Something that is not a link.
    #[error(
        "{} is {what}, not a link to a volume, and is left alone: if nobody needs it any more (deployments before \
         oVirt 3.4 kept the data there), move it away",
        link.display()
    )]
    Occupied {
        /// The link's place.
        link: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// A link to something outside of the storage domain.
    #[error(
        "{} leads to {}, which is there and does not belong to this storage domain; it is left alone: remove the \
         link if it is not meant",
        link.display(),
        target.display()
    )]
    Foreign {
        /// The link's place.
        link: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// It was made, and leads elsewhere a moment later.
    #[error("{} was just made and does not lead to {}: another program changes it too", link.display(), volume.display())]
    Raced {
        /// The link's place.
        link: PathBuf,
        /// Where it should lead.
        volume: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

/// One link and where it shall lead.
#[derive(Debug, Clone, Copy)]
pub struct Link<'a> {
    /// The storage domain's directory; it must exist. Its last component is the domain's uuid.
    pub domain: &'a Path,
    /// The link's name in `ha_agent`.
    pub name: &'a str,
    /// The volume as prepared.
    pub volume: &'a Path,
    /// The volume as seen from `ha_agent` when the link is shared with other hosts: relative, so that it does not
    /// depend on what is prepared there. `None` where the link is this host's own.
    pub shared_target: Option<&'a Path>,
    /// Tells this host's unfinished link from those of others.
    pub host: u16,
}

impl Link<'_> {
    fn directory(&self) -> PathBuf {
        self.domain.join("ha_agent")
    }

    /// Makes the link lead to its volume.
    ///
    /// # Errors
    /// See [`LinkError`]; nothing that is not a link was touched.
    pub fn ensure(&self) -> Result<Made, LinkError> {
        let directory = self.directory();
        let link = directory.join(self.name);
        let no_volume = |source| LinkError::NoVolume { volume: self.volume.to_owned(), source };
        let volume = Identity::of(&fs::metadata(self.volume).map_err(no_volume)?);
        self.make_directory(&directory)?;
        let made = match self.look(&link, volume)? {
            Found::Right => return Ok(Made::Kept),
            Found::Nothing => Made::New,
            Found::Ours => Made::Replaced,
        };
        let target = self.target(&directory, volume);
        let unfinished = directory.join(format!(".{}.host-{}", self.name, self.host));
        put(target, &unfinished, &link)?;
        match fs::metadata(&link) {
            Ok(found) if Identity::of(&found) == volume => Ok(made),
            Ok(_) | Err(_) => Err(LinkError::Raced { link, volume: self.volume.to_owned() }),
        }
    }

    /// The shared target where it leads to the same volume, else the prepared one.
    fn target(&self, directory: &Path, volume: Identity) -> &Path {
        let shared = self.shared_target.filter(|target| {
            fs::metadata(directory.join(target)).is_ok_and(|found| Identity::of(&found) == volume)
        });
        shared.unwrap_or(self.volume)
    }

    fn make_directory(&self, directory: &Path) -> Result<(), LinkError> {
        let made = match fs::create_dir(directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(LinkError::NoDomain(self.domain.to_owned()));
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            other => other,
        };
        made.map_err(|source| LinkError::Io { action: "create", path: directory.to_owned(), source })
    }

    fn look(&self, link: &Path, volume: Identity) -> Result<Found, LinkError> {
        let failed = |action| move |source| LinkError::Io { action, path: link.to_owned(), source };
        let itself = match fs::symlink_metadata(link) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
            other => other.map_err(failed("look at"))?,
        };
        if !itself.is_symlink() {
            let what = if itself.is_dir() { "a directory" } else { "a file" };
            return Err(LinkError::Occupied { link: link.to_owned(), what });
        }
        match fs::metadata(link) {
            Ok(found) if Identity::of(&found) == volume => Ok(Found::Right),
            Ok(_) => {
                let target = fs::read_link(link).map_err(failed("read the link"))?;
                if self.is_in_domain(&target) {
                    return Ok(Found::Ours);
                }
                Err(LinkError::Foreign { link: link.to_owned(), target })
            }
            Err(error) if is_dangling(&error) => Ok(Found::Ours),
            Err(source) => Err(failed("follow")(source)),
        }
    }

    /// Whether a link's target is in this storage domain, by its words: below `../`, or below a directory that is
    /// named after the domain.
    fn is_in_domain(&self, target: &Path) -> bool {
        if target.is_relative() {
            let mut parts = target.components();
            let below = parts.next() == Some(Component::ParentDir);
            return below && parts.all(|part| matches!(part, Component::Normal(_)));
        }
        let Some(uuid) = self.domain.file_name() else { return false };
        target.components().any(|part| part == Component::Normal(uuid))
    }
}

enum Found {
    Right,
    Nothing,
    Ours,
}

/// Which file or device a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Identity {
    /// A device, whatever node stands for it.
    Device(u64),
    File(u64, u64),
}

impl Identity {
    fn of(found: &fs::Metadata) -> Self {
        if found.file_type().is_block_device() {
            Self::Device(found.rdev())
        } else {
            Self::File(found.dev(), found.ino())
        }
    }
}

fn is_dangling(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO | Errno::NODEV))
}

/// Puts a new link in `link`'s place in one step, by way of `unfinished`.
fn put(target: &Path, unfinished: &Path, link: &Path) -> Result<(), LinkError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| LinkError::Io { action, path, source }
    };
    match fs::remove_file(unfinished) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        // Left by an earlier try of this host that did not come to its end.
        other => other.map_err(failed("remove", unfinished))?,
    }
    symlink(target, unfinished).map_err(failed("create", unfinished))?;
    fs::rename(unfinished, link).map_err(failed("replace", link))
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
