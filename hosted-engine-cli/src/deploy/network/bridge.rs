//! The bridge as a thing that is made and taken back.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::guard;
use super::keeper::Keeper;
use super::picture::{Picture, Same};
use super::plan::{self, Batch, Nic};
use crate::deploy::made::{Undo, Undone};
use crate::deploy::{Call, DeployError, ToolError, Tools, World};
use ha_config::Secret;

/// So often what a keeper may do at the same time is looked at before a failure counts.
const LOOKS: u32 = 3;

/// A bridge over a network card, with all that is needed to make it and to take it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeBridge {
    /// Its name.
    pub bridge: String,
    /// The card as it was.
    pub nic: Nic,
    /// What stands on the bridge as its alias, so that it is known again.
    pub mark: String,
    /// Who makes it again after a boot.
    pub keeper: Keeper,
}

impl MadeBridge {
    /// Makes it, or goes on making it. The host's network is disturbed for some tens of milliseconds, or as long as the
    /// network manager takes.
    ///
    /// # Errors
    /// Of `ip` or of the network manager's program.
    pub fn make(&self, tools: &dyn Tools) -> Result<(), DeployError> {
        self.keeper.keep(self, tools)?;
        let look = || Picture::look(tools);
        say(tools, &plan::make_bridge(&look()?, &self.nic, &self.bridge, &self.mark))?;
        self.with_keeper(tools, |now| plan::move_addresses(now, &self.own(), &self.bridge))?;
        self.with_keeper(tools, |now| plan::move_routes(now, &self.own(), &self.bridge, self.same()))
    }

    fn same(&self) -> Same {
        match self.keeper {
            Keeper::Nobody => Same::Exactly,
            Keeper::NetworkManager(_) | Keeper::Networkd(_) | Keeper::Ifupdown(_) => Same::Way,
        }
    }

    /// The card with what has to be given to it or to the bridge: a keeper asks for leases itself, and one that was given
    /// long ago may be somebody else's by now.
    fn own(&self) -> Cow<'_, Nic> {
        match self.keeper {
            Keeper::Nobody => Cow::Borrowed(&self.nic),
            Keeper::NetworkManager(_) | Keeper::Networkd(_) | Keeper::Ifupdown(_) => {
                Cow::Owned(self.nic.without_lent())
            }
        }
    }

    /// Says what `plan` finds missing. A keeper works beside this, and may be faster than what follows from a look: what
    /// fails counts only when it is still missing in the last one.
    fn with_keeper(&self, tools: &dyn Tools, plan: impl Fn(&Picture) -> Batch) -> Result<(), DeployError> {
        if self.keeper != Keeper::Nobody {
            for _ in 0..LOOKS {
                let Batch { mut lenient, mut strict } = plan(&Picture::look(tools)?);
                if strict.is_empty() && lenient.is_empty() {
                    return Ok(());
                }
                lenient.append(&mut strict);
                say(tools, &Batch { lenient, strict })?;
            }
        }
        say(tools, &plan(&Picture::look(tools)?))
    }

    /// Takes it back, however far it got.
    ///
    /// # Errors
    /// Of `ip`: the network may be half restored then, and the next try goes on.
    pub fn take_back(&self, tools: &dyn Tools) -> Result<Undone, DeployError> {
        let before = Picture::look(tools)?;
        let others: Vec<&str> = before
            .ports(&self.bridge)
            .map(|link| link.name.as_str())
            .filter(|name| *name != self.nic.name)
            .collect();
        if !others.is_empty() {
            let why = format!("{} uses it: shut the VM down or take it out of the bridge", others.join(", "));
            return Ok(Undone::LeftAlone(why));
        }
        let is_port =
            before.link(&self.nic.name).is_some_and(|link| link.master.as_ref() == Some(&self.bridge));
        let alias = before.link(&self.bridge).map(|link| link.alias.as_deref());
        if let Some(alias) = alias
            && !is_port
            && alias != Some(self.mark.as_str())
            && self.keeper == Keeper::Nobody
        {
            // Cut between its making and its marking: nobody else makes one with the card's hardware address.
            let mac = before.link(&self.bridge).map(|link| link.mac.as_str());
            if mac != Some(self.nic.mac.as_str()) {
                return Ok(Undone::LeftAlone("it is another bridge, and not over this card".to_owned()));
            }
        }
        let left = self.keeper.forget(self, tools)?;
        let look = || Picture::look(tools);
        say(tools, &plan::remove_bridge(&look()?, &self.nic, &self.bridge))?;
        self.with_keeper(tools, |now| plan::restore_addresses(now, &self.own()))?;
        self.with_keeper(tools, |now| plan::restore_routes(now, &self.own(), self.same()))?;
        if let Some(why) = left {
            return Ok(Undone::LeftAlone(why));
        }
        Ok(if look()? == before { Undone::Absent } else { Undone::TakenBack })
    }
}

/// Has `ip` carry out a batch: first what may fail.
fn say(tools: &dyn Tools, batch: &Batch) -> Result<(), DeployError> {
    for (commands, is_lenient) in [(&batch.lenient, true), (&batch.strict, false)] {
        let family = |command: &String| ["-4", "-6"].into_iter().find(|family| command.starts_with(family));
        for commands in commands.chunk_by(|one, next| family(one) == family(next)) {
            let of = family(&commands[0]).unwrap_or_default();
            let text: String =
                commands.iter().flat_map(|command| [command[of.len()..].trim_start(), "\n"]).collect();
            let options = [of, if is_lenient { "-force" } else { "" }, "-batch", "-"];
            let options = options.iter().filter(|option| !option.is_empty());
            let call = Call::new("ip").args(options).input(Secret::new(text));
            if is_lenient {
                // Whatever it left shows in the next look.
                tools.ask(&call)?;
            } else {
                tools.run(&call).map_err(|error| named(error, commands))?;
            }
        }
    }
    Ok(())
}

/// Puts the command itself in the place of its line number.
fn named(error: ToolError, commands: &[String]) -> ToolError {
    let ToolError::Failed { call, code, said } = error else { return error };
    let command = said
        .rsplit_once("-:")
        .and_then(|(_, line)| commands.get(line.trim().parse::<usize>().ok()?.checked_sub(1)?));
    let call = command.map_or(call, |command| format!("ip {command}"));
    ToolError::Failed { call, code, said }
}

impl Undo for MadeBridge {
    fn describe(&self) -> String {
        format!("bridge {} over {}{}", self.bridge, self.nic.name, self.keeper.describe())
    }

    fn describe_undo(&self) -> String {
        format!("removed; {} gets its addresses and routes back", self.nic.name)
    }

    fn undo(&self, world: &World<'_>) -> Result<Undone, DeployError> {
        guard::take_back(world, self)
    }
}
