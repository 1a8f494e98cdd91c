//! What a deployment did, so that it can go on or be undone after whatever ended it.
//!
//! One JSON value on each line, each line synced before what it announces is done:
//!
//! | line | says |
//! | --- | --- |
//! | `{"deploy":{…}}` | first line: version of the form, when, what is to be done |
//! | `{"begin":"storage-domain"}` | a step begins |
//! | `{"will":{"number":7,"made":{…}}}` | this will be made |
//! | `{"did":7}` | it was made |
//! | `{"end":"storage-domain"}` | the step is complete |
//! | `{"undoing":7}` | it will be taken back: its step is not complete any more, nor are later ones |
//! | `{"undone":{"number":7,"how":"taken-back"}}` | it was taken back, or stays and why |
//! | `{"over":"deployed"}` | nothing more follows, unless the host is taken out |
//! | `{"undeploy":{"at":…}}` | this host is taken out of the cluster: what was made on it is taken back |
//!
//! A last line without its end was cut by a crash and counts as not written. The file is locked while somebody works.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::made::{Made, Undo as _, Undone};
use super::{DeployError, Request, StepId};

/// Version of the form.
const FORM: u32 = 1;

/// How a deployment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// This host is deployed.
    Deployed,
    /// Everything was taken back.
    Undone,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Deploy { form: u32, at: i64, version: String, request: Request },
    Begin(StepId),
    Will { number: u32, made: Box<Made> },
    Did(u32),
    End(StepId),
    Undoing(u32),
    Undone { number: u32, how: Undone },
    Over(Outcome),
    Undeploy { at: i64 },
}

/// When a line is written: what stops a deployment can do so right before, or right after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// What the line announces, or says was done, is not written yet.
    Before,
    /// The line is on disk.
    After,
}

/// Is told of every line. An error stops the deployment there.
pub type Watcher = Box<dyn FnMut(Moment, &str) -> Result<(), DeployError> + Send>;

/// One thing that was made, or would have been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its number, from 0 in the order of making.
    pub number: u32,
    /// In which step.
    pub step: StepId,
    /// What.
    pub made: Made,
    /// Whether making it came to its end.
    pub is_done: bool,
    /// How undoing it ended; `None` while it was not tried, or failed.
    pub undone: Option<Undone>,
}

/// A journal as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Story {
    /// Seconds since 1970 of its beginning.
    pub at: i64,
    /// What was to be done.
    pub request: Request,
    /// Complete steps.
    pub ended: BTreeSet<StepId>,
    /// The step that was begun and did not end.
    pub cut: Option<StepId>,
    /// All things in the order of making.
    pub items: Vec<Item>,
    /// How it ended; `None`: it goes on, or was interrupted.
    pub outcome: Option<Outcome>,
    /// The deployment was complete, and this host is taken out of the cluster since then.
    pub is_undeploying: bool,
    /// Steps in the order in which they last began.
    begun: Vec<StepId>,
}

impl Story {
    fn new(at: i64, request: Request) -> Self {
        Self {
            at,
            request,
            ended: BTreeSet::new(),
            cut: None,
            items: Vec::new(),
            outcome: None,
            is_undeploying: false,
            begun: Vec::new(),
        }
    }

    /// What is still there, the last first.
    pub fn left(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().rev().filter(|item| item.undone.is_none())
    }

    /// Of what is still there, what belongs to steps that are not complete: it must go before they begin anew, unless they
    /// find a use for it.
    pub fn left_of_incomplete(&self) -> impl Iterator<Item = &Item> {
        self.left().filter(|item| !self.ended.contains(&item.step) && !item.made.outlives_a_cut())
    }

    /// Where something of a step is taken back, neither the step is complete any more nor what was done after it.
    fn reopen(&mut self, step: StepId) {
        if let Some(place) = self.begun.iter().position(|begun| *begun == step) {
            for later in &self.begun[place..] {
                self.ended.remove(later);
            }
        }
    }

    fn apply(&mut self, line: Line) -> Result<(), &'static str> {
        let number_is_known = |story: &mut Self, number: u32| -> Option<usize> {
            let index = usize::try_from(number).ok()?;
            (index < story.items.len()).then_some(index)
        };
        if let Line::Undeploy { .. } = line {
            if self.outcome != Some(Outcome::Deployed) {
                return Err("a host is taken out that was not deployed");
            }
            (self.outcome, self.is_undeploying) = (None, true);
            return Ok(());
        }
        match (self.outcome, &line) {
            (None, _) | (Some(Outcome::Deployed), Line::Over(Outcome::Undone)) => {}
            // It is no complete deployment any more.
            (Some(Outcome::Deployed), Line::Undoing(_)) => self.outcome = None,
            (Some(_), _) => return Err("something follows the end"),
        }
        match line {
            Line::Deploy { .. } | Line::Undeploy { .. } => return Err("a second beginning"),
            Line::Begin(step) => {
                self.begun.retain(|begun| *begun != step);
                self.begun.push(step);
                self.cut = Some(step);
            }
            Line::Will { number, made } => {
                let step = self.cut.ok_or("something is made outside of a step")?;
                if usize::try_from(number) != Ok(self.items.len()) {
                    return Err("the numbers do not follow each other");
                }
                self.items.push(Item { number, step, made: *made, is_done: false, undone: None });
            }
            Line::Did(number) => {
                let index = number_is_known(self, number).ok_or("an unknown number")?;
                self.items[index].is_done = true;
            }
            Line::End(step) => {
                if self.cut != Some(step) {
                    return Err("a step ends that was not begun");
                }
                self.cut = None;
                self.ended.insert(step);
            }
            Line::Undoing(number) => {
                let index = number_is_known(self, number).ok_or("an unknown number")?;
                self.reopen(self.items[index].step);
            }
            Line::Undone { number, how } => {
                let index = number_is_known(self, number).ok_or("an unknown number")?;
                self.items[index].undone = Some(how);
            }
            Line::Over(outcome) => self.outcome = Some(outcome),
        }
        Ok(())
    }
}

/// A journal that is being written.
pub struct Journal {
    file: File,
    path: PathBuf,
    story: Story,
    watcher: Option<Watcher>,
}

/// A program that is being started shares its starter's open files for a moment: closing alone would leave it the lock.
impl Drop for Journal {
    fn drop(&mut self) {
        // The lock goes with the process at the latest.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("path", &self.path)
            .field("story", &self.story)
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// Begins a new one. One whose deployment is over is replaced; it stays beside it as `….old`.
    ///
    /// # Errors
    /// When a deployment is under way or was interrupted, or the file cannot be written.
    pub fn begin(path: &Path, at: i64, request: Request) -> Result<Self, DeployError> {
        // Of two that begin at once, one looks at what the other wrote.
        let directory = path.parent().unwrap_or(Path::new("/"));
        let guard = File::open(directory).map_err(DeployError::io("open", directory))?;
        flock(&guard, FlockOperation::LockExclusive)
            .map_err(|error| DeployError::io("lock", directory)(error.into()))?;
        if let Some(journal) = Self::open(path)? {
            if journal.story.outcome.is_none() {
                return Err(DeployError::Refused(format!(
                    "a deployment of this host was begun and is not over ({}): go on with hosted-engine --deploy \
                     --resume, or take it back with hosted-engine --deploy --undo",
                    path.display()
                )));
            }
            let mut old = path.as_os_str().to_owned();
            old.push(".old");
            std::fs::rename(path, &old).map_err(DeployError::io("rename", path))?;
        } else if path.exists() {
            // Cut before its first line was whole: nothing was made.
            std::fs::remove_file(path).map_err(DeployError::io("remove the empty", path))?;
        }
        let file = OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(DeployError::io("create", path))?;
        lock(&file, path)?;
        ha_config::atomic::sync_directory_of(path)?;
        let story = Story::new(at, request.clone());
        let mut journal = Self { file, path: path.to_owned(), story, watcher: None };
        journal.append(&Line::Deploy {
            form: FORM,
            at,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            request,
        })?;
        Ok(journal)
    }

    /// Opens one to go on with it, or to undo it. `None` when there is none.
    ///
    /// # Errors
    /// When somebody works on it now, or it is damaged.
    pub fn open(path: &Path) -> Result<Option<Self>, DeployError> {
        let mut file = match OpenOptions::new().read(true).append(true).open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(DeployError::io("open", path))?,
        };
        lock(&file, path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(DeployError::io("read", path))?;
        let whole = whole_lines(&bytes);
        let Some(story) = parse(path, &bytes[..whole])? else { return Ok(None) };
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(DeployError::io("cut the torn end of", path))?;
            file.sync_all().map_err(DeployError::io("sync", path))?;
        }
        Ok(Some(Self { file, path: path.to_owned(), story, watcher: None }))
    }

    /// Whether somebody works on the deployment now.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn is_worked_on(path: &Path) -> Result<bool, DeployError> {
        match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(DeployError::io("open", path)(error)),
            Ok(file) => {
                let is_free = flock(&file, FlockOperation::NonBlockingLockShared).is_ok();
                // As in `drop`: it may be shared for a moment. Where it was not had, there is nothing to give up.
                let _ = flock(&file, FlockOperation::Unlock);
                Ok(!is_free)
            }
        }
    }

    /// Tells `watcher` of every line from now on.
    pub fn watch(&mut self, watcher: Watcher) {
        self.watcher = Some(watcher);
    }

    /// Reads one without touching it. `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub fn read(path: &Path) -> Result<Option<Story>, DeployError> {
        match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DeployError::io("read", path)(error)),
            Ok(bytes) => parse(path, &bytes[..whole_lines(&bytes)]),
        }
    }

    /// What it says so far.
    pub fn story(&self) -> &Story {
        &self.story
    }

    /// A step begins.
    ///
    /// # Errors
    /// When it cannot be written; nothing may be made then. The same for the others.
    pub fn begin_step(&mut self, step: StepId) -> Result<(), DeployError> {
        self.append(&Line::Begin(step))?;
        self.apply(Line::Begin(step))
    }

    /// Something will be made; gives its number.
    ///
    /// # Errors
    /// As [`Journal::begin_step`].
    pub fn will(&mut self, made: Made) -> Result<u32, DeployError> {
        let number = u32::try_from(self.story.items.len()).unwrap_or(u32::MAX);
        let line = Line::Will { number, made: Box::new(made) };
        self.append(&line)?;
        self.apply(line)?;
        Ok(number)
    }

    /// It was made.
    ///
    /// # Errors
    /// As [`Journal::begin_step`].
    pub fn did(&mut self, number: u32) -> Result<(), DeployError> {
        self.append(&Line::Did(number))?;
        self.apply(Line::Did(number))
    }

    /// The step is complete.
    ///
    /// # Errors
    /// As [`Journal::begin_step`].
    pub fn end_step(&mut self, step: StepId) -> Result<(), DeployError> {
        self.append(&Line::End(step))?;
        self.apply(Line::End(step))
    }

    /// It will be taken back.
    ///
    /// # Errors
    /// As [`Journal::begin_step`].
    pub fn undoing(&mut self, number: u32) -> Result<(), DeployError> {
        self.append(&Line::Undoing(number))?;
        self.apply(Line::Undoing(number))
    }

    /// It was taken back.
    ///
    /// # Errors
    /// As [`Journal::begin_step`].
    pub fn undone(&mut self, number: u32, how: Undone) -> Result<(), DeployError> {
        let line = Line::Undone { number, how };
        self.append(&line)?;
        self.apply(line)
    }

    /// The deployment is over.
    ///
    /// # Errors
    /// As [`Journal::begin_step`].
    pub fn over(&mut self, outcome: Outcome) -> Result<(), DeployError> {
        self.append(&Line::Over(outcome))?;
        self.apply(Line::Over(outcome))
    }

    /// This host is taken out of the cluster; nothing to do when that was begun before.
    ///
    /// # Errors
    /// As [`Journal::begin_step`]; also when the deployment is not complete.
    pub fn undeploy(&mut self, at: i64) -> Result<(), DeployError> {
        if self.story.is_undeploying {
            return Ok(());
        }
        // Checked first: nothing may be written that could not be read.
        self.story.clone().apply(Line::Undeploy { at }).map_err(|why| self.refused(why))?;
        self.append(&Line::Undeploy { at })?;
        self.apply(Line::Undeploy { at })
    }

    fn append(&mut self, line: &Line) -> Result<(), DeployError> {
        let failed = |source| DeployError::Io { action: "write", path: self.path.clone(), source };
        #[cfg(test)]
        super::testing::line_is_written().map_err(failed)?;
        let mut text = serde_json::to_string(line).map_err(|error| failed(error.into()))?;
        text.push('\n');
        let before = self.file.metadata().map_err(failed)?.len();
        if let Some(watcher) = &mut self.watcher {
            watcher(Moment::Before, &text)?;
        }
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // A line that counts must not follow half of one. Where this fails too, whoever reads it says which line.
            let _ = self.file.set_len(before);
            return Err(failed(error));
        }
        self.watcher.as_mut().map_or(Ok(()), |watcher| watcher(Moment::After, &text))
    }

    fn apply(&mut self, line: Line) -> Result<(), DeployError> {
        self.story.apply(line).map_err(|why| self.refused(why))
    }

    fn refused(&self, why: &str) -> DeployError {
        DeployError::Refused(format!("{}: {why}", self.path.display()))
    }
}

fn lock(file: &File, path: &Path) -> Result<(), DeployError> {
    flock(file, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
        rustix::io::Errno::WOULDBLOCK => DeployError::Refused(format!(
            "another hosted-engine works on the deployment of this host now ({} is locked): wait for its end",
            path.display()
        )),
        other => DeployError::io("lock", path)(other.into()),
    })
}

/// Bytes up to and with the last line's end.
fn whole_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Option<Story>, DeployError> {
    let damaged = |line: usize, why: String| DeployError::Journal { path: path.to_owned(), line, why };
    let mut story: Option<Story> = None;
    for (index, text) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let line = serde_json::from_slice(text).map_err(|error| damaged(index + 1, error.to_string()))?;
        match (&mut story, line) {
            (None, Line::Deploy { form: FORM, at, request, .. }) => story = Some(Story::new(at, request)),
            (None, Line::Deploy { form, version, .. }) => {
                return Err(damaged(
                    1,
                    format!("its form {form} is of another release ({version}); use that one"),
                ));
            }
            (None, _) => return Err(damaged(1, "it does not begin with what is to be done".to_owned())),
            (Some(story), line) => story.apply(line).map_err(|why| damaged(index + 1, why.to_owned()))?,
        }
    }
    Ok(story)
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
