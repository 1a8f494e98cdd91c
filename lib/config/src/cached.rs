//! This host's copies of the cluster's hosted-engine.conf and broker.conf.

use std::fs;

use crate::atomic::{self, Mode};
use crate::conf_archive::Archive;
use crate::error::{Result, io};
use crate::key_value::KeyValueFile;
use crate::paths::Paths;
use crate::secret::is_secret_key;
use crate::shared_config::ConfigKind;

/// Brings the copies up to date with `archive`. True when one was written. A file that the archive lacks, or has
/// empty, leaves its copy alone; otherwise the copy is what the archive has, usable or not, since whoever reads it
/// says what is wrong with it.
pub(crate) fn store(paths: &Paths, archive: &Archive) -> Result<bool> {
    let mut changed = false;
    for kind in ConfigKind::ALL {
        let Some(content) = kind.member().and_then(|name| archive.content(name)) else { continue };
        let path = kind.path(paths);
        if content.is_empty() || fs::read(&path).is_ok_and(|old| old == content) {
            continue;
        }
        let directory = paths.state_dir();
        fs::create_dir_all(&directory).map_err(io("make the directory", &directory))?;
        atomic::write(&path, content, mode(kind, content))?;
        changed = true;
    }
    Ok(changed)
}

/// A file that holds a password is closed to others.
fn mode(kind: ConfigKind, content: &[u8]) -> Mode {
    let file = KeyValueFile::parse(kind.path(&Paths::default()), &String::from_utf8_lossy(content));
    let secret = file.entries().any(|(_, key, value)| is_secret_key(key) && !value.is_empty());
    if secret { Mode::Private } else { Mode::KeepOr644 }
}
