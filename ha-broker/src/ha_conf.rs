//! Changes of this host's ha.conf: an operator who sets or ends local maintenance need not wait for the agent's next loop,
//! whichever program writes the file.
//!
//! The folder is watched, since writers put a new file in the old one's place. Where it cannot be watched, the agent reads
//! the file in its next loop, as ever.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::returned::registered;

/// Bytes for events; one with the longest file name takes 272.
const EVENTS: usize = 1024;

/// Calls `changed` after each change of the file at `path`. Ends, with a line in the log, only when it cannot be watched.
pub async fn follow(path: &Path, changed: impl Fn()) {
    let error = match watch(path) {
        Ok(events) => loop {
            match next(&events, path).await {
                Ok(true) => {
                    tracing::debug!("{} changed", path.display());
                    changed();
                }
                Ok(false) => {}
                Err(error) => break error,
            }
        },
        Err(error) => error,
    };
    tracing::info!("{} is not watched, the agent reads it in its next loop: {error}", path.display());
}

fn watch(path: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let folder = path.parent().ok_or(Errno::NOENT)?;
    let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    inotify::add_watch(
        &events,
        folder,
        WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE | WatchFlags::ONLYDIR,
    )?;
    registered(events, Interest::READABLE)
}

/// Whether what happened is a change of the file.
async fn next(events: &AsyncFd<OwnedFd>, path: &Path) -> io::Result<bool> {
    let mut ready = events.readable().await?;
    let mut buffer = [MaybeUninit::uninit(); EVENTS];
    let mut reader = Reader::new(events.get_ref(), &mut buffer);
    let mut is_change = false;
    loop {
        match reader.next() {
            Ok(event) if event.events().contains(ReadFlags::IGNORED) => {
                return Err(io::Error::new(io::ErrorKind::NotFound, "its folder is gone"));
            }
            Ok(event) => {
                let name = event.file_name().map(std::ffi::CStr::to_bytes);
                let is_ours = path.file_name().map(std::ffi::OsStr::as_encoded_bytes) == name;
                // More happened than could be kept.
                is_change |= is_ours || event.events().contains(ReadFlags::QUEUE_OVERFLOW);
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                ready.clear_ready();
                return Ok(is_change);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wake::WakeCounter;

    const LONG: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_file_that_is_written_or_put_in_its_place_is_a_change_and_another_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ha.conf");
        let wake = WakeCounter::default();
        let bump = wake.clone();
        let followed = path.clone();
        let task = tokio::spawn(async move { follow(&followed, || bump.bump()).await });
        // It listens once a change is noticed.
        let mut known = 0;
        while known == 0 {
            std::fs::write(&path, "local_maintenance=False\n").unwrap();
            known = wake.wait(0, Duration::from_millis(10)).await;
        }
        std::fs::write(folder.path().join("other"), "x").unwrap();
        let settled = wake.wait(known, Duration::from_millis(50)).await;
        let new = folder.path().join("ha.conf.new");
        std::fs::write(&new, "local_maintenance=True\n").unwrap();
        assert_eq!(
            wake.wait(settled, Duration::from_millis(50)).await,
            settled,
            "only the file itself counts"
        );
        std::fs::rename(&new, &path).unwrap();
        assert!(wake.wait(settled, LONG).await > settled);
        folder.close().unwrap();
        tokio::time::timeout(LONG, task).await.expect("it ends with the folder").unwrap();
    }

    #[tokio::test]
    async fn what_cannot_be_watched_is_left() {
        let nowhere = tempfile::tempdir().unwrap().path().join("gone/ha.conf");
        tokio::time::timeout(LONG, follow(&nowhere, || unreachable!("nothing is there"))).await.unwrap();
    }
}
