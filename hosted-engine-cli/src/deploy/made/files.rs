//! Files, directories and links.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Undo, Undone};
use crate::deploy::{DeployError, World};

/// A directory that was not there before. It goes when nothing is left in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeDirectory {
    /// Where.
    pub path: PathBuf,
}

/// A file that was not there before, written at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeFile {
    /// Where.
    pub path: PathBuf,
    /// What was written; another content is somebody's work and stays. `None` for a file that the product goes on to
    /// change (ha.conf, logs), which goes whatever is in it.
    pub content: Option<String>,
}

/// A text file that was there before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedFile {
    /// Where.
    pub path: PathBuf,
    /// Its content before.
    pub before: String,
    /// Its content after.
    pub after: String,
}

/// A symbolic link that was not there before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeLink {
    /// Where.
    pub path: PathBuf,
    /// Where it leads.
    pub target: PathBuf,
}

fn absent_or(error: std::io::Error, action: &'static str, path: &Path) -> Result<Undone, DeployError> {
    if error.kind() == ErrorKind::NotFound {
        Ok(Undone::Absent)
    } else {
        Err(DeployError::io(action, path)(error))
    }
}

impl Undo for MadeDirectory {
    fn describe(&self) -> String {
        format!("directory {}", self.path.display())
    }

    fn describe_undo(&self) -> String {
        "removed when it is empty".to_owned()
    }

    fn undo(&self, _: &World<'_>) -> Result<Undone, DeployError> {
        match fs::remove_dir(&self.path) {
            Ok(()) => Ok(Undone::TakenBack),
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
                Ok(Undone::LeftAlone("something else is in it".to_owned()))
            }
            Err(error) => absent_or(error, "remove the directory", &self.path),
        }
    }
}

impl MadeFile {
    /// Takes it back when it is still what was written.
    ///
    /// # Errors
    /// Of the file system.
    pub fn take_back(&self) -> Result<Undone, DeployError> {
        ha_config::atomic::remove_leftovers(&self.path)?;
        if let Some(content) = &self.content {
            match fs::read(&self.path) {
                Ok(now) if now == content.as_bytes() => {}
                Ok(_) => return Ok(Undone::LeftAlone("somebody changed it".to_owned())),
                Err(error) => return absent_or(error, "read", &self.path),
            }
        }
        match fs::remove_file(&self.path) {
            Ok(()) => Ok(Undone::TakenBack),
            Err(error) => absent_or(error, "remove", &self.path),
        }
    }
}

impl Undo for MadeFile {
    fn describe(&self) -> String {
        format!("file {}", self.path.display())
    }

    fn describe_undo(&self) -> String {
        match self.content {
            Some(_) => "removed when it is as it was written".to_owned(),
            None => "removed".to_owned(),
        }
    }

    fn undo(&self, _: &World<'_>) -> Result<Undone, DeployError> {
        self.take_back()
    }
}

impl ChangedFile {
    /// Takes it back when it is still what was written.
    ///
    /// # Errors
    /// Of the file system.
    pub fn take_back(&self) -> Result<Undone, DeployError> {
        ha_config::atomic::remove_leftovers(&self.path)?;
        match fs::read_to_string(&self.path) {
            Ok(now) if now == self.before => Ok(Undone::Absent),
            Ok(now) if now == self.after => {
                ha_config::atomic::write(
                    &self.path,
                    self.before.as_bytes(),
                    ha_config::atomic::Mode::KeepOr644,
                )?;
                Ok(Undone::TakenBack)
            }
            Ok(_) => Ok(Undone::LeftAlone("somebody changed it since".to_owned())),
            Err(error) => absent_or(error, "read", &self.path),
        }
    }
}

impl Undo for ChangedFile {
    fn describe(&self) -> String {
        format!("changes in {}", self.path.display())
    }

    fn describe_undo(&self) -> String {
        "its former text is written back when nobody changed it since".to_owned()
    }

    fn undo(&self, _: &World<'_>) -> Result<Undone, DeployError> {
        self.take_back()
    }
}

impl Undo for MadeLink {
    fn describe(&self) -> String {
        format!("link {}", self.path.display())
    }

    fn describe_undo(&self) -> String {
        format!("removed when it leads to {}", self.target.display())
    }

    fn undo(&self, _: &World<'_>) -> Result<Undone, DeployError> {
        match fs::read_link(&self.path) {
            Ok(target) if target == self.target => match fs::remove_file(&self.path) {
                Ok(()) => Ok(Undone::TakenBack),
                Err(error) => absent_or(error, "remove", &self.path),
            },
            Ok(_) => Ok(Undone::LeftAlone("it leads somewhere else".to_owned())),
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                Ok(Undone::LeftAlone("it is no link any more".to_owned()))
            }
            Err(error) => absent_or(error, "read the link", &self.path),
        }
    }
}
