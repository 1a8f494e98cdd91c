//! vm.conf from the engine's own description of its VM, in the storage domain's `OVF_STORE`.
//!
//! The description in the configuration volume is that of the day of the deployment; what was changed in the engine since
//! is only here. Each look is made aside, because VDSM or storage may take their time: the loop waits two seconds for
//! it, goes on with what it has, and finds the result in a later loop. There is never more than one look under way. A
//! description that cannot be used replaces nothing. What is wrong is logged when it changes, not in each loop.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use engine_vm::vdsm::check_description;
use ha_config::atomic::{self, Mode};
use ha_config::{ConfigError, HostedEngineConf, VmConf};
use jiff::tz::TimeZone;
use ovf_store::store::Volumes;
use ovf_store::{Note, OvfStore, StoreError};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// Longest time that one look is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a look came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brought {
    /// This host has what the engine wants.
    Fresh,
    /// Nobody knows; the log says why.
    Nothing,
}

/// Why a look brought nothing.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the engine's description of its VM cannot be started here: {0}")]
    Unusable(String),
    #[error(transparent)]
    File(#[from] ConfigError),
}

/// Brings vm.conf from the `OVF_STORE`.
pub struct EngineConf {
    looks: Mutex<Looks>,
}

/// What belongs to the looks, of which one may be under way.
struct Looks {
    /// `None` while a look has it.
    look: Option<Box<dyn Look>>,
    running: Option<JoinHandle<Looked>>,
    /// What was logged last, and holds.
    told: Option<String>,
    notes: Vec<Note>,
}

/// A look that is over.
struct Looked {
    look: Box<dyn Look>,
    result: Result<Done, Trouble>,
}

/// What a good look did.
struct Done {
    changed: bool,
    notes: Vec<Note>,
}

#[async_trait::async_trait]
trait Look: Send {
    async fn look(&mut self) -> Result<Done, Trouble>;
}

struct StoreLook<V> {
    store: OvfStore<V>,
    conf: HostedEngineConf,
    clock: Arc<dyn Clock>,
    zone: TimeZone,
}

#[async_trait::async_trait]
impl<V: Volumes> Look for StoreLook<V> {
    async fn look(&mut self) -> Result<Done, Trouble> {
        let vm = self.store.read(self.clock.monotonic()).await?;
        let path = self.conf.vm_conf_path();
        let made = vm.to_vm_conf(&path);
        self.check(&made.conf)?;
        let text = made.conf.to_string();
        let old = match atomic::read_text(&path) {
            Ok(old) => Some(old),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        let changed = old.as_deref().map(without_comments) != Some(text.trim());
        if changed {
            let when = metadata_format::ctime(self.clock.wall().0, &self.zone);
            let header = format!(
                "# The engine's description of its VM, as of {when}.\n\
                 # Change the VM in the engine: what is changed here will be overwritten.\n\n"
            );
            atomic::write(&path, format!("{header}{text}").as_bytes(), Mode::KeepOr644)?;
        }
        Ok(Done { changed, notes: made.notes })
    }
}

impl<V> StoreLook<V> {
    /// A description that no host could start must not replace one that can.
    fn check(&self, made: &VmConf) -> Result<(), Trouble> {
        // What will be read from the file, which is not always what was put into it.
        let read = VmConf::parse(made.path(), &made.to_string())?;
        read.mem_size()?;
        check_description(&read, &self.conf).map_err(|error| Trouble::Unusable(error.to_string()))
    }
}

/// The file without the lines that say when it was written.
fn without_comments(text: &str) -> &str {
    let mut rest = text;
    while let Some((line, after)) = rest.split_once('\n')
        && (line.starts_with('#') || line.trim().is_empty())
    {
        rest = after;
    }
    rest.trim()
}

impl EngineConf {
    /// From the `OVF_STORE` that `vdsm` finds, for the host of `conf`.
    pub fn new<V: Volumes + 'static>(
        vdsm: V,
        conf: &HostedEngineConf,
        clock: Arc<dyn Clock>,
        zone: TimeZone,
    ) -> Result<Self, ConfigError> {
        let store = OvfStore::new(vdsm, conf)?;
        let look = Box::new(StoreLook { store, conf: conf.clone(), clock, zone });
        let looks = Looks { look: Some(look), running: None, told: None, notes: Vec::new() };
        Ok(Self { looks: Mutex::new(looks) })
    }

    /// Brings vm.conf, if the engine has another one. Answers within two seconds.
    pub async fn refresh(&self) -> Brought {
        let mut looks = self.looks.lock().await;
        if let Some(mut look) = looks.look.take() {
            looks.running = Some(tokio::spawn(async move {
                let result = look.look().await;
                Looked { look, result }
            }));
        }
        let Some(running) = looks.running.as_mut() else { return Brought::Nothing };
        match tokio::time::timeout(PATIENCE, running).await {
            Ok(Ok(Looked { look, result })) => {
                looks.running = None;
                looks.look = Some(look);
                looks.tell(result)
            }
            // It is not tried again: a panic is a mistake of ours, and the configuration volume is there.
            Ok(Err(error)) => {
                looks.running = None;
                looks.trouble(format!("the OVF_STORE is not looked at any more: {error}"))
            }
            Err(_) => {
                let secs = PATIENCE.as_secs();
                looks.trouble(format!(
                    "VDSM and storage take more than {secs} s to read the OVF_STORE; it goes on"
                ))
            }
        }
    }
}

impl Looks {
    fn tell(&mut self, result: Result<Done, Trouble>) -> Brought {
        let Done { changed, notes } = match result {
            Ok(done) => done,
            Err(error) => return self.trouble(error.to_string()),
        };
        if changed {
            tracing::info!("vm.conf is now what the engine wants; it holds from the VM's next start on");
        } else if self.told.is_some() {
            tracing::info!("vm.conf is what the engine wants");
        }
        self.told = None;
        for note in notes.iter().filter(|note| !self.notes.contains(note)) {
            tracing::warn!("the engine's description of its VM: {note}");
        }
        self.notes = notes;
        Brought::Fresh
    }

    fn trouble(&mut self, why: String) -> Brought {
        if self.told.as_ref() != Some(&why) {
            tracing::warn!("vm.conf was not brought from the engine's OVF_STORE: {why}");
            self.told = Some(why);
        }
        Brought::Nothing
    }
}

impl fmt::Debug for EngineConf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineConf").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "engine_conf_tests.rs"]
mod tests;
